"""Models of tasks: fine-tuned networks as folders that predict for new scans."""

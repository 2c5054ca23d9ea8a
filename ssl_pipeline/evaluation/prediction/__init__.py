"""Predictions of fine-tuned networks for scans that no study knows."""

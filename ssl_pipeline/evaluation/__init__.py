"""What an encoder is worth: probes and fine-tuning, beside random weights and pixels."""

"""Evaluation of encoders: probes and fine-tuning, compared with random weights and pixels."""

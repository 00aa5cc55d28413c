"""Training of baselines and fine-tuning."""

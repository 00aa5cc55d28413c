"""What rooms that follow a PyTorch module share: reasons for one that cannot be traced, and attention."""

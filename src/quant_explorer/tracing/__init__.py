"""What rooms that follow a PyTorch module share: plain layers, a graph in normal form, reasons, attention."""

"""PyTorch eager: a module written as source, and its state dict."""

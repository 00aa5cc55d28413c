"""TorchScript: a traced and frozen module."""

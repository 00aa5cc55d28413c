"""PyTorch to ONNX, for the runtimes that read it."""

"""ONNX Runtime: an ONNX file, quantized by its own tools."""

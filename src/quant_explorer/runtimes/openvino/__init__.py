"""OpenVINO: its IR, quantized by NNCF."""

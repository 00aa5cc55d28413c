"""Graphs of PyTorch that several runtimes lower from: FX, PT2E, fusion, half precision."""

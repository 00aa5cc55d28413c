"""Workload: what a float model asks of any machine. Layers, multiply-accumulates, live activations."""

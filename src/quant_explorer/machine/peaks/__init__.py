"""Peaks of this machine: products, the probe that times them, its process, and the file that keeps them."""

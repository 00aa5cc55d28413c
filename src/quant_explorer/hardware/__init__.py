"""Hardware: what a model asks of a machine, and what the machine can do. One file each."""

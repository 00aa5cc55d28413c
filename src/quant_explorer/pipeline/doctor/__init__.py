"""What this machine is and can do, before a run."""

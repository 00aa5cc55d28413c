"""What the observers of a prepared graph see, and which values share one."""

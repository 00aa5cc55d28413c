"""Machine: what this computer is and can do. No other room reads it from /proc and /sys."""

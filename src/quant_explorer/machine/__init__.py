"""Machine: what this computer is and can do. The only room that reads /proc and /sys."""

"""What this interpreter runs on, found without any library: kind of CPU, installed packages."""

"""Every setting, declared once: name, type, default, range and meaning."""

"""AOTInductor: an exported program compiled to a shared library."""

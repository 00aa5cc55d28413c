"""The nouns of quant-explorer; importable without torch and without any runtime."""

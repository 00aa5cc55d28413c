"""Interleaved rounds in fresh processes, from the first to the one that decides."""

"""Metrics: what is found out about a session, an artifact's files, and outputs. One file each."""

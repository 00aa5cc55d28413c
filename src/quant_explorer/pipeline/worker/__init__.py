"""A fresh, pinned process that opens an artifact and answers requests."""

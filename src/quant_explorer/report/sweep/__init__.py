"""A sweep's tables, texts and plots."""

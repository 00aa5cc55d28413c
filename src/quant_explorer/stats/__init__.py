"""Statistics: pure functions on arrays. Intervals, paired tests, contrasts, the frontier."""

"""Statistics, pure functions on arrays: intervals, paired tests, rounds, contrasts, resampling, frontier."""

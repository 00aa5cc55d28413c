"""Recipe to artifact: prepare, lower, check, and say what is made again."""

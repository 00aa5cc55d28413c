"""The page: one HTML file that holds the answer, its evidence and everything needed to repeat it."""

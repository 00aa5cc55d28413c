"""Decisions: what to ship, what keeps a budget, and whether a run is as good as another."""

"""A sweep's rows, budgets and decisions, joined over its seeds."""

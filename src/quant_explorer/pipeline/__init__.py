"""The verbs: what to try, train, build, measure, explore."""

"""For tests, ours and those of plug-in authors: toys, a runtime that fails on demand, conformance suites."""

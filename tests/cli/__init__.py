"""Tests of the command line; a package, because other rooms have tests of the same name."""

"""Tests of the documents; a package, because other rooms have tests of the same name."""

"""Tests of the pipeline; a package, because other rooms have tests of the same name."""

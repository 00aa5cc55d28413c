"""Tests of the report; a package, because other rooms have tests of the same name."""

"""A finished run and a command line, as the tests of the command line have them."""

from __future__ import annotations

from tests.cli.conftest import copied, finished, invoke, place, shared_cache

__all__ = ["copied", "finished", "invoke", "place", "shared_cache"]

"""What trained weights were made of, kept beside them: a later version then explains why it trains again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from quant_explorer.core.artifact import write_atomically
from quant_explorer.core.difference import Difference, Facts, find_least_differences

_SUFFIX = ".origin.json"


@dataclass(frozen=True)
class Origin:
    """`made` says what was trained, in words that are the same in every version; `facts` what decided it."""

    made: str
    facts: Facts

    def write(self, weights: Path) -> None:
        """Keep it beside the file `weights`."""
        write_atomically(weights.with_suffix(_SUFFIX), msgspec.json.encode(self))

    def differences(self, earlier: Iterable[Path]) -> tuple[Difference, ...] | None:
        """Return how it differs from the nearest of `earlier` weights of the same; None when there are none.

        Where weights say nothing of themselves, they may have been of the same: nothing is known to differ.
        """
        known = [_read(path) for path in earlier]
        same = [origin.facts for origin in known if origin is not None and origin.made == self.made]
        if same:
            return find_least_differences(same, self.facts)
        return () if None in known else None


def _read(weights: Path) -> Origin | None:
    path = weights.with_suffix(_SUFFIX)
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Origin)
    except (OSError, msgspec.DecodeError):
        return None

"""Names to plug-ins. The command line, the documentation and the tests derive from these tables."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from quant_explorer.core.errors import UnknownNameError

T = TypeVar("T")
# More names than these are no answer; those that are spelled most like the wrong one are listed.
_LISTED = 20


def nearest(name: str, allowed: Iterable[str]) -> str | None:
    """Return the allowed name that begins with `name` or is spelled most like it, None when none is close."""
    names = list(allowed)
    begun = [candidate for candidate in names if name and candidate.startswith(name)]
    matches = begun or difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return matches[0] if matches else None


class Registry(Mapping[str, T], Generic[T]):
    """A read-only mapping from name to plug-in that explains a wrong name.

    `kind` is the word used in messages, for instance "runtime".
    """

    def __init__(self, kind: str, members: Mapping[str, T]) -> None:
        self.kind = kind
        self._members = dict(members)

    def __getitem__(self, name: str) -> T:
        """Return the plug-in called `name`; raises UnknownNameError with the allowed names."""
        try:
            return self._members[name]
        except KeyError:
            raise UnknownNameError(unknown_name_message(self.kind, name, self._members)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, name: object) -> bool:
        return name in self._members


def unknown_name_message(kind: str, name: str, allowed: Iterable[str]) -> str:
    """Say that `name` is no `kind`, list what is allowed, of many what is near, and suggest the nearest."""
    names = sorted(allowed)
    suggestion = nearest(name, names)
    hint = f" Did you mean {suggestion!r}?" if suggestion else ""
    near = ", ".join(_spelled_like(name, names) if len(names) > _LISTED else names) or "none"
    others = f" and others, {len(names)} in all" if len(names) > _LISTED else ""
    return f"unknown {kind} {name!r}.{hint} Allowed: {near}{others}."


def _spelled_like(name: str, names: list[str]) -> list[str]:
    begun = [candidate for candidate in names if name and candidate.startswith(name)]
    like = difflib.get_close_matches(name, names, _LISTED, 0)
    return sorted(list(dict.fromkeys((*begun, *like)))[:_LISTED])

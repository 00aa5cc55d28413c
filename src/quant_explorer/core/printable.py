"""Text of others (names of files, classes, models) without the characters that a terminal obeys."""

from __future__ import annotations

import re

# Control characters but tab and line feed, and those that reverse the direction of what follows.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def show_controls(text: str) -> str:
    """Return `text` with each control character as its escape in Python: an ESC becomes `\\x1b`."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)

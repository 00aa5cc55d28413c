"""Formatting at the edge. Inside, everything is in seconds (`_s`) and bytes (`_bytes`)."""

import re
from collections.abc import Iterable

# In a sentence; the rest is a number.
MOST_NAMED = 4
# Control characters but tab and line feed, and those that reverse the direction of what follows.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def format_count(count: int, noun: str) -> str:
    """Format a number of things, whose plural has an s: `1 round`, `2 rounds`."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def list_some(names: Iterable[object], most: int = MOST_NAMED, separator: str = ", ") -> str:
    """Return the first `most` names and the number of the others: `a, b and 3 more`."""
    texts = [str(name) for name in names]
    rest = f" and {len(texts) - most:,} more" if len(texts) > most else ""
    return separator.join(texts[:most]) + rest


def format_kb(size_bytes: float) -> str:
    """Format bytes as kilobytes of 1,000 bytes with one decimal."""
    return f"{size_bytes / 1e3:,.1f}"


def format_mb(size_bytes: float) -> str:
    """Format bytes as megabytes of 1,000,000 bytes with one decimal."""
    return f"{size_bytes / 1e6:,.1f}"


def format_ms(duration_s: float) -> str:
    """Format seconds as milliseconds with three significant digits."""
    milliseconds = duration_s * 1e3
    if milliseconds >= 100:
        return f"{milliseconds:,.0f}"
    return f"{milliseconds:.2f}" if milliseconds >= 10 else f"{milliseconds:.3f}"


def format_duration(duration_s: float) -> str:
    """Format seconds as seconds, minutes, or hours with minutes."""
    seconds = round(duration_s)
    if seconds < 60:
        return f"{seconds} s"
    hours, minutes = divmod(round(duration_s / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def format_percent(share: float) -> str:
    """Format a share in [0, 1] as a percentage with two decimals."""
    return f"{share * 100:.2f}"


def show_name(name: object) -> str:
    """Return the name of a file for one line: control characters and line breaks are written as escapes."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in str(name)
    )


def show_controls(text: str) -> str:
    """Return `text` with each control character as its escape in Python: an ESC becomes `\\x1b`."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)

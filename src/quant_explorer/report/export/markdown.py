"""Text of unknown origin in Markdown, so that it is shown and does nothing."""

from __future__ import annotations

import re

_SPECIAL = re.compile(r"[\\`*_\[\]#|~<>&$]")


class Trusted(str):
    """Markdown that needs no escaping."""

    __slots__ = ()


def escape(value: object) -> str:
    """Return text that a reader of Markdown sees as it is, on one line."""
    if isinstance(value, Trusted):
        return value
    return _SPECIAL.sub(_as_entity, _on_one_line(str(value)))


def code(value: object) -> Trusted:
    """Return text as a code span."""
    text = _on_one_line(str(value))
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * (longest + 1)
    # A space beside a backtick, or around nothing, is not shown.
    padding = " " if not text.strip() or text[0] in "` " or text[-1] in "` " else ""
    return Trusted(f"{fence}{padding}{text}{padding}{fence}")


def _as_entity(found: re.Match[str]) -> str:
    return f"&#{ord(found[0])};" if found[0] in "<>&" else f"\\{found[0]}"


def _on_one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text)

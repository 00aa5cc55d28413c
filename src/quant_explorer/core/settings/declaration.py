"""A setting is declared once, as a field of a frozen dataclass: name, type, default, range and meaning.

The command line, the keys of a YAML file, their checks and the reference page derive from the declaration.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Literal, TypeVar, get_args, get_origin, get_type_hints

from quant_explorer.core.errors import SettingsError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Scalar = str | int | float | Path
Value = Scalar | tuple[Scalar, ...] | None
T = TypeVar("T", bound=Value)
D = TypeVar("D", bound="DataclassInstance")

_DECLARED = "setting"
# No float is larger; a whole number may be.
_LARGEST = sys.float_info.max


@dataclass(frozen=True)
class Alias:
    """An earlier key of the YAML file, whose numbers count `times` as much."""

    key: str
    times: int = 1


@dataclass(frozen=True)
class Setting:
    """A field of a settings class with all that was declared of it.

    `kind` is its type, of a list that of the elements, and `choices` are the only values of that type.
    Numbers are finite and inside the bounds; a list `holds` a number, and any twice if it `repeats`.
    `range_text` and `option_name` replace what is derived, `unset` says what a default of None, "" or () is.
    """

    help: str
    at_least: float = -inf
    above: float = -inf
    at_most: float = inf
    below: float = inf
    holds: int | None = None
    range_text: str = ""
    option_name: str = ""
    metavar: str | None = None
    unset: str = ""
    aliases: tuple[Alias, ...] = ()
    repeats: bool = False
    name: str = ""
    kind: type[Scalar] = str
    is_list: bool = False
    is_optional: bool = False
    choices: tuple[str, ...] = ()
    default: Value = None

    @property
    def option(self) -> str:
        """The option of the command line; seconds go without their unit."""
        return self.option_name or f"--{self.name.removesuffix('_s').replace('_', '-')}"

    @property
    def keys(self) -> dict[str, int]:
        """The keys of a YAML file, its own first, with how much each number counts."""
        return {self.name: 1} | {alias.key: alias.times for alias in self.aliases}

    @property
    def default_text(self) -> str:
        """The default in the words of help and reference."""
        return shown(self.default) or self.unset or "none"

    @property
    def allowed(self) -> str:
        """The range in words, empty when every value of the type is allowed."""
        if self.range_text or self.choices:
            return self.range_text or " or ".join(self.choices)
        if self.at_least > -inf and self.at_most < inf:
            return f"{shown(self.at_least)} to {shown(self.at_most)}"
        if self.at_least > -inf and self.below < inf:
            return f"{shown(self.at_least)} up to but not {shown(self.below)}"
        lower = (("at least", self.at_least), ("above", self.above))
        upper = (("at most", self.at_most), ("below", self.below))
        return " and ".join(f"{word} {shown(bound)}" for word, bound in lower + upper if abs(bound) < inf)

    @property
    def described(self) -> str:
        """Type and range in words."""
        names = {bool: "true or false", int: "whole number", float: "number", Path: "path", str: "text"}
        plural = "s" if self.is_list and self.kind in (int, float) else ""
        kind = "" if self.choices or self.range_text else names[self.kind] + plural
        return ("list of " if self.is_list else "") + ", ".join(filter(None, (kind, self.allowed)))

    def require(self, value: Value) -> None:
        """Raise NotAllowedError for a value out of range; None is the absence of one."""
        if value is None:
            return
        parts = value if isinstance(value, tuple) else (value,)
        for part in parts:
            if not self._is_inside(part):
                raise NotAllowedError(self, part)
        if not self._is_complete(parts):
            raise NotAllowedError(self, value)

    def read(self, content: object, times: int = 1) -> Value:
        """Return what a YAML file holds as a value in range; a list of one needs no brackets.

        Raises NotAllowedError with what the file holds, SettingsError for an element that is there twice.
        """
        if content is None and self.is_optional:
            return None
        if not self.is_list:
            return self._read(content, times)
        parts = content if isinstance(content, list) else [content]
        value = tuple(self._read(part, times) for part in parts)
        if not self._is_complete(value):
            raise NotAllowedError(self, content)
        if not self.repeats and len(set(value)) < len(value):
            raise SettingsError("a value is there twice")
        return value

    def parse(self, texts: Iterable[str]) -> tuple[Scalar, ...]:
        """Return a list of the command line: an option that is repeated, or holds commas; each value once.

        Raises SettingsError for text that is no value, or a value out of range.
        """
        given = list(texts)
        try:
            parts = tuple(self.kind(part.strip()) for text in given for part in text.split(","))
        except ValueError:
            kind, example = ("whole numbers", "1,2") if self.kind is int else ("numbers", "0.5,1")
            raise SettingsError(
                f"{self.option} {','.join(given)}: not {kind}. "
                f"Allowed: for instance {shown(self.default) or example}."
            ) from None
        self.require(parts)
        return parts if self.repeats else tuple(dict.fromkeys(parts))

    def _read(self, content: object, times: int) -> Scalar:
        value: Scalar
        # Python takes True for 1.
        match content:
            case bool() if self.kind is bool:
                value = content
            case int() if self.kind in (int, float) and not isinstance(content, bool):
                value = content * times
            case float() if self.kind is float:
                value = content * times
            case str() if self.kind in (str, Path):
                value = self.kind(content)
            case int() if self.kind is str and not self.choices and not isinstance(content, bool):
                # YAML takes 299 for a number, which is text here because 240x320 is.
                value = str(content)
            case _:
                raise NotAllowedError(self, content)
        if not self._is_inside(value):
            raise NotAllowedError(self, content)
        return float(value) if self.kind is float and isinstance(value, int) else value

    def _is_complete(self, parts: tuple[Scalar, ...]) -> bool:
        # What has elements by default makes no sense without any.
        is_empty = self.is_list and bool(self.default) and not parts
        return not is_empty and (self.holds is None or self.holds in parts)

    def _is_inside(self, value: Scalar) -> bool:
        if self.choices:
            return value in self.choices
        if isinstance(value, str | Path):
            return True
        return (
            self.at_least <= value <= self.at_most
            and self.above < value < self.below
            and abs(value) <= _LARGEST
        )


class NotAllowedError(SettingsError):
    """A value that a setting does not take; `value` is it, or the wrong element of a list."""

    def __init__(self, declared: Setting, value: object) -> None:
        allowed = declared.allowed or declared.described
        super().__init__(f"{declared.option} {shown(value)} is out of range. Allowed: {allowed}.")
        self.value = value


def setting(
    default: T,
    help: str,
    *,
    at_least: float = -inf,
    above: float = -inf,
    at_most: float = inf,
    below: float = inf,
    holds: int | None = None,
    range_text: str = "",
    option_name: str = "",
    metavar: str | None = None,
    unset: str = "",
    aliases: tuple[Alias, ...] = (),
    repeats: bool = False,
) -> T:
    """Declare a field of a settings class; see `Setting`. Its type and name are those of the field."""
    declared = Setting(
        help,
        at_least=at_least,
        above=above,
        at_most=at_most,
        below=below,
        holds=holds,
        range_text=range_text,
        option_name=option_name,
        metavar=metavar,
        unset=unset,
        aliases=aliases,
        repeats=repeats,
        default=default,
    )
    metadata = {_DECLARED: declared}
    if isinstance(default, Path):  # A JSON Schema cannot hold it as a default.
        return dataclasses.field(default_factory=lambda: default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@functools.cache
def settings_of(kind: type[DataclassInstance]) -> tuple[Setting, ...]:
    """Return what a settings class declares, in order; what it inherits comes last."""
    hints = get_type_hints(kind)
    inherited = {name for base in kind.__mro__[1:] for name in vars(base).get("__annotations__", ())}
    fields = sorted(dataclasses.fields(kind), key=lambda field: field.name in inherited)
    return tuple(_complete(field, hints[field.name]) for field in fields)


def declared_of(start: DataclassInstance) -> tuple[Setting, ...]:
    """Return what its class declares, with the values of `start` for defaults."""
    values = values_of(start)
    return tuple(
        dataclasses.replace(declared, default=values[declared.name]) for declared in settings_of(type(start))
    )


def require_allowed(settings: DataclassInstance) -> None:
    """Raise NotAllowedError when a field is out of its range: for `__post_init__` of a settings class."""
    for declared in settings_of(type(settings)):
        declared.require(getattr(settings, declared.name))


def values_of(settings: DataclassInstance) -> dict[str, Value]:
    """Return what the fields of a settings class are, by name."""
    return {declared.name: getattr(settings, declared.name) for declared in settings_of(type(settings))}


def merge(start: D, values: Mapping[str, Value]) -> D:
    """Return `start` with those of its fields that are given and not None; raises SettingsError."""
    names = values_of(start)
    given = {name: value for name, value in values.items() if name in names and value is not None}
    return dataclasses.replace(start, **given)


def shown(value: object) -> str:
    """Return a value as it is written on the command line, empty for None."""
    if isinstance(value, tuple):
        return ",".join(map(shown, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value).removesuffix(".0")


def decode_path(kind: type, value: object) -> object:
    """Tell msgspec how a path is read (its `dec_hook`); it is written by `str`."""
    if kind is Path and isinstance(value, str | Path):
        return Path(value)
    raise NotImplementedError(kind)


def _complete(field: dataclasses.Field[Value], hint: object) -> Setting:
    declared: Setting = field.metadata[_DECLARED]
    is_optional = NoneType in get_args(hint)
    if is_optional:
        (hint,) = (part for part in get_args(hint) if part is not NoneType)
    is_list = get_origin(hint) is tuple
    if is_list:
        hint = get_args(hint)[0]
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    kind = str if choices else hint
    if kind not in (bool, int, float, str, Path):
        raise TypeError(f"{field.name}: a setting of type {kind} cannot be declared")
    return dataclasses.replace(
        declared,
        name=field.name,
        kind=kind,
        is_list=is_list,
        is_optional=is_optional,
        choices=choices,
    )

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click
import pytest
from click.testing import CliRunner

from quant_explorer.cli.options import option
from quant_explorer.core.errors import SettingsError
from quant_explorer.core.settings.declaration import (
    Alias,
    NotAllowedError,
    Setting,
    declared_of,
    merge,
    require_allowed,
    setting,
    settings_of,
    values_of,
)


@dataclass(frozen=True)
class Oven:
    """Settings of a kind that nobody has seen before: one of each type."""

    heat: int = setting(180, "Degrees.", at_least=50, at_most=250, aliases=(Alias("fires", times=60),))
    share: float = setting(0.5, "Of the tray.", above=0, below=1)
    limit_s: float | None = setting(None, "Longest.", above=0, unset="no limit")
    name: str = setting("", "What is baked.", unset="bread")
    book: Path = setting(Path("book"), "Recipes.")
    fan: bool = setting(False, "Moves air.")
    trays: tuple[int, ...] = setting((1, 2), "Levels.", at_least=0, holds=1)
    extras: tuple[float, ...] = setting((), "More.")
    mode: Literal["top", "bottom"] = setting("top", "Where heat comes from.")

    def __post_init__(self) -> None:
        require_allowed(self)


def declared(name: str) -> Setting:
    return next(field for field in settings_of(Oven) if field.name == name)


@pytest.mark.parametrize(
    ("name", "option_name", "described", "default"),
    [
        ("heat", "--heat", "whole number, 50 to 250", "180"),
        ("share", "--share", "number, above 0 and below 1", "0.5"),
        ("limit_s", "--limit", "number, above 0", "no limit"),
        ("name", "--name", "text", "bread"),
        ("book", "--book", "path", "book"),
        ("fan", "--fan", "true or false", "false"),
        ("trays", "--trays", "list of whole numbers, at least 0", "1,2"),
        ("extras", "--extras", "list of numbers", "none"),
        ("mode", "--mode", "top or bottom", "top"),
    ],
)
def test_words_derive_from_the_field(name: str, option_name: str, described: str, default: str) -> None:
    field = declared(name)
    assert (field.option, field.described, field.default_text) == (option_name, described, default)


@pytest.mark.parametrize(
    ("change", "sentences"),
    [
        ({"heat": 49}, "--heat 49 is out of range. Allowed: 50 to 250."),
        ({"share": 1.0}, "--share 1 is out of range. Allowed: above 0 and below 1."),
        ({"share": float("nan")}, "--share nan"),
        ({"limit_s": float("inf")}, "--limit inf"),
        ({"trays": (1, -1)}, "--trays -1 is out of range. Allowed: at least 0."),
        ({"trays": (2,)}, "--trays 2 is out of range."),
        ({"trays": ()}, "--trays  is out of range."),
        ({"extras": (float("inf"),)}, "--extras inf is out of range. Allowed: list of numbers."),
        ({"mode": "side"}, "--mode side is out of range. Allowed: top or bottom."),
    ],
)
def test_a_value_out_of_range_is_reported_with_what_is_allowed(
    change: dict[str, object], sentences: str
) -> None:
    with pytest.raises(NotAllowedError, match=re.escape(sentences)):
        Oven(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "content", "value"),
    [
        ("heat", 60, 60),
        ("share", 0.25, 0.25),
        ("limit_s", 3, 3.0),
        ("limit_s", None, None),
        ("book", "other", Path("other")),
        ("name", 299, "299"),
        ("fan", True, True),
        ("trays", 1, (1,)),
        ("trays", [3, 1], (3, 1)),
        ("extras", [], ()),
        ("mode", "bottom", "bottom"),
    ],
)
def test_a_file_is_read_by_type(name: str, content: object, value: object) -> None:
    found = declared(name).read(content)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "content", "wrong"),
    [
        *(("heat", content, content) for content in (True, 60.0, "60", None, [60], {"a": 1})),
        *(("share", content, content) for content in ("0.5", False, 0)),
        ("extras", [10**400], 10**400),
        *(("fan", content, content) for content in (1, "yes")),
        *(("name", content, content) for content in (True, None)),
        ("trays", [1, "2"], "2"),
        ("trays", [], []),
        ("trays", [2], [2]),
        ("mode", "side", "side"),
    ],
)
def test_what_a_file_must_not_hold_is_reported_as_it_stands_there(
    name: str, content: object, wrong: object
) -> None:
    with pytest.raises(NotAllowedError) as caught:
        declared(name).read(content)
    assert caught.value.value == wrong


def test_an_element_that_is_there_twice_is_refused_in_a_file() -> None:
    with pytest.raises(SettingsError, match="a value is there twice"):
        declared("extras").read([1, 1.0])


def test_an_earlier_key_counts_as_it_did() -> None:
    heat = declared("heat")
    assert heat.keys == {"heat": 1, "fires": 60}
    assert heat.read(3, heat.keys["fires"]) == 180
    with pytest.raises(NotAllowedError) as caught:
        heat.read(5, heat.keys["fires"])
    assert caught.value.value == 5


def test_a_field_is_an_option_without_more_words() -> None:
    @click.command()
    def bake(**given: object) -> None:
        click.echo(sorted((name, value) for name, value in given.items() if value is not None))

    for field in settings_of(Oven):
        bake = option(field)(bake)
    arguments = ["--heat", "60", "--trays", "1,3", "--trays", "3", "--fan", "--book", "b", "--mode", "top"]
    printed = CliRunner().invoke(bake, arguments).output
    assert printed.strip() == str(
        [("book", Path("b")), ("fan", True), ("heat", 60), ("mode", "top"), ("trays", (1, 3))]
    )
    help_text = CliRunner().invoke(bake, ["--help"]).output
    assert all(field.help in help_text and field.default_text in help_text for field in settings_of(Oven))


def test_what_is_given_replaces_and_what_is_none_or_of_others_does_not() -> None:
    assert merge(Oven(heat=60), {"share": 0.1, "heat": None, "unknown": 3}) == Oven(heat=60, share=0.1)
    with pytest.raises(NotAllowedError):
        merge(Oven(), {"heat": 3})


def test_values_and_defaults_are_those_of_an_instance() -> None:
    assert values_of(Oven(heat=60))["heat"] == 60
    assert [field.default for field in declared_of(Oven(heat=60))] == [*values_of(Oven(heat=60)).values()]


def test_a_type_that_no_file_and_no_option_has_cannot_be_declared() -> None:
    @dataclass(frozen=True)
    class Wrong:
        pair: complex = setting(1, "Nothing can be read as this.")

    with pytest.raises(TypeError, match="pair: a setting of type"):
        settings_of(Wrong)

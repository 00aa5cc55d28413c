"""Writes docs/settings.md from the declared settings: `python tools/settings_page.py [FILE]`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from quant_explorer.cli.app import COMMANDS, app
from quant_explorer.core.artifact import write_atomically
from quant_explorer.core.settings.declaration import Setting, settings_of, shown
from quant_explorer.core.settings.groups import (
    DecisionRules,
    MeasurementProtocol,
    Output,
    Settings,
    SweepBudgets,
    SweepGrid,
    sweep_settings,
)
from quant_explorer.core.settings.limits import GateLimits, PickLimits

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"

_INTRODUCTION = """\
# Settings

Written by `make settings` from `core/settings/groups.py` and `core/settings/limits.py`, where each setting is
declared once; a test fails when this page is not current.

- A setting is an option of the commands named ("all" is every command with `--run-dir`), and, where `sweep`
  is among them, a key of its [YAML file](sweep.md). What the command line says wins over the file. Earlier
  keys stay valid.
- On the command line a list has commas between its values, or its option is repeated:
  `--runtime eager,openvino` is `--runtime eager --runtime openvino`. In the file it is a YAML list; a single
  value needs no brackets. `--seeds 1 2` is understood too.
- An option that is not given keeps the value that the run folder has (in a sweep: the file), else its
  default. `--runtime` is `all` for `pipeline` and `sweep`, `eager` for the others; `--batch-sizes` of
  `multi-bench` is 1.
"""
_SECTIONS = {
    "What decides weights and artifacts": Settings,
    "How variants are measured": MeasurementProtocol,
    "What counts as a difference": DecisionRules,
    "Where everything goes": Output,
    "What a sweep tries": SweepGrid,
    "What a sweep is held against, and what its estimates rest on": SweepBudgets,
    "What `pick` allows": PickLimits,
    "What `gate` allows": GateLimits,
}
# Of one command alone; others have limits of the same names.
_ONLY_OF = {PickLimits: "pick", GateLimits: "gate"}
_HEADINGS = ("setting, YAML key", "option", "value", "default", "meaning", "commands")


def settings_page() -> str:
    """Return the page as Markdown."""
    parts = [_INTRODUCTION]
    for title, kind in _SECTIONS.items():
        rows = [
            _HEADINGS,
            (":---",) * len(_HEADINGS),
            *(_row(setting, kind) for setting in settings_of(kind)),
        ]
        parts.append(f"## {title}\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n")
    return "\n".join(parts)


def _row(declared: Setting, kind: type) -> tuple[str, ...]:
    in_sweep = sweep_settings().get(declared.name, declared)
    aliases = "".join(
        f"; earlier `{alias.key}`" + (f" (of {alias.times})" if alias.times > 1 else "")
        for alias in declared.aliases
    )
    commands = _commands(declared, kind)
    default = _default(declared)
    if "sweep" in commands and in_sweep.default != declared.default:
        default += f"; `sweep`: {_default(in_sweep)}"
    return (
        f"`{declared.name}`{aliases}",
        f"`{declared.option}`",
        declared.described,
        default,
        declared.help,
        _brief(commands),
    )


def _default(declared: Setting) -> str:
    return f"`{text}`" if (text := shown(declared.default)) else declared.default_text


def _commands(declared: Setting, kind: type) -> list[str]:
    """Return the commands that take a setting; the grid of a sweep may have its own one of a run's name."""
    if kind in _ONLY_OF:
        return [_ONLY_OF[kind]]
    in_sweep = sweep_settings()[declared.name].help == declared.help
    in_runs = kind is not SweepGrid or declared.name not in {
        setting.name for setting in settings_of(Settings)
    }
    return [name for name in _takers(declared.name) if (in_sweep if name == "sweep" else in_runs)]


def _takers(parameter: str) -> list[str]:
    found = {name: app.get_command(click.Context(app), name) for name in COMMANDS}
    return [
        name
        for name, command in found.items()
        if command and parameter in {option.name for option in command.params}
    ]


def _brief(commands: list[str]) -> str:
    every = _takers("run_dir")
    others = [name for name in every if name not in commands]
    if len(others) > 1:
        return ", ".join(f"`{name}`" for name in commands)
    return "all" + "".join(f" but `{name}`" for name in others)


if __name__ == "__main__":
    write_atomically(Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE, settings_page().encode())

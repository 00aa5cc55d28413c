"""Options: the same words on every command, derived from the declared settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import click

from quant_explorer.cli.console import verbosity
from quant_explorer.core.settings.declaration import Scalar, Setting, Value, declared_of, merge, settings_of
from quant_explorer.core.settings.groups import (
    DecisionRules,
    MeasurementProtocol,
    Output,
    Settings,
    SweepGrid,
    sweep_settings,
)
from quant_explorer.core.settings.limits import GateLimits, PickLimits
from quant_explorer.pipeline.run import RunDescription, RunFolder

F = TypeVar("F", bound=Callable[..., object])

# What stands for the model of a run that has several.
MULTI = "multi"


def _check_runtimes(names: Iterable[Scalar]) -> None:
    from quant_explorer.pipeline.plan.space import choose_runtimes
    from quant_explorer.runtimes import RUNTIMES

    choose_runtimes([str(name) for name in names], RUNTIMES)


def _set_verbosity(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        verbosity.level = 1 if parameter.name == "verbose" else -1


def option(declared: Setting, *, required: bool = False, unset: Value = None) -> Callable[[F], F]:
    """Return the option of a setting, with the value `unset` where it was not given.

    A list is an option that is repeated, or whose values have commas between them, or both.
    """
    flags, metavar = declared.option, declared.metavar
    text = f"{declared.help}  [default: {declared.default_text}]" if not required else declared.help
    if declared.is_list:
        metavar = f"{metavar}[,{metavar}...]"
        return click.option(
            *(flags, declared.name),
            multiple=True,
            required=required,
            callback=_list_parser(declared, unset),
            metavar=metavar,
            help=text,
        )
    if declared.kind is bool:
        flags = f"{flags}/--no-{flags.removeprefix('--')}"
        return click.option(flags, declared.name, default=None, help=text)
    return click.option(flags, declared.name, type=_type(declared), metavar=metavar, help=text)


def _list_parser(
    declared: Setting, unset: Value
) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], Value]:
    def parse(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> Value:
        if not given:
            return unset
        values = declared.parse(given)
        if declared.name == "runtimes":
            _check_runtimes(values)
        return values

    return parse


def _type(declared: Setting) -> click.Choice[str] | click.Path | type[Scalar]:
    if declared.choices:
        return click.Choice(declared.choices)
    if declared.kind is Path:
        is_folder = declared.name.endswith("_dir")
        return click.Path(path_type=Path, file_okay=not is_folder, dir_okay=is_folder)
    return declared.kind


_VERBOSITY = (
    click.option(
        "-v",
        "--verbose",
        is_flag=True,
        expose_value=False,
        callback=_set_verbosity,
        help="Show tracebacks.",
    ),
    click.option(
        "-q", "--quiet", is_flag=True, expose_value=False, callback=_set_verbosity, help="No progress."
    ),
)

all_option = click.option(
    "--all", "everything", is_flag=True, help="Show every variant, not only the choices there are."
)
run_dir_option = next(option(one) for one in declared_of(Output()) if one.name == "run_dir")
json_option = click.option("--json", "as_json", is_flag=True, help="Print figures as JSON.")


def run_argument(name: str = "run", *, required: bool = False) -> Callable[[F], F]:
    """Return the argument that is a run folder, for commands that only read what was recorded."""
    kind = click.Path(path_type=Path, file_okay=False)
    return click.argument(name, type=kind, required=required)


def config_option(*, required: bool, unset: str = "all") -> Callable[[F], F]:
    """Return the option `--config`; `unset` says which are meant where none is named."""
    return option(_names("configs", "Configurations (see `list`).", unset), required=required, unset=())


def models_option(text: str, unset: str) -> Callable[[F], F]:
    """Return the option `--model` of a command that takes several."""
    return option(_names("models", text, unset), unset=())


def runtime_option(default: str) -> Callable[[F], F]:
    """Return the option `--runtime`; `default` is a runtime or "all"."""
    (declared,) = (setting for setting in settings_of(SweepGrid) if setting.name == "runtimes")
    return option(dataclasses.replace(declared, default=(default,)), unset=(default,))


def _names(name: str, text: str, unset: str) -> Setting:
    return Setting(
        text, name=name, option_name=f"--{name[:-1]}", metavar="NAME", unset=unset, is_list=True, default=()
    )


def threads_option(text: str) -> Callable[[F], F]:
    """Return the option `--threads` of a command that measures no variants."""
    (declared,) = (setting for setting in declared_of(MeasurementProtocol()) if setting.name == "threads")
    return option(dataclasses.replace(declared, help=text))


def verbosity_options(command: F) -> F:
    """Add -v and -q."""
    return _add(command, *_VERBOSITY)


def run_options(command: F) -> F:
    """Add everything that decides weights and artifacts, the run folder and the verbosity."""
    return _add(command, *map(option, (*declared_of(Settings()), *declared_of(Output()))), *_VERBOSITY)


def protocol_options(command: F) -> F:
    """Add how variants are measured."""
    return _add(command, *map(option, declared_of(MeasurementProtocol())))


def rules_options(command: F) -> F:
    """Add what counts as a difference when variants are chosen."""
    return _add(command, *map(option, declared_of(DecisionRules())))


def limit_options(start: PickLimits | GateLimits) -> Callable[[F], F]:
    """Return what adds the limits that recorded figures are held against, with `start` for defaults."""
    return lambda command: _add(command, *map(option, declared_of(start)))


def multi_options(command: F, protocol: MeasurementProtocol) -> F:
    """Add what run_options and protocol_options add, of several models and with other defaults."""
    declared = (
        *declared_of(protocol),
        *declared_of(DecisionRules()),
        *declared_of(Settings()),
        *declared_of(Output()),
    )
    return _add(command, *(option(setting) for setting in declared if setting.name != "model"), *_VERBOSITY)


def sweep_options(command: F) -> F:
    """Add every setting of a sweep and the verbosity."""
    return _add(command, *map(option, sweep_settings().values()), *_VERBOSITY)


def _add(command: F, *options: Callable[[F], F]) -> F:
    for add in reversed(options):
        command = add(command)
    return command


def resolve(
    run_dir: Path | None, given: Mapping[str, Value], *, suffix: str = ""
) -> tuple[Path, RunDescription]:
    """Return the run folder and what it is asked to do.

    An option that was not given is taken from the folder's own run.json, else from its default. The run.json
    of a command that ended before it left anything else, for instance over a wrong model, does not count.
    Raises SettingsError for a value out of range.
    """
    asked = merge(Settings(), {name: given.get(name) for name in ("data", "model")})
    path = run_dir or Path("runs") / f"{_slug(asked.data)}-{_slug(asked.model)}{suffix}"
    run = RunFolder(path)
    earlier = run.describe() if run.is_used else None
    start = earlier or RunDescription(Settings(), MeasurementProtocol())
    return path, RunDescription(merge(start.settings, given), merge(start.protocol, given))


def _slug(name: str) -> str:
    kind, colon, path = name.partition(":")
    if not colon:
        return kind
    return f"{kind}-{Path(path).name}" if kind == "imagefolder" else f"{Path(kind).stem}-{path}"

"""Options: the same words on every command."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TypeVar, get_args

import click

from quant_explorer.cli.console import verbosity
from quant_explorer.core.errors import SettingsError
from quant_explorer.core.quantspec import Target
from quant_explorer.pipeline.run import RunDescription, RunFolder
from quant_explorer.pipeline.settings import Protocol, Settings

F = TypeVar("F", bound=Callable[..., object])
T = TypeVar("T", Settings, Protocol)

DEFAULT_DATA = "mnist5k"
DEFAULT_MODEL = "small_cnn"
# What stands for the model of a run that has several.
MULTI = "multi"
Value = str | int | float | Path | tuple[int, ...] | None


def _parse_batch_sizes(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[int, ...] | None:
    if value is None:
        return None
    try:
        return tuple(sorted({int(part) for part in value.split(",")}))
    except ValueError:
        raise SettingsError(
            f"--batch-sizes {value}: not whole numbers. Allowed: for instance 1,8,32."
        ) from None


def _check_runtimes(
    context: click.Context, parameter: click.Parameter, names: tuple[str, ...]
) -> tuple[str, ...]:
    from quant_explorer.pipeline.space import choose_runtimes
    from quant_explorer.runtimes import RUNTIMES

    choose_runtimes(names, RUNTIMES)
    return names


def _set_verbosity(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        verbosity.level = 1 if parameter.name == "verbose" else -1


_SETTINGS = (
    click.option("--data", metavar="NAME", help=f"Data set, or imagefolder:PATH.  [default: {DEFAULT_DATA}]"),
    click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False),
        help="Where downloaded data sets lie.  [default: data]",
    ),
    click.option(
        "--weights",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Trained weights (.safetensors, .pt); nothing is trained then.",
    ),
    click.option("--seed", type=int, help="Of splits, initial weights, batches, rounds.  [default: 0]"),
    click.option("--epochs", type=int, help="Of training the baseline.  [default: 5]"),
    click.option(
        "--fine-tune-epochs", type=int, help="Of qat_int8 and its control fp32_finetune.  [default: 1]"
    ),
    click.option("--batch-size", type=int, help="Of training and fine-tuning.  [default: 64]"),
    click.option("--learning-rate", type=float, help="Peak of training the baseline.  [default: 0.2]"),
    click.option("--dataloader-seed", type=int, help="Of training batches alone.  [default: --seed]"),
    click.option("--calibration-images", type=int, metavar="N", help="For static INT8.  [default: 256]"),
    click.option("--label-smoothing", type=float, help="Of training the baseline.  [default: 0.1]"),
    click.option("--train-subset", type=int, metavar="N", help="Use N training images, balanced."),
    click.option("--test-subset", type=int, metavar="N", help="Report on N test images, balanced."),
    click.option(
        "--target",
        type=click.Choice(get_args(Target)),
        help="CPU that INT8 is built for: this one, or any of x86-64.  [default: native]",
    ),
    click.option("--engine", help="PyTorch's quantized engine.  [default: the one for this CPU]"),
)
_PROTOCOL = (
    click.option("--threads", type=int, help="Cores every variant is pinned to.  [default: 1]"),
    click.option(
        "--batch-sizes", callback=_parse_batch_sizes, metavar="N,N", help="Batch sizes.  [default: 1,8,32]"
    ),
    click.option("--rounds", type=int, help="Least number of interleaved rounds.  [default: 10]"),
    click.option("--warmup-calls", type=int, help="Unmeasured calls before each block.  [default: 3]"),
    click.option(
        "--precision",
        type=float,
        help="Time until every ratio's 95% interval is within this share.  [default: 0.02]",
    ),
    click.option(
        "--time-limit",
        "time_limit_s",
        type=float,
        metavar="S",
        help="Seconds of rounds beyond the least number, and of scoring a variant.  [default: 120]",
    ),
)
_MODEL = click.option(
    "--model", metavar="NAME", help=f"Model, or path/to/file.py:function.  [default: {DEFAULT_MODEL}]"
)
_RUN_DIR = click.option(
    "--run-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Everything of one run.  [default: runs/<data>-<model>]",
)
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

json_option = click.option("--json", "as_json", is_flag=True, help="Print figures as JSON.")


def config_option(*, required: bool) -> Callable[[F], F]:
    """Return the option `--config`, repeatable unless one must be named."""
    text = "A configuration (see `list`)."
    return click.option(
        "--config", "configs", multiple=True, required=required, metavar="NAME", help=f"{text} Repeatable."
    )


def runtime_option(default: str) -> Callable[[F], F]:
    """Return the option `--runtime`, repeatable; `default` is a runtime or "all"."""
    return click.option(
        "--runtime",
        "runtimes",
        multiple=True,
        default=(default,),
        callback=_check_runtimes,
        show_default=default != "all",
        metavar="NAME",
        help="A runtime (see `list`), or all. Repeatable."
        + ("  [default: all that are installed]" if default == "all" else ""),
    )


def verbosity_options(command: F) -> F:
    """Add -v and -q."""
    return _add(command, *_VERBOSITY)


def run_options(command: F) -> F:
    """Add everything that decides weights and artifacts, the run folder and the verbosity."""
    return _add(command, *_SETTINGS, _MODEL, _RUN_DIR, *_VERBOSITY)


def multi_run_options(command: F) -> F:
    """As run_options, but for several models."""
    return _add(command, *_SETTINGS, _RUN_DIR, *_VERBOSITY)


def protocol_options(command: F) -> F:
    """Add how variants are measured."""
    return _add(command, *_PROTOCOL)


def _add(command: F, *options: Callable[[F], F]) -> F:
    for option in reversed(options):
        command = option(command)
    return command


def resolve(
    run_dir: Path | None, given: Mapping[str, Value], *, suffix: str = ""
) -> tuple[Path, RunDescription]:
    """Return the run folder and what it is asked to do.

    An option that was not given is taken from the folder's own run.json, else from its default.
    Raises SettingsError for a value out of range.
    """
    data = given.get("data") or DEFAULT_DATA
    model = given.get("model") or DEFAULT_MODEL
    path = run_dir or Path("runs") / f"{_slug(str(data))}-{_slug(str(model))}{suffix}"
    earlier = RunFolder(path).describe()
    start: dict[str, Value] = {"data": DEFAULT_DATA, "model": DEFAULT_MODEL, "data_dir": Path("data")}
    settings = _merge(Settings, given, earlier.settings if earlier else None, start)
    protocol = _merge(Protocol, given, earlier.protocol if earlier else None, {})
    return path, RunDescription(settings, protocol)


def _merge(kind: type[T], given: Mapping[str, Value], earlier: T | None, start: Mapping[str, Value]) -> T:
    merged: dict[str, object] = {}
    for field in fields(kind):
        value = given.get(field.name)
        if value is None and earlier is not None:
            value = getattr(earlier, field.name)
        if value is None:
            value = start.get(field.name, None if field.default is MISSING else field.default)
        merged[field.name] = value
    return kind(**merged)  # type: ignore[arg-type]  # click has checked each option's type


def _slug(name: str) -> str:
    kind, colon, path = name.partition(":")
    if not colon:
        return kind
    return f"{kind}-{Path(path).name}" if kind == "imagefolder" else f"{Path(kind).stem}-{path}"

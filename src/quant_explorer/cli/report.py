"""`quant-explorer report`: render a recorded study again."""

from __future__ import annotations

from pathlib import Path

import click

from quant_explorer.cli.options import MULTI, all_option, json_option, resolve, rules_options, run_options
from quant_explorer.core.settings.declaration import Value


@click.command()
@rules_options
@run_options
@all_option
@json_option
def command(run_dir: Path | None, everything: bool, as_json: bool, **given: Value) -> int:
    """Write the report of what was recorded, on any machine; nothing is built or measured."""
    from quant_explorer.cli.job import Shown, write_and_show
    from quant_explorer.core.errors import StudyError
    from quant_explorer.pipeline.run import RunFolder

    path, wanted = resolve(run_dir, given)
    run = RunFolder(path)
    if not run.study.exists():
        raise StudyError(f"{run.study}: there is no study yet; `quant-explorer pipeline` makes one")
    run.require_same_settings(wanted)
    multi = wanted.settings.model == MULTI
    shown = Shown(as_json=as_json, everything=everything)
    write_and_show(run, run.load_study(), wanted, given, shown, multi=multi)
    return 0

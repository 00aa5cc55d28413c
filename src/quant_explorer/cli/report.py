"""`quant-explorer report`: render a recorded study again."""

from __future__ import annotations

from pathlib import Path

import click

from quant_explorer.cli.options import MULTI, json_option, resolve, rules_options, run_options
from quant_explorer.core.settings.declaration import Value


@click.command()
@rules_options
@run_options
@json_option
def command(run_dir: Path | None, as_json: bool, **given: Value) -> int:
    """Write the report of what was recorded, on any machine; nothing is built or measured."""
    from quant_explorer.cli.session import write_and_show
    from quant_explorer.core.errors import StudyError
    from quant_explorer.pipeline.run import RunFolder

    path, wanted = resolve(run_dir, given)
    run = RunFolder(path)
    if not run.study.exists():
        raise StudyError(f"{run.study}: there is no study yet; `quant-explorer pipeline` makes one")
    run.require_same_settings(wanted)
    multi = wanted.settings.model == MULTI
    write_and_show(run, run.load_study(), wanted, given, multi=multi, as_json=as_json)
    return 0

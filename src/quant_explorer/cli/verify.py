"""`quant-explorer verify`: whether what an export states holds on this machine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from quant_explorer.cli.console import EXIT_FAILED, ConsoleProgress, output
from quant_explorer.cli.options import json_option, verbosity_options


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--data", metavar="NAME", help="Data set, or imagefolder:PATH.  [default: that of the figures]")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where downloaded data sets lie.  [default: that of the figures]",
)
@click.option(
    "--max-slowdown",
    type=click.FloatRange(min=0),
    default=0.1,
    show_default=True,
    metavar="SHARE",
    help="Largest share by which the median latency may exceed the stated interval.",
)
@verbosity_options
@json_option
def command(folder: Path, data: str | None, data_dir: Path | None, max_slowdown: float, as_json: bool) -> int:
    """Check the hashes of DIR, an export, and repeat its accuracy and latency in fresh processes.

    Without the images of the figures accuracy is not repeated, and noise is timed. Exit 1 when a stated
    figure does not hold here, 2 when DIR is no export or its runtime is not installed.
    """
    import msgspec

    from quant_explorer.cli.job import print_figures, say
    from quant_explorer.pipeline.export.verify import Asked, verify_export

    found = verify_export(folder, Asked(data, data_dir, max_slowdown), ConsoleProgress())
    if as_json:
        output.file.write(msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n")
    else:
        print_figures([asdict(finding) for finding in found.findings], as_json=False, title="")
        for warning in found.warnings:
            say(f"Warning: {warning}.")
        say("What is stated holds here." if found.holds else "What is stated does not hold here.")
    return 0 if found.holds else EXIT_FAILED

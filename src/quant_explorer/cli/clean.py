"""`quant-explorer clean`: remove the decoded images that earlier runs have kept."""

from __future__ import annotations

import click

from quant_explorer.cli.options import json_option, verbosity_options


@click.command()
@verbosity_options
@json_option
def command(as_json: bool) -> int:
    """Remove the decoded images in the cache folder; a later run decodes what it needs again."""
    from quant_explorer.cli.job import print_figures
    from quant_explorer.core.units import format_mb
    from quant_explorer.datasets.cache import default_cache_dir
    from quant_explorer.datasets.kept import list_kept, remove

    rows = [
        {
            "images": kept.folder.name,
            "mb": format_mb(kept.bytes),
            "outcome": "removed" if remove(kept) else "in use",
        }
        for kept in list_kept(default_cache_dir())
    ]
    print_figures(rows, as_json=as_json, title=f"Decoded images in {default_cache_dir()}")
    return 0

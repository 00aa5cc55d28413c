"""`quant-explorer list`: what can be named on the command line."""

from __future__ import annotations

import click

from quant_explorer.cli.options import json_option, verbosity_options


@click.command()
@verbosity_options
@json_option
def command(as_json: bool) -> int:
    """List configurations, models, data sets, runtimes, metrics and techniques."""
    from quant_explorer.cli.job import print_figures
    from quant_explorer.datasets import SOURCES
    from quant_explorer.metrics import METRICS
    from quant_explorer.models import MODELS
    from quant_explorer.pipeline.plan.space import CONFIGURATIONS, describe_config
    from quant_explorer.runtimes import RUNTIMES
    from quant_explorer.techniques import TECHNIQUES

    rows = [
        *(_row("configuration", name, describe_config(name)) for name in CONFIGURATIONS),
        *(_row("model", name, model.description) for name, model in MODELS.items()),
        _row("model", "path/to/file.py:function", "your own: a function that returns an nn.Module"),
        _row("model", "package.module:function", "the same, imported by its name"),
        _row("model", "torchvision:NAME", "any classifier of torchvision; --weights DEFAULT: as published"),
        _row("model", "timm:NAME", "any model of timm, where that is installed"),
        _row("model", "path/to/file.pt2", "a program that torch.export saved"),
        _row("model", "path/to/file.onnx", "an ONNX graph in float, for onnxruntime and openvino"),
        *(_row("data set", name, source.description) for name, source in SOURCES.items()),
        *(
            _row("runtime", name, runtime().unavailable() or _first_line(runtime))
            for name, runtime in RUNTIMES.items()
        ),
        *(_row("metric", name, _first_line(type(metric))) for name, metric in METRICS.items()),
        *(_row("technique", name, _first_line(technique)) for name, technique in TECHNIQUES.items()),
    ]
    print_figures(rows, as_json=as_json, title="What can be named")
    return 0


def _row(kind: str, name: str, description: str) -> dict[str, object]:
    return {"kind": kind, "name": name, "what": description}


def _first_line(documented: type) -> str:
    return (documented.__doc__ or "").strip().splitlines()[0]

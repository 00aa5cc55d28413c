"""A program that torch.export saved, in one command from the file to the table, on every runtime."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from quant_explorer.report.render import load_results
from tests.cli.invoking import SMALL, Invoke, Place

pytestmark = pytest.mark.slow
RUNTIMES = ("eager", "torchscript", "inductor", "onnxruntime", "openvino", "executorch")
CONFIGS = ("fp32_baseline", "static_int8_per_channel")


def test_a_saved_program_is_ranked_on_every_runtime(invoke: Invoke, place: Place) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 13 * 13, 10),
    )
    sizes = ({0: torch.export.Dim("batch", min=1)},)
    program = torch.export.export(model.eval(), (torch.zeros(4, 1, 28, 28),), dynamic_shapes=sizes)
    settings = '{"mean": 0.5, "std": 0.25}'
    torch.export.save(program, place.folder / "mine.pt2", extra_files={"preprocessing.json": settings})

    options = [word for config in CONFIGS for word in ("--config", config)]
    options += [word for runtime in RUNTIMES for word in ("--runtime", runtime)]
    small = (*SMALL, "--rounds", "2", "--time-limit", "0.5", "--batch-sizes", "1", "--run-dir", "run")
    code, printed = invoke("pipeline", "--model", "mine.pt2", "--data", "mnist5k", *options, *small)
    assert code == 0, printed
    assert "mean 0.5 (model), std 0.25 (model)" in printed
    results = load_results(place.folder / "run" / "report" / "full_results.json")
    found = {variant.name: variant for variant in results.variants}
    assert found.keys() == {f"{config}@{runtime}" for config in CONFIGS for runtime in RUNTIMES}
    for name, variant in found.items():
        assert variant.reason is None, name
        assert variant.latency["1"].speedup is not None, name
        in_float = [note for note in variant.notes if "stays in float" in note]
        int8 = variant.executed.int8_mac_fraction
        assert int8 is not None, name
        assert (int8 == 0) == (variant.config == "fp32_baseline"), name
        assert (int8 in (0, 1)) == (not in_float), name

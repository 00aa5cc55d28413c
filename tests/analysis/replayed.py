"""A replayed study, ranked: what most tests of this room start from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quant_explorer.analysis.rank import summarize
from quant_explorer.analysis.results import Results, RunInfo, VariantResult
from quant_explorer.core.measurement import Status
from quant_explorer.core.settings.groups import MeasurementProtocol, Settings
from quant_explorer.testing.replay import Played, Scene, play

RUN = RunInfo(Settings(data="toy"), MeasurementProtocol(batch_sizes=(1, 8)))

# Known ordering: the fast two are small; dynamic_int8 is beaten by the baseline on every axis.
ORDINARY = (
    Played("fp32_baseline", wrong=40, size_bytes=1_000_000),
    Played("dynamic_int8", slowness=1.2, wrong=60, size_bytes=1_100_000),
    Played("static_int8_per_tensor", slowness=0.25, wrong=80, size_bytes=250_000, int8_macs=990),
    Played("static_int8_per_channel", slowness=0.4, wrong=42, size_bytes=260_000, int8_macs=990),
)
BROKEN = Played("qat_int8", status=Status.DIED, reason="killed by signal 9 | out of memory")
BASELINE = ORDINARY[0]


def ranked(folder: Path, played: Sequence[Played], scene: Scene | None = None, run: RunInfo = RUN) -> Results:
    """Play a study and return the results of its only environment."""
    return summarize(play(folder / "study.jsonl", played, scene), run, draws=200)


def of(results: Results, config: str) -> VariantResult:
    """Return the only variant with this configuration."""
    (found,) = (variant for variant in results.variants if variant.config == config)
    return found

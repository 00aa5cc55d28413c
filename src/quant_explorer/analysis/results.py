"""Results: the document a report is rendered from, `full_results.json` and `multi_results.json`.

Durations are in seconds and sizes in bytes. A figure that is missing is null, and the `reasons` beside it
(by the figure's name) say why; no figure is ever NaN or infinite.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from quant_explorer.core.host.environment import Environment
from quant_explorer.core.measurement import FileSize, Status
from quant_explorer.core.quantspec import Precision
from quant_explorer.core.recipe import BASELINE
from quant_explorer.core.settings.groups import DecisionRules, MeasurementProtocol, Settings
from quant_explorer.stats.frontier import Objective
from quant_explorer.stats.intervals import Interval
from quant_explorer.stats.paired import NonInferiority, Verdict

SCHEMA_VERSION = 2

Reasons = dict[str, str]


@dataclass(frozen=True)
class RunInfo:
    """What was run.

    `data_digest` lists several with commas. `unrecorded` names settings that an earlier schema did not hold:
    they are shown at their defaults, whatever they were. `version` is that of the quant-explorer that derived
    the figures; the environment has that which measured.
    """

    settings: Settings
    protocol: MeasurementProtocol
    data_digest: str = ""
    version: str = ""
    unrecorded: tuple[str, ...] = ()
    rules: DecisionRules = field(default_factory=DecisionRules)

    @property
    def ranked_batch(self) -> int:
        """The batch size whose latency is an axis of the frontier: the smallest that was asked for."""
        return min(self.protocol.batch_sizes)

    @property
    def largest_batch(self) -> int:
        """The largest batch size that was asked for."""
        return max(self.protocol.batch_sizes)


@dataclass(frozen=True)
class Size:
    """Bytes of all files a deployment needs, and their ratio to the baseline's (0.25 is a quarter)."""

    bytes: int | None = None
    ratio: float | None = None
    files: tuple[FileSize, ...] = ()
    reasons: Reasons = field(default_factory=dict)


@dataclass(frozen=True)
class Latency:
    """Latency of one call at one batch size.

    `p50_s` is the median of the rounds' medians, `speedup` the median over rounds of
    baseline / variant (2.0 is twice as fast), `speedup_same_runtime` the same against the FP32 baseline
    of the variant's own runtime. `settled` says that timing stopped early, because something better on
    every axis dominates this variant.
    """

    p50_s: float | None = None
    p50_ci_s: Interval | None = None
    p95_s: float | None = None
    p99_s: float | None = None
    mean_s: float | None = None
    calls: int = 0
    rounds: int = 0
    speedup: float | None = None
    speedup_ci: Interval | None = None
    speedup_same_runtime: float | None = None
    speedup_same_runtime_ci: Interval | None = None
    settled: bool = False
    reasons: Reasons = field(default_factory=dict)


@dataclass(frozen=True)
class Memory:
    """Peak resident memory above the floor, in bytes, by batch size."""

    peak_bytes: dict[str, int] | None = None
    reasons: Reasons = field(default_factory=dict)


@dataclass(frozen=True)
class ClassAccuracy:
    """Top-1 of one class; `p_value` is McNemar's after Holm's correction over the variant's classes."""

    name: str
    images: int
    top1: float | None = None
    diff_pp: float | None = None
    p_value: float | None = None
    verdict: Verdict | None = None
    reasons: Reasons = field(default_factory=dict)


@dataclass(frozen=True)
class Accuracy:
    """Accuracy on the `images` of the report split this variant was scored on.

    `diff_pp` is the paired difference to the baseline in percentage points, on the `paired_images` both
    were scored on. `verdict` is "tie" whenever `diff_ci_pp` holds 0; `non_inferiority` holds that interval
    against the run's margin.
    """

    top1: float
    top1_ci: Interval
    top5: float
    images: int
    per_class: tuple[ClassAccuracy, ...]
    paired_images: int = 0
    diff_pp: float | None = None
    diff_ci_pp: Interval | None = None
    mcnemar_p: float | None = None
    verdict: Verdict | None = None
    non_inferiority: NonInferiority | None = None
    reasons: Reasons = field(default_factory=dict)


@dataclass(frozen=True)
class Agreement:
    """Agreement with the FP32 baseline on `images`, for a model that was not trained on the data."""

    top1_agreement: float
    top1_agreement_ci: Interval
    images: int
    sqnr_db: float | None = None
    reasons: Reasons = field(default_factory=dict)


@dataclass(frozen=True)
class ExecutedMacs:
    """Multiply-accumulates of one image by the precision they ran in."""

    int8_mac_fraction: float | None = None
    macs: dict[str, int] | None = None
    reasons: Reasons = field(default_factory=dict)


@dataclass(frozen=True)
class MetricFigure:
    """What a metric of `metrics/__init__.py:METRICS` found: the median over repetitions, in `unit`."""

    unit: str
    value: float | None = None
    ci: Interval | None = None
    reasons: Reasons = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """Where a variant stands among those of its model; `reason` says why it is not ranked.

    `group` names the representative of those on the frontier that nothing measured shows to be better than
    it; it is empty off the frontier.
    """

    on_frontier: bool | None = None
    probability: float | None = None
    dominated_by: tuple[str, ...] = ()
    reason: str | None = None
    group: str = ""


@dataclass(frozen=True)
class VariantResult:
    """Everything that is known of one variant.

    `latency` is keyed by batch size. `precision` is the one that was asked for; `executed` is what ran.
    `preprocessing` says what was done to the images and on whose word, "" where it was not recorded.
    `metrics` are figures that are neither ranked nor compared, by the name of the metric.
    """

    name: str
    config: str
    runtime: str
    model: str
    digest: str
    status: Status
    reason: str | None
    size: Size
    latency: dict[str, Latency]
    memory: Memory
    cold_start_s: float | None
    accuracy: Accuracy | None
    agreement: Agreement | None
    executed: ExecutedMacs
    frontier: Place
    notes: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    reasons: Reasons = field(default_factory=dict)
    precision: Precision | None = None
    preprocessing: str = ""
    metrics: dict[str, MetricFigure] = field(default_factory=dict)

    @property
    def scored_images(self) -> int:
        """How many images its accuracy or agreement is of; 0 when it has neither."""
        scored = self.accuracy or self.agreement
        return scored.images if scored else 0


# The median over rounds withstands a share of spoiled ones, and half of this spoils its interval little.
MOST_DISTURBED = 0.2


@dataclass(frozen=True)
class TwinCheck:
    """The A/A control of one comparison: the baseline's artifact timed against itself.

    `ratio` is the median of baseline / twin. `separable` is True when its interval excludes 1.0: the
    machine was too noisy for this comparison. `stopped_by` is "precision", "time_limit" or "rounds".
    `disturbed_rounds` are those in which others took much of the measuring cores (`analysis/latency.py`).
    """

    model: str
    batch_size: int
    group: str
    rounds: int
    ratio: float | None = None
    ratio_ci: Interval | None = None
    separable: bool | None = None
    stopped_by: str | None = None
    reasons: Reasons = field(default_factory=dict)
    disturbed_rounds: int = 0

    @property
    def too_noisy(self) -> bool:
        """Whether the control says not to trust the latencies, or others took the cores too often."""
        return bool(self.separable) or self.disturbed

    @property
    def disturbed(self) -> bool:
        """Whether others took the measuring cores too often."""
        return self.disturbed_rounds > MOST_DISTURBED * self.rounds

    @property
    def resolution(self) -> float | None:
        """The relative half width of the twin's ratio: what this comparison tells apart."""
        if self.ratio is None or self.ratio_ci is None:
            return None
        return self.ratio_ci.half_width / self.ratio


@dataclass(frozen=True)
class Pick:
    """Variants of one model that are best on one axis; several names are a tie, the best point first."""

    kind: Literal["smallest", "most accurate", "fastest"]
    model: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What to ship of one model by the rules of the run: the first of the names, the others tie with it.

    No names where nothing is shown to be within the margin. `reason` says why that is so, or why it is FP32;
    `judged_on` is the split that decided about accuracy, `baseline` what every ratio of the model is against.
    """

    model: str
    names: tuple[str, ...]
    reason: str = ""
    judged_on: str = ""
    baseline: str = BASELINE


@dataclass(frozen=True)
class Results:
    """One environment's results. `others` are those of other environments, each ranked by itself."""

    schema_version: int
    run: RunInfo
    environment: Environment
    objectives: tuple[Objective, ...]
    variants: tuple[VariantResult, ...]
    aa: tuple[TwinCheck, ...]
    picks: tuple[Pick, ...]
    distrust: tuple[str, ...]
    answers: tuple[Answer, ...] = ()
    others: tuple[Results, ...] = ()

    @property
    def models(self) -> tuple[str, ...]:
        """The models that have variants, in the order first seen."""
        return tuple(dict.fromkeys(variant.model for variant in self.variants))

    def answer_of(self, model: str) -> Answer | None:
        """The answer of one model; None in a document of an earlier version."""
        return next((answer for answer in self.answers if answer.model == model), None)

    def of_model(self, model: str) -> tuple[VariantResult, ...]:
        """The variants of one model."""
        return tuple(variant for variant in self.variants if variant.model == model)

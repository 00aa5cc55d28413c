"""What recorded figures are held against: by `pick`, which chooses a variant, and by `gate`."""

from __future__ import annotations

from dataclasses import dataclass

from quant_explorer.core.recipe import BASELINE
from quant_explorer.core.settings.declaration import require_allowed, setting
from quant_explorer.core.settings.groups import MARGIN_PP
from quant_explorer.core.settings.plan import Budgets, Cost, Percentile


@dataclass(frozen=True)
class PickLimits:
    """What a picked variant must keep, and what is best. MB are 10^6 bytes. Raises SettingsError."""

    max_drop_pp: float = setting(
        MARGIN_PP,
        f"Loss of top-1 against {BASELINE}; of a model without accuracy, changed predictions.",
        at_least=0,
        metavar="PP",
    )
    max_latency_ms: float | None = setting(None, "Of a call.", above=0, metavar="MS", unset="no limit")
    batch: int | None = setting(None, "Batch size.", at_least=1, unset="the smallest of the run")
    percentile: Percentile = setting("p50", "Of the calls' latencies.")
    max_size_mb: float | None = setting(None, "Of all files.", above=0, metavar="MB", unset="no limit")
    max_memory_mb: float | None = setting(
        None, "Of peak memory above the empty runtime's.", above=0, metavar="MB", unset="no limit"
    )
    minimize: Cost = setting("latency", "What is best.")
    confidence: float = setting(
        0.95, "Of the intervals whose bad end must keep the limits.", above=0.5, below=1
    )

    def __post_init__(self) -> None:
        require_allowed(self)

    def budgets(self, runtimes: tuple[str, ...]) -> Budgets:
        """Return the limits in bytes and seconds, of variants on `runtimes` ("all" alone for any)."""
        return Budgets(
            size_bytes=None if self.max_size_mb is None else self.max_size_mb * 1e6,
            memory_bytes=None if self.max_memory_mb is None else self.max_memory_mb * 1e6,
            latency_s=None if self.max_latency_ms is None else self.max_latency_ms * 1e-3,
            accuracy_drop_pp=self.max_drop_pp,
            percentile=self.percentile,
            runtimes=() if runtimes == ("all",) else runtimes,
        )


@dataclass(frozen=True)
class GateLimits:
    """What is no regression against a baseline: growth and slowdown are shares. Raises SettingsError."""

    max_drop_pp: float = setting(
        MARGIN_PP, "Loss of top-1, or of agreement with FP32.", at_least=0, metavar="PP"
    )
    max_slowdown: float = setting(
        0.05,
        "Of the latency beside FP32 of the same run; checked on the same machine only.",
        at_least=0,
        metavar="SHARE",
    )
    max_size_growth: float = setting(0.01, "Of all files.", at_least=0, metavar="SHARE")
    max_memory_growth: float | None = setting(
        None, "Of the peak memory.", at_least=0, metavar="SHARE", unset="not checked"
    )

    def __post_init__(self) -> None:
        require_allowed(self)

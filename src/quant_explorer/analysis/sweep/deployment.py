"""What to expect of one variant where it is deployed: start, latency, throughput, memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from quant_explorer.analysis.latency import Timings
from quant_explorer.analysis.results import Results, VariantResult
from quant_explorer.stats.intervals import Interval
from quant_explorer.stats.rounds import quantile_of_rounds

QUANTILES = (0.05, 0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Throughput:
    """Images per second of one process on so many cores, from the median call at a batch size."""

    threads: int
    batch_size: int
    images_per_s: float
    p50_s: float
    p50_ci_s: Interval | None


@dataclass(frozen=True)
class Deployment:
    """One variant as it would serve.

    `single_image_s` maps quantiles of all timed calls at batch 1 (p5, p25, p50, p75; p95 and p99 where there
    are calls enough) to seconds, `peak_memory_bytes` batch sizes to peak resident memory above the
    empty runtime's.
    """

    name: str
    runtime: str
    digest: str
    size_bytes: int | None
    cold_start_s: float | None
    calls: int
    single_image_s: dict[str, float]
    throughput: tuple[Throughput, ...]
    peak_memory_bytes: dict[str, int]
    reasons: dict[str, str]


def describe_deployment(results: Results, name: str, timings: Timings) -> Deployment:
    """Gather what was measured of the variant `name`; `timings` are those of its model at batch 1.

    Environments of the results that differ in nothing but the number of threads add to the throughput.
    """
    variant = next(candidate for candidate in results.variants if candidate.name == name)
    calls = timings.calls_s(variant.digest)
    quantiles = {f"p{100 * share:g}": quantile_of_rounds(calls, share) for share in QUANTILES if calls}
    latency = variant.latency[str(results.run.ranked_batch)]
    tails = {"p95": latency.p95_s, "p99": latency.p99_s}
    return Deployment(
        name=name,
        runtime=variant.runtime,
        digest=variant.digest,
        size_bytes=variant.size.bytes,
        cold_start_s=variant.cold_start_s,
        calls=sum(map(len, calls)),
        single_image_s=quantiles | {tail: value for tail, value in tails.items() if value is not None},
        throughput=tuple(_throughput(results, variant)),
        peak_memory_bytes=dict(variant.memory.peak_bytes or {}),
        reasons={
            **{f"p{q}": latency.reasons[f"p{q}_s"] for q in (95, 99) if f"p{q}_s" in latency.reasons},
            **variant.memory.reasons,
        },
    )


def _throughput(results: Results, variant: VariantResult) -> Iterator[Throughput]:
    for other in (results, *results.others):
        if not other.environment.is_but_for_threads(results.environment):
            continue
        for same in other.variants:
            if (same.name, same.digest) != (variant.name, variant.digest):
                continue
            for batch, latency in same.latency.items():
                if latency.p50_s is not None:
                    per_s = int(batch) / latency.p50_s
                    yield Throughput(
                        other.environment.threads, int(batch), per_s, latency.p50_s, latency.p50_ci_s
                    )

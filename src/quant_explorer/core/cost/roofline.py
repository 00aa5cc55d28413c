"""How near to what the machine can do: the roofline model.

Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for multicore
architectures", CACM 52(4), 2009. Work is counted in multiply-accumulates (MAC), half of the usual FLOP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from quant_explorer.core.cost.counts import arithmetic_intensity
from quant_explorer.core.errors import SettingsError

BANDWIDTH: Final = "gb_per_s"
Bound = Literal["compute", "memory"]


@dataclass(frozen=True)
class Peaks:
    """The two roofs of a machine on `threads` cores: 10^9 MAC per second by precision, 10^9 bytes per second.

    `kernels` says by precision what was measured, `reasons` why a precision has no peak. `overrides` names
    the figures (precisions, or "gb_per_s") that were given by the user instead of measured here.
    """

    threads: int
    gmacs_per_s: dict[str, float]
    gb_per_s: float
    kernels: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class RooflinePoint:
    """One measured latency under the roof.

    `attainable_gmacs_per_s` is the roof over this intensity, `roof_share` achieved / attainable. A share
    above 1 is possible: an algorithm with fewer multiplications (Winograd), data that stayed in the cache,
    or a peak that was measured while the machine was busy.
    """

    macs: int
    moved_bytes: int
    latency_s: float
    macs_per_byte: float
    achieved_gmacs_per_s: float
    attainable_gmacs_per_s: float
    roof_share: float
    bound: Bound


def override_peaks(
    peaks: Peaks, gmacs_per_s: Mapping[str, float] | None = None, gb_per_s: float | None = None
) -> Peaks:
    """Return the peaks with given figures (a data sheet's) in place of the measured, named in `overrides`.

    Raises SettingsError for a figure that is not positive.
    """
    given = {**(gmacs_per_s or {}), **({} if gb_per_s is None else {BANDWIDTH: gb_per_s})}
    for name, value in given.items():
        if not value > 0:
            raise SettingsError(f"peak of {name}: {value} is out of range. Allowed: more than 0.")
    return replace(
        peaks,
        gmacs_per_s={**peaks.gmacs_per_s, **(gmacs_per_s or {})},
        gb_per_s=peaks.gb_per_s if gb_per_s is None else gb_per_s,
        reasons={name: why for name, why in peaks.reasons.items() if name not in given},
        overrides=tuple(dict.fromkeys((*peaks.overrides, *given))),
    )


def peak_of(macs: Mapping[str, int], peaks: Peaks) -> float | None:
    """Return the peak in GMAC/s of work of several precisions, or None where one of them has no peak.

    Each part runs at its own peak, one after the other: the harmonic mean, weighted by multiply-accumulates.
    """
    parts = {precision: count for precision, count in macs.items() if count}
    if not parts or not parts.keys() <= peaks.gmacs_per_s.keys():
        return None
    return sum(parts.values()) / sum(count / peaks.gmacs_per_s[name] for name, count in parts.items())


def ridge_macs_per_byte(peak_gmacs_per_s: float, gb_per_s: float) -> float:
    """Return the intensity at which the roof turns: below it memory binds, from it on arithmetic."""
    return peak_gmacs_per_s / gb_per_s


def attainable_gmacs_per_s(macs_per_byte: float, peak_gmacs_per_s: float, gb_per_s: float) -> float:
    """Return min(peak, intensity x bandwidth), in GMAC/s."""
    return min(peak_gmacs_per_s, macs_per_byte * gb_per_s)


def binding(macs_per_byte: float, peak_gmacs_per_s: float, gb_per_s: float) -> Bound:
    """Say which roof is the lower one at an intensity."""
    return "memory" if macs_per_byte < ridge_macs_per_byte(peak_gmacs_per_s, gb_per_s) else "compute"


def locate(macs: Mapping[str, int], bytes_moved: int, latency_s: float, peaks: Peaks) -> RooflinePoint | None:
    """Place a measured latency of a batch under the roof; None without work or without a peak for it.

    `macs` are those of the batch by the precision they were executed in (`Executed.macs` x batch size),
    `bytes_moved` its traffic (`core/cost/counts.py:model_moved_bytes`). Raises ValueError for a latency or a
    traffic that is not positive.
    """
    if not (latency_s > 0 and bytes_moved > 0):
        raise ValueError(f"latency and bytes must be positive, got {latency_s} s and {bytes_moved} bytes")
    peak = peak_of(macs, peaks)
    if peak is None:
        return None
    total = sum(macs.values())
    intensity = arithmetic_intensity(total, bytes_moved)
    achieved = total / latency_s / 1e9
    attainable = attainable_gmacs_per_s(intensity, peak, peaks.gb_per_s)
    return RooflinePoint(
        macs=total,
        moved_bytes=bytes_moved,
        latency_s=latency_s,
        macs_per_byte=intensity,
        achieved_gmacs_per_s=achieved,
        attainable_gmacs_per_s=attainable,
        roof_share=achieved / attainable,
        bound=binding(intensity, peak, peaks.gb_per_s),
    )

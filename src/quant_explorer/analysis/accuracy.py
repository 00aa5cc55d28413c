"""Accuracy from predicted classes, compared image by image with the FP32 baseline's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quant_explorer.analysis.results import Accuracy, Agreement, ClassAccuracy
from quant_explorer.core.measurement import Measurement, Predictions, ReportSplit
from quant_explorer.core.settings.groups import MARGIN_PP
from quant_explorer.stats.intervals import CONFIDENCE, Interval, wilson
from quant_explorer.stats.paired import (
    NonInferiority,
    PairedAccuracy,
    compare_paired,
    holm,
    judge_margin,
)

SIGNIFICANCE = 0.05
PAIRED = ("diff_pp", "diff_ci_pp", "mcnemar_p", "verdict", "non_inferiority")


@dataclass(frozen=True)
class Hits:
    """Which images a variant got right: `right` (bool) at `positions` (int64) of a split.

    For an untrained model "right" means the class that the FP32 baseline gives.
    """

    positions: NDArray[np.int64]
    right: NDArray[np.bool_]

    def at(self, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return `right` at `positions`, each of which must be among this variant's own."""
        order = np.argsort(self.positions)
        return self.right[order[np.searchsorted(self.positions, positions, sorter=order)]]


def why_unscored(measurement: Measurement, splits: dict[str, ReportSplit]) -> str | None:
    """Return why a measurement has neither accuracy nor agreement, or None when it has one."""
    predictions = measurement.predictions
    if predictions is None or not predictions.positions:
        return measurement.reason or "no images were scored"
    if measurement.split not in splits:
        return f"the study holds no labels of the report split {measurement.split}"
    if max(predictions.positions) >= len(splits[measurement.split].labels):
        return f"predictions for images beyond the report split {measurement.split}"
    return None


def find_hits(predictions: Predictions, labels: Sequence[int], baseline: Predictions | None) -> Hits | None:
    """Return what a variant got right of a split with these `labels`; `baseline` predicted the same split.

    None for an untrained variant that shares no image with the baseline.
    """
    positions = np.array(predictions.positions, dtype=np.int64)
    top1 = np.array(predictions.top1, dtype=np.int64)
    if predictions.trained:
        return Hits(positions, top1 == np.array(labels, dtype=np.int64)[positions])
    if baseline is None:
        return None
    expected = dict(zip(baseline.positions, baseline.top1, strict=True))
    seen = np.array([position in expected for position in predictions.positions], dtype=np.bool_)
    if not seen.any():
        return None
    reference = np.array([expected[position] for position in positions[seen].tolist()])
    return Hits(positions[seen], top1[seen] == reference)


def accuracy_of(
    hits: Hits,
    top5_hits: int,
    split: ReportSplit,
    baseline: Hits | None,
    *,
    is_baseline: bool,
    margin_pp: float = MARGIN_PP,
    confidence: float = CONFIDENCE,
) -> Accuracy:
    """Derive a trained variant's accuracy, and its paired comparison with the baseline where there is one."""
    images, reasons = len(hits.right), {}
    common = np.intersect1d(hits.positions, baseline.positions) if baseline else np.array([], dtype=np.int64)
    paired = None
    if is_baseline:
        paired = PairedAccuracy(0.0, Interval(0.0, 0.0), 1.0, "tie")
    elif baseline and len(common):
        paired = compare_paired(hits.at(common), baseline.at(common), confidence)
    else:
        reasons = dict.fromkeys(PAIRED, "no FP32 baseline was scored on the same images")
    return Accuracy(
        top1=float(hits.right.mean()),
        top1_ci=wilson(int(hits.right.sum()), images, confidence),
        top5=top5_hits / images,
        images=images,
        per_class=_per_class(hits, split, baseline, common),
        paired_images=len(common),
        diff_pp=paired.diff_pp if paired else None,
        diff_ci_pp=paired.interval_pp if paired else None,
        mcnemar_p=paired.mcnemar_p if paired else None,
        verdict=paired.verdict if paired else None,
        non_inferiority=(
            NonInferiority(margin_pp, "within the margin")
            if is_baseline
            else judge_margin(paired.gained, paired.lost, len(common), margin_pp, confidence)
            if paired
            else None
        ),
        reasons=reasons,
    )


def agreement_of(
    hits: Hits, sqnr_db: float | None, *, is_baseline: bool, confidence: float = CONFIDENCE
) -> Agreement:
    """Derive an untrained variant's agreement with the baseline."""
    images, right = len(hits.right), int(hits.right.sum())
    missing = (
        "this is the baseline" if is_baseline else "the logits equal the baseline's, or were not compared"
    )
    return Agreement(
        top1_agreement=right / images,
        # The baseline agrees with itself by definition: there is nothing to estimate.
        top1_agreement_ci=Interval(1.0, 1.0) if is_baseline else wilson(right, images, confidence),
        images=images,
        sqnr_db=sqnr_db,
        reasons={"sqnr_db": missing} if sqnr_db is None else {},
    )


def ranked_values(hits: Hits, baseline: Hits) -> NDArray[np.float64] | None:
    """Return one value per image of the baseline whose mean is the accuracy a variant is ranked by.

    On the baseline's images these are the variant's own hits. For a variant scored on a subset S of n of
    the N images it is the difference estimator (Cochran, Sampling Techniques, 3rd ed., section 7.2, slope 1):
    the baseline's accuracy plus the paired difference on S, so that a lucky subset ranks nobody higher.
    Image i has the value baseline_i + (N / n) * [i in S] * (variant_i - baseline_i). None when the two
    share no image.
    """
    common = np.intersect1d(hits.positions, baseline.positions)
    if not len(common):
        return None
    values = baseline.right.astype(np.float64)
    place = {position: index for index, position in enumerate(baseline.positions.tolist())}
    places = np.array([place[position] for position in common.tolist()])
    difference = hits.at(common).astype(np.float64) - baseline.at(common).astype(np.float64)
    values[places] += len(values) / len(common) * difference
    return values


def _per_class(
    hits: Hits, split: ReportSplit, baseline: Hits | None, common: NDArray[np.int64]
) -> tuple[ClassAccuracy, ...]:
    labels = np.array(split.labels, dtype=np.int64)
    paired: dict[int, PairedAccuracy] = {}
    for number in range(len(split.classes)) if baseline else ():
        inside = common[labels[common] == number]
        if len(inside) and baseline:
            paired[number] = compare_paired(hits.at(inside), baseline.at(inside))
    p_values = dict(
        zip(paired, holm([difference.mcnemar_p for difference in paired.values()]).tolist(), strict=True)
    )
    return tuple(
        _one_class(
            name, hits.right[labels[hits.positions] == number], paired.get(number), p_values.get(number)
        )
        for number, name in enumerate(split.classes)
    )


def _one_class(
    name: str, right: NDArray[np.bool_], paired: PairedAccuracy | None, p_value: float | None
) -> ClassAccuracy:
    reasons = {} if len(right) else {"top1": "no image of this class was scored"}
    if paired is None or p_value is None:
        figures = ("diff_pp", "p_value", "verdict")
        reasons |= dict.fromkeys(figures, "the FP32 baseline was not scored on these images")
        return ClassAccuracy(name, len(right), float(right.mean()) if len(right) else None, reasons=reasons)
    verdict = paired.verdict if p_value < SIGNIFICANCE else "tie"
    return ClassAccuracy(name, len(right), float(right.mean()), paired.diff_pp, p_value, verdict)


def tied_with_best(values: Sequence[NDArray[np.bool_]]) -> tuple[int, ...]:
    """Return the indices of the variants whose paired difference to the best holds 0, the best first.

    `values` are hits on the same images, one array of shape (images,) a variant.
    """
    order = sorted(range(len(values)), key=lambda index: -int(values[index].sum()))
    best = values[order[0]]
    return tuple(i for i in order if i == order[0] or compare_paired(values[i], best).verdict == "tie")

from __future__ import annotations

from quant_explorer.analysis.decide.comparison import RunComparison, VariantComparison
from quant_explorer.report.comparison import comparison_table, describe_comparison
from quant_explorer.stats.intervals import Interval

FASTER = VariantComparison(
    "small_cnn", "a@eager", 0.5, "faster", 1.2, Interval(1.1, 1.3), "loss", -2.0, Interval(-3.0, -1.0), 400
)
UNKNOWN = VariantComparison(
    "small_cnn", "b@eager", None, "not comparable", None, None, "not comparable", None, None, 0,
    {"speed_ratio": "another machine", "diff_pp": "other images"},
)  # fmt: skip
FOUND = RunComparison((FASTER, UNKNOWN), ("gone@eager (small_cnn)",), (), "CPU x there, y here")


def test_a_row_has_each_figure_with_its_interval_and_verdict() -> None:
    assert comparison_table(FOUND).rows == (
        (
            "a@eager",
            "small_cnn",
            "0.500",
            "1.200 [1.100, 1.300]",
            "faster",
            "-2.00 [-3.00, -1.00] loss",
            "400",
        ),
        ("b@eager", "small_cnn", "n/a", "n/a", "not comparable", "not comparable", "0"),
    )


def test_the_sentences_say_what_differs_and_what_does_not_compare() -> None:
    assert tuple(describe_comparison(FOUND)) == (
        "Other environments, A there and B here: CPU x there, y here.",
        "Speed of B: faster 1, not comparable 1. Accuracy of B: loss 1, not comparable 1.",
        "Not comparable for b@eager: another machine.",
        "Not comparable for b@eager: other images.",
        "Measured in A alone: gone@eager (small_cnn).",
    )

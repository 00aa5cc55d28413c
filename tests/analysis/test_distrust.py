from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from quant_explorer.analysis.rank import summarize
from quant_explorer.analysis.results import RunInfo
from quant_explorer.core.measurement import Status
from quant_explorer.testing.replay import Played, Scene, play
from tests.analysis.replayed import BASELINE, BROKEN, ORDINARY, RUN, ranked

MANY_CALLS = Scene(calls=60)


def distrust(folder: Path, played: tuple[Played, ...], scene: Scene, run: RunInfo = RUN) -> str:
    return "\n".join(ranked(folder, played, scene, run).distrust)


def test_a_quiet_machine_has_only_its_control_to_report(tmp_path: Path) -> None:
    text = distrust(tmp_path, ORDINARY, MANY_CALLS)
    assert text.startswith("The machine resolves differences of less than 0.1% (small_cnn, batch ")
    assert "\n" not in text


def test_a_separable_twin_is_reported_first(tmp_path: Path) -> None:
    text = distrust(tmp_path, ORDINARY, Scene(twin=1.05))
    assert "small_cnn, batch 1: the machine was too noisy for this comparison" in text
    assert "as it should" not in text


@pytest.mark.parametrize(("disturbed", "noisy"), [(2, False), (3, True)])
def test_work_that_comes_and_goes_on_the_same_core_is_noise(
    tmp_path: Path, disturbed: int, noisy: bool
) -> None:
    """Of 12 rounds, in more than a fifth: also where the twin, which meets the same, cannot be separated."""
    text = distrust(tmp_path, ORDINARY, Scene(disturbed=disturbed))
    sentence = f"Other work took over 3% of the measuring cores in {disturbed} of 12 rounds."
    assert (f"batch 1: the machine was too noisy for this comparison. {sentence}" in text) is noisy


@pytest.mark.parametrize(
    ("played", "scene", "expected"),
    [
        (
            ORDINARY,
            Scene(stopped_by="time_limit"),
            "Timing stopped by the time limit: small_cnn, batch 1 after 12 rounds; ",
        ),
        (
            ORDINARY,
            Scene(stopped_by="rounds"),
            "Timing stopped at the allowed number of rounds: small_cnn, batch 1 after 12 rounds; ",
        ),
        (ORDINARY, Scene(rounds=5), "Fewer than 10 rounds, so the intervals are rough: fp32_baseline@eager"),
        (ORDINARY, Scene(), "p95 is not given, for want of calls, for 4 variants at batch 1"),
        (
            (*ORDINARY, BROKEN),
            Scene(),
            "Not everything was measured; died: qat_int8@eager (small_cnn). The report",
        ),
        ((*ORDINARY, Played("slow", images=100)), Scene(), "its accuracy is of 100 of 400 images"),
        ((*ORDINARY, Played("x", memory_bytes=None)), Scene(), "Peak memory is not available for x@eager"),
        ((*ORDINARY, Played("x", latency=False)), Scene(), "x@eager (small_cnn) is not ranked: no latency"),
        (
            (*ORDINARY, Played("x", precision="bf16", ran_in="bf16")),
            Scene(),
            "x@eager (small_cnn): CPU of env-a has no bf16 arithmetic",
        ),
        (
            (*ORDINARY, Played("x", precision="fp16", ran_in="fp32")),
            Scene(),
            "x@eager (small_cnn): asked for fp16, computed in fp32.",
        ),
        (
            (*ORDINARY, Played("y", status=Status.UNSUPPORTED)),
            Scene(),
            "Not everything was measured; not possible: y@eager (small_cnn).",
        ),
        ((BASELINE,), Scene(rounds=1), "there is no A/A control (needs at least 2 rounds"),
        (
            (replace(BASELINE, wrong=300),),
            Scene(),
            "images right, which is not shown to be better than guessing among 4 classes.",
        ),
    ],
)
def test_what_speaks_against_the_figures_is_reported(
    tmp_path: Path, played: tuple[Played, ...], scene: Scene, expected: str
) -> None:
    assert expected in distrust(tmp_path, played, scene)
    # The same sentence must not come out where there is no cause for it.
    assert expected not in distrust(tmp_path / "quiet", ORDINARY, MANY_CALLS)


@pytest.mark.parametrize("stopped_by", ["time_limit", "precision"])
def test_intervals_wider_than_asked_for_are_named(tmp_path: Path, stopped_by: str) -> None:
    """Whatever was asked for when they were timed."""
    scene = Scene(stopped_by=stopped_by, noise=0.3)
    text = distrust(tmp_path, ORDINARY, scene, replace(RUN, protocol=replace(RUN.protocol, precision=0.001)))
    (sentence,) = (line for line in text.splitlines() if line.startswith("small_cnn, batch 1: speed-ups"))
    assert "wider than the ±0.1% asked for: " in sentence
    asked, *widths = (float(width) for width in re.findall(r"±([\d.]+)%", sentence))
    assert len(widths) >= 3
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] > asked


def test_a_word_in_a_note_is_no_reason_and_neither_is_arithmetic_that_the_cpu_has(tmp_path: Path) -> None:
    noted = Played("x", notes=("computed in FP16, not emulated",), precision="fp16", ran_in="fp16")
    scene = replace(MANY_CALLS, instruction_sets=("avx2", "avx512_fp16"))
    assert "x@eager" not in distrust(tmp_path, (*ORDINARY, noted), scene)


def test_of_many_the_first_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    many = (BASELINE, *(Played(f"variant{number}") for number in range(11)))
    text = distrust(tmp_path, many, Scene(rounds=5))
    (sentence,) = (line for line in text.splitlines() if line.startswith("Fewer than 10 rounds"))
    assert sentence.count(" at batch ") == 4
    assert sentence.endswith(" and 20 more.")


def test_what_is_known_of_the_files_of_the_data_is_reported(tmp_path: Path) -> None:
    study = play(tmp_path / "study.jsonl", ORDINARY)
    (split,) = study.splits.values()
    study.append(replace(split, notes=("2 of 18 images cannot be read",)))
    results = summarize(study, RUN, draws=20)
    assert results.distrust[0] == "Data: 2 of 18 images cannot be read."

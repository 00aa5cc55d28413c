from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from quant_explorer.analysis.decide.decision import Decision, decide
from quant_explorer.analysis.rank import gather_candidates
from quant_explorer.core.settings.plan import Budgets
from quant_explorer.testing.replay import Played, Scene, play
from tests.analysis.replayed import BASELINE, RUN, ranked

# The first does well on the images of the report by chance, and loses 10 % of those that decide.
FLATTERED = Played("flattered", slowness=0.2, wrong=40, search_wrong=80, size_bytes=300)
SOUND = Played("sound", slowness=0.5, wrong=39, size_bytes=400)
PLAYED = (BASELINE, FLATTERED, SOUND)
BOTH = Scene(images=2000, search_images=800)


def decided(folder: Path, scene: Scene, budgets: Budgets, *played: Played) -> Decision:
    (found,) = gather_candidates(play(folder / "study.jsonl", played or PLAYED, scene), RUN)
    return decide([found], budgets, batch=1)


def test_what_is_good_on_the_report_split_alone_is_not_picked(tmp_path: Path) -> None:
    found = decided(tmp_path, BOTH, Budgets(accuracy_drop_pp=0.5))
    assert (found.chosen, found.judged_on) == ("sound@eager", "the search split (800 images)")
    assert [one.name for one in found.rejected] == ["flattered@eager"]


def test_figures_stay_those_of_the_report_split(tmp_path: Path) -> None:
    results = ranked(tmp_path, PLAYED, BOTH)
    assert {variant.accuracy.images for variant in results.variants if variant.accuracy} == {2000}
    (answer,) = results.answers
    assert (answer.names, answer.judged_on) == (("sound@eager",), "the search split (800 images)")
    picks = {pick.kind: pick.names for pick in results.picks}
    assert picks["most accurate"] == ("sound@eager",)


def test_a_study_without_it_decides_on_the_report_split_and_says_so(tmp_path: Path) -> None:
    found = decided(tmp_path, Scene(images=2000), Budgets(accuracy_drop_pp=0.5))
    assert found.chosen == "flattered@eager"
    assert found.judged_on == (
        "the report split (the study does not hold each variant's predictions of the search split)"
    )


@pytest.mark.parametrize(("limit_pp", "chosen"), [(0.2, "flattered@eager"), (1.0, "sound@eager")])
def test_images_too_few_to_show_the_limit_do_not_decide(tmp_path: Path, limit_pp: float, chosen: str) -> None:
    """Of 800 images without a change the interval reaches to a loss of 0.48 pp."""
    found = decided(tmp_path, BOTH, Budgets(accuracy_drop_pp=limit_pp))
    assert found.chosen == chosen
    assert ("show no loss below 0.48 pp" in found.judged_on) == (limit_pp < 0.48)


def test_an_untrained_model_is_decided_by_the_predictions_that_change_there(tmp_path: Path) -> None:
    found = decided(tmp_path, replace(BOTH, trained=False), Budgets(accuracy_drop_pp=2.0))
    assert found.chosen == "sound@eager"
    (rejected,) = found.rejected
    assert rejected.over[0].startswith("changed predictions: 12.")


def test_without_a_limit_of_the_drop_no_split_decides(tmp_path: Path) -> None:
    assert decided(tmp_path, BOTH, Budgets(size_bytes=350)).judged_on == ""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from quant_explorer.analysis.rank import summarize
from quant_explorer.report.columns import Table
from quant_explorer.report.markdown import LEGEND, markdown_table, render_multi_pareto, render_pareto
from quant_explorer.testing.replay import Played, Scene, play
from tests.analysis.replayed import BASELINE, BROKEN, ORDINARY, RUN, ranked


def test_sections_come_in_the_order_of_a_decision(tmp_path: Path) -> None:
    text = render_pareto(ranked(tmp_path, (*ORDINARY, BROKEN)))
    parts = (
        "# Pareto report",
        "| config | size_kb |",
        "- dynamic_int8 is dominated by fp32_baseline",
        "- smallest: static_int8_per_tensor\n",
        "- most accurate: a tie of fp32_baseline and static_int8_per_channel\n",
        "- fastest: static_int8_per_tensor\n",
        "## What to distrust on CPU of env-a",
        "## Failed or unsupported",
        "| qat_int8@eager | small_cnn | died | killed by signal 9 \\| out of memory |",
        "## More figures",
        "p50_lat_ms_b8",
    )
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_a_tie_is_never_called_a_gain_or_a_loss(tmp_path: Path) -> None:
    # One image better, one image worse, of 400: both intervals hold 0.
    played = (BASELINE, Played("up", wrong=39, slowness=0.5), Played("down", wrong=41, slowness=0.4))
    results = ranked(tmp_path, played)
    assert {variant.accuracy.verdict for variant in results.variants if variant.accuracy} == {"tie"}
    text = render_pareto(results)
    assert len(re.findall(r"\] tie \|", text)) == 3
    assert not re.search(r"\b(gain|loss|gains|loses|better|worse|lost)\b", text.replace(LEGEND, ""))


def test_a_gain_is_called_one(tmp_path: Path) -> None:
    text = render_pareto(ranked(tmp_path, (BASELINE, Played("up", wrong=0))))
    assert re.search(r"\+10\.00 \[[^]]+\] gain", text)


def test_several_models_have_a_table_each(tmp_path: Path) -> None:
    big = [Played("fp32_baseline", model="big"), Played("static_int8_per_tensor", 0.3, model="big")]
    text = render_multi_pareto(ranked(tmp_path, (*ORDINARY, *big)))
    assert text.index("## small_cnn") < text.index("## big")
    assert text.count("| config | size_kb |") == 2


def test_environments_have_a_table_each_and_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "study.jsonl"
    play(path, ORDINARY, Scene(environment="one"))
    text = render_pareto(summarize(play(path, ORDINARY, Scene(environment="two")), RUN))
    assert text.index("## Environment two") < text.index("## Environment one")
    assert text.count("| config | size_kb |") == 2
    assert "CPU CPU of one there, CPU of two here" in text


def test_an_untrained_model_is_closest_not_accurate(tmp_path: Path) -> None:
    text = render_pareto(ranked(tmp_path, ORDINARY, Scene(trained=False)))
    assert "closest to FP32: a tie of" in text
    assert "- most accurate" not in text


def test_nothing_measured_still_renders(tmp_path: Path) -> None:
    text = render_pareto(ranked(tmp_path, (BROKEN,)))
    assert "No variant was measured." in text
    assert "killed by signal 9" in text


def test_cells_cannot_break_the_table() -> None:
    text = markdown_table(Table("", ("a", "b"), (True, False), (("1|2", "x\ny <b>\x1b[2J"),)))
    assert text.splitlines() == ["| a | b |", "| ---: | :--- |", "| 1\\|2 | x y &lt;b>\\x1b[2J |"]


def test_three_that_dominate_are_named_and_the_others_counted(tmp_path: Path) -> None:
    better = [Played(f"better_{number}", 0.9 - number / 10, wrong=30) for number in range(5)]
    text = render_pareto(ranked(tmp_path, (BASELINE, *better)))
    assert "- fp32_baseline is dominated by better_4, better_3, better_2 and 2 more" in text


def test_a_note_is_reported_once_of_all_it_is_about(tmp_path: Path) -> None:
    noted = [Played(name, notes=("computed in FP32.",)) for name in ("bf16", "fp16")]
    text = render_pareto(ranked(tmp_path, (BASELINE, *noted)))
    assert "- computed in FP32: bf16@eager, fp16@eager" in text
    assert text.count("computed in FP32") - text.count("(small_cnn): computed in FP32") == 1


def test_what_was_done_to_the_images_stands_above_the_table_of_the_model(tmp_path: Path) -> None:
    results = ranked(tmp_path, ORDINARY)
    prepared = tuple(replace(variant, preprocessing="3 channels (model)") for variant in results.variants)
    text = render_pareto(replace(results, variants=prepared))
    assert text.count("Pre-processing: 3 channels (model).") == 1
    assert text.index("Pre-processing") < text.index("| config |")
    assert "Pre-processing" not in render_pareto(results)

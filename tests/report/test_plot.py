from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quant_explorer.report.plot import DOMINATED, LINE, ON_FRONTIER, draw_pareto
from quant_explorer.report.points import drawable_points, marker_area
from quant_explorer.testing.replay import Played, Scene
from tests.analysis.replayed import BROKEN, ORDINARY, ranked


def pixels(png: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def count_of(png: bytes, colour: str) -> int:
    """Count pixels within a little of a colour (markers are slightly transparent)."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(pixels(png).astype(int) - wanted).max(axis=2) < 45).sum())


def test_points_frontier_and_dominated_are_drawn(tmp_path: Path) -> None:
    png = draw_pareto(ranked(tmp_path, ORDINARY))
    assert count_of(png, ON_FRONTIER) > 500
    assert count_of(png, LINE) > 500
    assert count_of(png, DOMINATED) > 1000


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    results = ranked(tmp_path, ORDINARY)
    assert draw_pareto(results) == draw_pareto(results)


def test_area_is_proportional_to_size(tmp_path: Path) -> None:
    points = drawable_points(ranked(tmp_path, ORDINARY), "small_cnn")
    areas = [marker_area(point, points) for point in points]
    assert areas[2] / areas[0] == pytest.approx(0.25)


def test_only_variants_with_all_figures_are_points(tmp_path: Path) -> None:
    played = (*ORDINARY, BROKEN, Played("odd", latency=False))
    points = drawable_points(ranked(tmp_path, played), "small_cnn")
    assert [point.name for point in points] == [variant.config for variant in ORDINARY]
    assert points[2].accuracy == 80.0
    assert points[2].latency_ci_ms[0] <= points[2].latency_ms <= points[2].latency_ci_ms[1]
    assert [point.on_frontier for point in points] == [True, False, True, True]


@pytest.mark.parametrize(
    "scene", [Scene(trained=False), Scene(rounds=1), Scene(noise=0.0), Scene(batch_sizes=(8,))]
)
def test_odd_figures_are_drawn_too(tmp_path: Path, scene: Scene) -> None:
    assert pixels(draw_pareto(ranked(tmp_path, ORDINARY, scene))).std() > 0


def test_a_single_point_and_a_wide_range(tmp_path: Path) -> None:
    single = draw_pareto(ranked(tmp_path / "one", ORDINARY[:1], Scene(noise=0.0)))
    wide = draw_pareto(ranked(tmp_path / "wide", (*ORDINARY, Played("slow", slowness=40.0))))
    assert count_of(single, ON_FRONTIER) > 100
    assert pixels(wide).shape == pixels(single).shape


def test_a_panel_for_every_model_and_environment(tmp_path: Path) -> None:
    results = ranked(tmp_path, ORDINARY)
    single = pixels(draw_pareto(results))
    double = pixels(draw_pareto(replace(results, others=(results,))))
    assert double.shape[1] == 2 * single.shape[1]


def test_nothing_to_draw_is_a_picture_that_says_so(tmp_path: Path) -> None:
    png = draw_pareto(ranked(tmp_path, (BROKEN,)))
    assert count_of(png, LINE) == 0
    assert pixels(png).min() < 50

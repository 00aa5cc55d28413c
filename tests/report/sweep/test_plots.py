from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from quant_explorer.analysis.sweep.rows import SweepRow
from quant_explorer.core.cost.roofline import Peaks
from quant_explorer.report.points import INK
from quant_explorer.report.sweep.cost_plot import draw_cost
from quant_explorer.report.sweep.figures import choose_look, styled
from quant_explorer.report.sweep.plots import LATENCY, draw_sweep
from tests.report.sweep.scene import PEAKS, RUNTIMES, grid, layers, row, variant
from tests.report.test_plot import count_of, pixels

ALWAYS = ("accuracy_vs_latency", "accuracy_vs_memory", "layer_macs", "layer_activations")
SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: bytes) -> list[str]:
    return ["".join(text.itertext()) for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def drawn_share(png: bytes) -> float:
    """Share of the middle of a picture that is not white."""
    shown = pixels(png)
    height, width = shown.shape[:2]
    middle = shown[height // 5 : -height // 5, width // 5 : -width // 3]
    return float((middle.min(axis=2) < 250).mean())


def latency_png(rows: Sequence[SweepRow]) -> bytes:
    look = choose_look((row.pruning for row in rows), (row.runtime for row in rows))
    with styled():
        return draw_cost(LATENCY, rows, look)["accuracy_vs_latency.png"]


@pytest.fixture(scope="module")
def full() -> dict[str, bytes]:
    """All plots of 4 levels x 3 precisions x 6 runtimes, 72 rows, and of 64 layers."""
    rows = grid()
    assert len(rows) == 72
    return draw_sweep(
        [replace(row, energy_proxy_j=15 * (row.latency_p50_s or 0)) for row in rows], layers(64), PEAKS
    )


def test_every_plot_is_a_picture_and_a_drawing(full: dict[str, bytes]) -> None:
    stems = {*ALWAYS, "accuracy_vs_energy", "roofline"}
    assert set(full) == {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")}
    for stem in stems:
        assert drawn_share(full[f"{stem}.png"]) > 0.02, stem
        shown = Image.open(io.BytesIO(full[f"{stem}.png"]))
        assert shown.info["dpi"] == pytest.approx((150, 150), abs=0.1)
        drawing = ElementTree.fromstring(full[f"{stem}.svg"])
        # Both files have the same size on paper.
        assert float(drawing.attrib["width"].removesuffix("pt")) == pytest.approx(
            shown.width * 72 / 150, abs=1
        )


def test_axes_say_what_they_are_of(full: dict[str, bytes]) -> None:
    assert {"top-1 accuracy, %", "median latency at batch 1, ms"} <= set(
        texts(full["accuracy_vs_latency.svg"])
    )
    assert "peak memory above the runtime's own, MB" in texts(full["accuracy_vs_memory.svg"])
    proxy = "energy proxy (power x latency, J): the latency axis again"
    assert proxy in texts(full["accuracy_vs_energy.svg"])
    assert "10⁹ multiply-accumulates per second (GMAC/s)" in texts(full["roofline.svg"])
    assert "10⁶ multiply-accumulates for one image" in texts(full["layer_macs.svg"])
    assert "activations of one image, MB" in texts(full["layer_activations.svg"])


def test_legends_name_levels_precisions_runtimes_and_states(full: dict[str, bytes]) -> None:
    printed = set(texts(full["accuracy_vs_latency.svg"]))
    assert {"unpruned", "25 %", "50 %", "70 %", "fp32", "bf16", "int8", *RUNTIMES} <= printed
    assert {"dominated or not ranked", "rejected: over a budget", "frontier of the two axes"} <= printed


def test_roofs_are_named_with_their_figures(full: dict[str, bytes]) -> None:
    printed = set(texts(full["roofline.svg"]))
    assert {"int8: 301.5 GMAC/s", "fp32: 82.4 GMAC/s", "memory: 14.2 GB/s", "fp16: no peak"} <= printed


def test_a_given_peak_is_marked_and_a_roofline_needs_no_points() -> None:
    peaks = Peaks(1, {"fp32": 50.0}, 20.0, overrides=("fp32", "gb_per_s"))
    printed = texts(draw_sweep([], [], peaks)["roofline.svg"])
    assert {"fp32: 50 GMAC/s (given)", "memory: 20 GB/s (given)"} <= set(printed)
    assert "no measured variant can be placed under it" in printed


def test_every_layer_of_many_is_named(full: dict[str, bytes]) -> None:
    for stem in ("layer_macs", "layer_activations"):
        printed = texts(full[f"{stem}.svg"])
        assert {f"features.{number}.block.{number % 4}.conv" for number in range(64)} <= set(printed)
        height = pixels(full[f"{stem}.png"]).shape[0]
        # A line of 8 points needs 17 pixels.
        assert height / 64 > 20


def test_few_layers_and_one_level() -> None:
    shown = [
        replace(layer, layer="") if number == 0 else layer for number, layer in enumerate(layers(2, (0.5,)))
    ]
    files = draw_sweep([], shown, None)
    assert "50 %" in texts(files["layer_macs.svg"])
    assert drawn_share(files["layer_macs.png"]) > 0.1


def test_what_has_no_work_is_left_out_and_what_is_outside_of_layers_is_named() -> None:
    first, second = layers(2, (0.0,), ("fp32",))
    printed = draw_sweep([], [replace(first, layer="", macs=7), replace(second, macs=0)], None)
    assert "(outside of layers)" in texts(printed["layer_macs.svg"])
    assert second.layer not in texts(printed["layer_macs.svg"])
    assert second.layer in texts(printed["layer_activations.svg"])


def test_activations_are_of_the_first_precision_where_fp32_is_missing() -> None:
    files = draw_sweep([], layers(3, precisions=("int8", "bf16")), None)
    assert any("int8" in text for text in texts(files["layer_activations.svg"]))


def test_no_date_is_in_the_files(full: dict[str, bytes]) -> None:
    assert not any(b"<dc:date>" in content for content in full.values())


def test_nothing_measured_is_a_panel_that_says_so() -> None:
    files = draw_sweep([], [], None)
    assert set(files) == {f"{stem}.{kind}" for stem in ALWAYS for kind in ("png", "svg")}
    for stem in ALWAYS:
        assert any("Nothing to draw" in text for text in texts(files[f"{stem}.svg"]))
        assert pixels(files[f"{stem}.png"]).min() < 50


def test_a_missing_column_is_reported_and_the_others_are_drawn() -> None:
    rows = [replace(row, peak_memory_bytes=None) for row in grid((0.0, 0.5), ("eager",))]
    files = draw_sweep([*rows, row(status="failed")], [], None)
    assert "Nothing to draw: of 6 measured variants" in texts(files["accuracy_vs_memory.svg"])
    assert "6 of 6 measured variants" in texts(files["accuracy_vs_latency.svg"])
    partly = draw_sweep([replace(rows[0], latency_p50_s=None), *rows[1:]], [], None)
    assert "5 of 6 measured variants" in texts(partly["accuracy_vs_latency.svg"])


def test_measured_energy_goes_before_the_proxy() -> None:
    rows = [
        replace(row, energy_j=0.2 + number / 10, energy_proxy_j=0.5)
        for number, row in enumerate(grid((0.0,), ("eager",)))
    ]
    printed = texts(draw_sweep(rows, [], None)["accuracy_vs_energy.svg"])
    assert "energy of a call, J" in printed
    assert not any("proxy" in text for text in printed)


def test_rejected_variants_are_crossed() -> None:
    rows = [replace(row, over_budget="") for row in grid((0.0, 0.5), ("eager", "openvino"))]
    rejected = [replace(row, over_budget="latency 9 ms > 5 ms") for row in rows]
    # At least two arms of every cross lie on nothing else.
    assert count_of(latency_png(rejected), INK) - count_of(latency_png(rows), INK) > 40 * len(rows)


def test_frontier_points_are_filled_and_dominated_hollow() -> None:
    rows = [row for row in grid((0.0, 0.7)) if row.precision == "fp32"]
    colour = choose_look((0.0, 0.7), ()).colours[0.7]
    filled, hollow = (
        count_of(latency_png([replace(row, on_frontier=best) for row in rows]), colour)
        for best in (True, False)
    )
    # Half of the rows have this colour.
    assert filled - hollow > 60 * len(rows) / 2
    assert hollow > 0


def test_several_seeds_have_a_point_each_and_a_line_each() -> None:
    rows = grid((0.0, 0.5), ("eager",), seeds=(0, 1, 2))
    printed = texts(draw_sweep(rows, [], None)["accuracy_vs_latency.svg"])
    assert "18 of 18 measured variants, a point for each of 3 seeds" in printed
    assert "one for each seed" in printed
    assert printed.count("fp32_baseline@eager") == 1


@pytest.mark.parametrize("change", [{"seed": 1}, {"pruning": None, "precision": None}, {"top1_low": None}])
def test_odd_rows_are_drawn_too(change: dict[str, object]) -> None:
    rows = [replace(row, peak_memory_bytes=0, **change) for row in grid((0.0,), ("eager",))]  # type: ignore[arg-type]
    files = draw_sweep(rows, [], PEAKS)
    assert drawn_share(files["accuracy_vs_memory.png"]) > 0.005


def test_what_is_on_the_frontier_is_numbered_and_the_key_names_the_numbers() -> None:
    rows = [variant(level, kind, "eager") for level, kind in ((0.0, "fp32"), (0.5, "fp32"), (0.7, "int8"))]

    def written(*best: bool) -> Counter[str]:
        marked = [replace(row, on_frontier=on) for row, on in zip(rows, best, strict=True)]
        return Counter(texts(draw_sweep(marked, [], None)["accuracy_vs_latency.svg"]))

    added = written(True, True, False) - written(False, False, False)
    assert added.keys() == {"1", "2", "pruned50_fp32@eager", "fp32_baseline@eager"}
    # By cost, as they stand from left to right.
    assert [text for text in added if "@" in text] == ["pruned50_fp32@eager", "fp32_baseline@eager"]


def test_levels_get_lighter_and_runtimes_differ() -> None:
    look = choose_look([0.5, None, 0.0, 0.25], RUNTIMES)
    light = [sum(int(look.colours[level][i : i + 2], 16) for i in (1, 3, 5)) for level in (0.0, 0.25, 0.5)]
    assert light == sorted(light)
    assert len(set(look.shapes.values())) == len(RUNTIMES)
    assert len(set(look.colours.values())) == 4


def test_files_can_be_written(tmp_path: Path, full: dict[str, bytes]) -> None:
    for name, content in full.items():
        (tmp_path / name).write_bytes(content)
    assert np.asarray(Image.open(tmp_path / "roofline.png")).std() > 0

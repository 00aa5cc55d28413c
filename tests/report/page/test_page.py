"""The page in a real browser: what it shows, what it does, and what it must not do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from quant_explorer.report.page.render import MOST_BARS, number, render_page
from quant_explorer.report.page.sheet import make_sheets
from quant_explorer.testing.replay import Played, Scene, play
from tests.analysis.replayed import BASELINE, ORDINARY
from tests.report.page.browser import find_chromium, opened
from tests.report.page.scene import results_of, varied, with_classes, write

CLICK = """name => {
  const row = page.sheets[0].rows.find(some => some.name === name);
  document.querySelector(".frontier-plot").emit("plotly_click", { points: [{ customdata: row.number }] });
}"""
BEST_OF_TWO = """keys => {
  const sheet = page.sheets[0], axes = keys.map(key => sheet.axes.find(axis => axis.key === key));
  const rows = sheet.rows.filter(row => keys.every(key => key in row.figures));
  return [...findDominators(sheet, rows, axes)].filter(([, names]) => !names.length).map(([row]) => row.name);
}"""
EVIL = "<img src=x onerror=\"document.title='hit'\">"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    return write(folder, varied(folder))


def test_plots_are_drawn_without_a_complaint_or_a_request(path: Path, browser: Browser) -> None:
    with opened(browser, path) as found:
        for name, mark in (
            ("frontier", ".point"),
            ("spread", ".boxes path"),
            ("rounds", ".point"),
            ("memory", ".bars path"),
        ):
            assert found.page.locator(f".{name}-plot {mark}").count() > 5, name
        assert found.complaints == []
        assert found.requests == [path.as_uri()]


def test_it_is_small_enough_for_a_mail(path: Path) -> None:
    assert path.stat().st_size < 6_000_000


def test_names_are_never_markup(tmp_path: Path, browser: Browser) -> None:
    evil = (
        BASELINE,
        Played(
            EVIL,
            slowness=0.5,
            wrong=41,
            size_bytes=9,
            runtime=EVIL,
            notes=(EVIL, "</script><script>document.title='hit'</script>"),
        ),
    )
    study = with_classes(play(tmp_path / "study.jsonl", evil), (EVIL, "dog", "frog", "</script>"))
    with opened(browser, write(tmp_path, study)) as found:
        page = found.page
        page.locator(".variants .pin").nth(0).click()
        page.locator(".variants .pin").nth(1).click()
        assert EVIL in page.locator(".pinned").inner_text()
        assert page.locator("img").count() == 0
        assert "hit" not in page.title()
        assert found.complaints == []
        # Were a name ever markup, the policy would keep it from running.
        page.evaluate("text => { document.body.insertAdjacentHTML('beforeend', text); }", EVIL)
        page.wait_for_timeout(200)
        assert "hit" not in page.title()
        assert any("Content Security Policy" in text for text in found.complaints)


def test_limits_answer_and_dim_what_exceeds_them(path: Path, browser: Browser) -> None:
    with opened(browser, path) as found:
        page = found.page
        page.get_by_label("Accuracy drop at most, pp").fill("")
        page.get_by_label("Files at most, MB").fill("0.2505")
        decision = page.locator(".decision")
        assert "Ship static_int8_per_tensor@eager, the fastest" in decision.inner_text()
        line = page.locator("tr", has=page.get_by_role("rowheader", name="bf16@onnxruntime")).first
        assert "size: 0.5 MB, 0.249 MB over the 0.2505 allowed" in line.inner_text()
        assert "dimmed" in (line.get_attribute("class") or "")
        page.get_by_label("Files at most, MB").fill("0.1")
        assert "None of" in decision.inner_text()
        assert "comes closest" in decision.inner_text()
        page.get_by_role("button", name="Reset", exact=True).click()
        page.wait_for_function("document.querySelector('[name=size]').value === ''")
        assert "Ship" in decision.inner_text()


def test_clicks_on_two_points_show_them_side_by_side(path: Path, browser: Browser) -> None:
    with opened(browser, path) as found:
        page = found.page
        for name in ("static_int8_per_tensor@eager", "static_int8_per_channel@eager"):
            page.evaluate(CLICK, name)
        text = page.locator(".pinned").inner_text()
        assert "the first is 1.6" in text  # 0.4 over 0.25
        assert "times as fast" in text
        assert "first minus second: -9.50 [" in text  # 80 and 42 of 400 wrong, each its own difference.
        assert page.locator(".variants .pin[aria-pressed=true]").count() == 2


def test_bars_that_are_left_out_are_counted_and_every_class_change_is_there(tmp_path: Path) -> None:
    many = [Played(f"v{number}", slowness=0.9, wrong=41) for number in range(MOST_BARS)]
    text = write(tmp_path, play(tmp_path / "study.jsonl", (BASELINE, *many), Scene(rounds=2))).read_text()
    assert text.count(f"Drawn are the first {MOST_BARS} of {MOST_BARS + 1} variants") == 2
    heat = text[text.index('<table class="heat">') :].partition("</table>")[0]
    assert heat.count('<tr><th scope="row">') == MOST_BARS + 1
    assert f"MOST_BARS = {MOST_BARS}," in text


def test_the_table_sorts_filters_and_copies(path: Path, browser: Browser) -> None:
    with opened(browser, path) as found:
        page = found.page
        page.get_by_role("button", name="size, MB").click()
        values = page.locator(".variants tbody tr").evaluate_all(
            "lines => lines.map(line => Number(line.cells[3].dataset.value))"
        )
        assert values == sorted(values)
        page.get_by_label("Filter by name").fill("openvino")
        page.get_by_role("button", name="Copy as CSV").click()
        lines = page.get_by_label("The copied table").input_value().splitlines()
        assert lines[0].startswith('"variant","within the limits","size, MB"')
        assert [line.split(",")[0] for line in lines[1:]] == ['"qat_int8@openvino"', '"odd@openvino"']
        page.get_by_role("button", name="Copy as Markdown").click()
        assert (
            page.get_by_label("The copied table").input_value().startswith("| variant | within the limits |")
        )


def test_another_axis_ranks_again(path: Path, browser: Browser) -> None:
    with opened(browser, path) as found:
        found.page.locator(".axes [name=x]").select_option("memory:1")
        title = found.page.locator(".frontier-plot .xtitle")
        assert title.text_content() == "peak memory, batch 1, MB"
        found.page.locator(".axes [name=area]").select_option("memory:1")
        best = found.page.evaluate(BEST_OF_TWO, ["memory:1", "accuracy"])
        assert best == ["qat_int8@openvino"]  # The least memory, and the most accurate.


def test_environments_and_models_have_tabs_of_their_own(tmp_path: Path, browser: Browser) -> None:
    path = tmp_path / "study.jsonl"
    play(path, ORDINARY, Scene(environment="one"))
    study = play(
        path, (*ORDINARY, *(replace(played, model="other") for played in ORDINARY)), Scene(environment="two")
    )
    with opened(browser, write(tmp_path, study)) as found:
        page = found.page
        tabs = page.get_by_role("tab")
        assert tabs.all_inner_texts() == [
            "small_cnn, environment two", "other, environment two", "small_cnn, environment one",
        ]  # fmt: skip
        tabs.nth(0).focus()
        page.keyboard.press("ArrowLeft")
        assert tabs.nth(2).get_attribute("aria-selected") == "true"
        assert page.locator("[role=tabpanel]:visible").count() == 1
        assert page.locator("#sheet-2 .frontier-plot .point").count() > 0
        assert found.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_assistive_technology_can_use_it(path: Path, browser: Browser, scheme: str) -> None:
    with opened(browser, path) as found:
        found.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        violations = Axe().run(found.page).response["violations"]
    serious = [
        (violation["id"], violation["nodes"][0]["html"])
        for violation in violations
        if violation["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_it_fits_a_phone(path: Path, browser: Browser) -> None:
    with opened(browser, path, width=360) as found:
        assert found.page.evaluate("document.documentElement.scrollWidth") == 360


def test_print_shows_every_sheet_and_no_fields(path: Path, browser: Browser) -> None:
    with opened(browser, path) as found:
        found.page.emulate_media(media="print")
        assert not found.page.locator(".limits").is_visible()
        assert found.page.locator(".variants").is_visible()


def test_a_study_in_which_nothing_was_measured_has_a_page(tmp_path: Path) -> None:
    from tests.analysis.replayed import BROKEN

    study = play(tmp_path / "study.jsonl", (BROKEN,))
    results = results_of(study)
    assert "killed by signal 9" in render_page(results, make_sheets(study, results)).decode()


def test_a_missing_browser_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="apt-get install chromium"):
        find_chromium()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.3071, "0.307"), (1, "1.00"), (12.34, "12.3"), (99.97, "100"), (1234.5, "1,234")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text

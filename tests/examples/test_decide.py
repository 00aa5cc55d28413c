"""The notebook is executed as it stands, and its plot is looked at in a browser."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.report.page.browser import launched

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.slow
def test_the_notebook_runs_and_shows_the_plot_of_the_page(tmp_path: Path) -> None:
    notebook = nbformat.read(EXAMPLES / "decide.ipynb", as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    outputs = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    assert "static_int8_per_tensor@onnxruntime" in outputs["frontier-rows"][0].data["text/html"]
    (shown,) = outputs["frontier"]
    path = tmp_path / "shown.html"
    path.write_text(f"<!doctype html><body>{shown.data['text/html']}")
    with launched() as browser:
        page = browser.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path.as_uri())
        frame = page.frame_locator("iframe")
        frame.locator(".frontier-plot .point").first.wait_for(timeout=120_000)
        assert frame.locator(".frontier-plot .point").count() > 20
        assert frame.locator(".answer").is_hidden()
        assert complaints == []

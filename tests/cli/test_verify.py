from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import CALIBRATED
from tests.cli.invoking import Invoke, Place

EXPORT = ("export", f"{CALIBRATED}@onnxruntime", "--run-dir", "run", "--to", "to")


def test_an_export_holds_where_it_was_measured_until_it_is_changed(
    invoke: Invoke, copied: Place, tmp_path: Path
) -> None:
    code, printed = invoke(*EXPORT)
    assert code == 0, printed
    # Nothing is judged by the clock: other tests are running.
    code, printed = invoke("verify", "to", "--max-slowdown", "1000", "--json", "--quiet")
    assert code == 0, printed
    found = json.loads(printed)
    assert [finding["verdict"] for finding in found["findings"]] == ["holds"] * 3
    assert found["findings"][1]["reason"] == ""
    (tmp_path / "to" / "classes.json").write_text("[]")
    code, printed = invoke("verify", "to")
    assert code == 1
    assert "classes.json changed" in printed
    assert "What is stated does not hold here." in printed


def test_other_data_and_what_is_no_export_are_unusable(invoke: Invoke, copied: Place) -> None:
    code, printed = invoke("verify", "run")
    assert code == 2
    assert "a folder that `quant-explorer export` made" in printed
    invoke(*EXPORT)
    code, printed = invoke("verify", "to", "--data", "imagefolder:nowhere")
    assert code == 2
    assert "no such folder" in printed

from __future__ import annotations

import re
from pathlib import Path

import pytest

from quant_explorer.testing.replay import play
from tests.analysis.replayed import ORDINARY
from tests.cli.invoking import Invoke


def test_a_run_folder_is_sent_with_its_files(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)
    play(tmp_path / "run" / "study.jsonl", ORDINARY)
    (tmp_path / "run" / "report").mkdir()
    (tmp_path / "run" / "report" / "pareto.md").write_text("# Report\n")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    code, printed = invoke("track", tmp_path / "run", "--mlflow", uri, "--experiment", "mine")
    assert code == 0
    assert f"Sent {len(ORDINARY)} variants to {uri}, experiment mine, run " in printed
    # MLflow logs beside it.
    (run,) = re.findall(r"experiment mine, run (\w+)\.", printed)
    files = {one.path for one in MlflowClient(tracking_uri=uri).list_artifacts(run)}
    assert files == {"study.jsonl", "pareto.md"}

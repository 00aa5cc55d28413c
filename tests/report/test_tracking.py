from __future__ import annotations

from pathlib import Path

import pytest

from quant_explorer.core.errors import StorageError, UnsupportedError
from quant_explorer.report.tracking import PARENT, track
from tests.analysis.replayed import BROKEN, ORDINARY, of, ranked


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its default place for artifacts is the working directory, and its telemetry is not ours to send."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)


def test_a_run_has_its_variants_as_children_with_intervals(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    results = ranked(tmp_path, (*ORDINARY, BROKEN))
    file = tmp_path / "study.jsonl"
    first, second = (track(results, [file], uri, "quantization") for _ in range(2))
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("quantization")
    assert experiment is not None
    parent = client.get_run(first)
    assert parent.data.params["data"] == "toy"
    assert [file.path for file in client.list_artifacts(first)] == ["study.jsonl"]
    assert "Ship " in parent.data.tags["mlflow.note.content"]
    children = {
        child.info.run_name: child
        for child in client.search_runs(
            [experiment.experiment_id], filter_string=f"tags.`{PARENT}` = '{second}'"
        )
    }
    assert children.keys() == {variant.name for variant in results.variants}
    child, variant = children["static_int8_per_tensor@eager"], of(results, "static_int8_per_tensor")
    latency = variant.latency["8"]
    assert latency.p50_ci_s is not None
    assert child.data.metrics["latency_p50_s_batch_8"] == latency.p50_s
    assert child.data.metrics["latency_p50_s_batch_8_low"] == latency.p50_ci_s.low
    assert child.data.metrics["size_bytes"] == 250_000
    assert child.data.params["runtime"] == "eager"
    broken = children["qat_int8@eager"]
    assert (broken.info.status, broken.data.params["reason"]) == ("FAILED", BROKEN.reason)


def test_a_store_that_refuses_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"^nowhere://x: MLflow refused the run"):
        track(ranked(tmp_path, ORDINARY), [], "nowhere://x", "quantization")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"MLflow refused the run .*File exists"):
        track(ranked(tmp_path, ORDINARY), [], f"sqlite:///{tmp_path}/file/mlflow.db", "quantization")


def test_without_mlflow_the_command_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = ranked(tmp_path, ORDINARY)
    monkeypatch.setattr("quant_explorer.core.host.packages.installed_version", lambda package: None)
    with pytest.raises(
        UnsupportedError, match=r"mlflow not installed: pip install 'quant-explorer\[mlflow\]'"
    ):
        track(results, [], "sqlite:///x.db", "quantization")

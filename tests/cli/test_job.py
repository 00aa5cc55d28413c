from pathlib import Path

import pytest

from quant_explorer.cli.console import verbosity
from quant_explorer.cli.job import open_job
from quant_explorer.machine import topology


def test_a_cpu_quota_that_binds_is_reported_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verbosity, "level", 0)
    monkeypatch.setattr(topology, "explain_quota", lambda: "of 8 cores, the quota leaves 2")
    with open_job(tmp_path / "first", {}):
        pass
    assert "of 8 cores, the quota leaves 2" in capsys.readouterr().err
    monkeypatch.setattr(topology, "explain_quota", lambda: None)
    with open_job(tmp_path / "second", {}):
        pass
    assert capsys.readouterr().err == ""

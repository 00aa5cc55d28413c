from __future__ import annotations

import pytest

from quant_explorer.core.progress import Progress, Silent


def test_silence_is_a_progress_that_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress: Progress = Silent()
    with progress.task("train", 10) as task:
        task.advance()
        task.advance(3, "loss 0.5")
    with progress.task("open", None) as task:
        task.advance()
    progress.say("done")
    assert capsys.readouterr() == ("", "")


def test_silence_hides_no_failure() -> None:
    def fail() -> None:
        with Silent().task("train", 1):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()

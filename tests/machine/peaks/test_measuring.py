from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from quant_explorer.core.errors import WorkerDiedError
from quant_explorer.core.progress import Silent, Task
from quant_explorer.machine.peaks import measuring
from quant_explorer.machine.peaks.measuring import measure_peaks
from quant_explorer.machine.peaks.probe import WHAT, Effort

QUICK = Effort(sizes=(64,), seconds=0.0, array_bytes=4_000_000)


@dataclass
class Bar:
    notes: list[str] = field(default_factory=list)

    def advance(self, amount: int = 1, note: str = "") -> None:
        self.notes.append(note)


@dataclass
class OneBar:
    """A Progress that keeps what its bar was told."""

    bar: Bar = field(default_factory=Bar)

    @contextmanager
    def task(self, label: str, total: int | None) -> Iterator[Task]:
        assert total == len(WHAT)
        yield self.bar

    def say(self, message: str) -> None:
        raise AssertionError(message)


def test_a_fresh_process_measures_every_roof() -> None:
    core = max(os.sched_getaffinity(0))
    progress = OneBar()
    found = measure_peaks((core,), progress, QUICK)
    assert found.threads == 1
    assert found.gb_per_s > 0
    assert found.gmacs_per_s.keys() | found.reasons.keys() == set(WHAT) - {"gb_per_s"}
    assert found.kernels["fp32"] in ("torch.matmul", "conv2d")
    assert found.overrides == ()
    assert progress.bar.notes == list(WHAT)


@pytest.mark.parametrize(
    ("program", "written"),
    [
        ("raise SystemExit('no room')", r"exit code 1\): no room"),
        ("import os; os.kill(os.getpid(), 9)", "signal SIGKILL"),
    ],
)
def test_a_process_that_dies_is_an_error_with_its_output(
    monkeypatch: pytest.MonkeyPatch, program: str, written: str
) -> None:
    monkeypatch.setattr(measuring, "_PROGRAM", program)
    with pytest.raises(WorkerDiedError, match=written):
        measure_peaks((0,), Silent(), QUICK)


def test_the_process_is_on_its_cores_before_torch_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    core = max(os.sched_getaffinity(0))
    # A stand-in for torch which says where it was told of its threads.
    program = (
        "import os, sys, types; from quant_explorer.machine.peaks import measuring; "
        "assert 'torch' not in sys.modules; "
        "say = lambda threads: sys.exit(f'{threads} on {os.sched_getaffinity(0)}'); "
        "sys.modules['torch'] = types.SimpleNamespace(set_num_threads=say); "
        "measuring.main()"
    )
    monkeypatch.setattr(measuring, "_PROGRAM", program)
    with pytest.raises(WorkerDiedError, match=rf"1 on \{{{core}\}}"):
        measure_peaks((core,), Silent(), QUICK)

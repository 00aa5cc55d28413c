import os

import pytest

from quant_explorer.core.errors import SettingsError
from quant_explorer.machine.topology import core_numbers, idle_cores, measuring_cores


def test_cores_are_those_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 2, 9}, raising=False)
    assert core_numbers() == (2, 5, 9)
    assert measuring_cores(2) == (5, 9)
    assert [idle_cores(threads) for threads in (1, 2, 3)] == [((5,), (2,)), (), ()]
    with pytest.raises(SettingsError, match=r"--threads 4 is out of range\. Allowed: 1 to 3"):
        measuring_cores(4)

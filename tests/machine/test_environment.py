import pytest
import torch

import quant_explorer
from quant_explorer.machine import environment
from quant_explorer.machine.environment import describe_environment


def test_the_digest_names_the_machine_and_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    described = describe_environment(threads=1, packages=["numpy"])
    assert describe_environment(threads=1, packages=["numpy"]) == described
    digests = {described.digest, describe_environment(threads=2, packages=["numpy"]).digest}
    digests.add(describe_environment(threads=1, packages=["numpy", "torch"]).digest)
    monkeypatch.setattr(environment, "instruction_sets", lambda: ("another",))
    digests.add(describe_environment(threads=1, packages=["numpy"]).digest)
    digests.add(describe_environment(threads=1, packages=["numpy"], protocol=1).digest)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    digests.add(describe_environment(threads=1, packages=["numpy"], protocol=1).digest)
    monkeypatch.setattr(quant_explorer, "__version__", "0.0.9")
    digests.add(describe_environment(threads=1, packages=["numpy"], protocol=1).digest)
    assert len(digests) == 7


def test_versions_are_those_installed_and_what_is_not_is_left_out() -> None:
    found = describe_environment(threads=1, packages=["torch", "no-such-package-at-all"])
    assert found.versions == {
        "quant-explorer": quant_explorer.__version__,
        "torch": torch.__version__.partition("+")[0],
    }

import pytest
import torch

from quant_explorer.machine import environment
from quant_explorer.machine.environment import describe_environment


def test_the_digest_names_the_machine_and_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    one = describe_environment(threads=1, packages=["numpy"])
    assert describe_environment(threads=1, packages=["numpy"]) == one
    digests = {one.digest, describe_environment(threads=2, packages=["numpy"]).digest}
    digests.add(describe_environment(threads=1, packages=["numpy", "torch"]).digest)
    monkeypatch.setattr(environment, "instruction_sets", lambda: ("another",))
    digests.add(describe_environment(threads=1, packages=["numpy"]).digest)
    assert len(digests) == 4


def test_versions_are_those_installed_and_what_is_not_is_left_out() -> None:
    found = describe_environment(threads=1, packages=["torch", "no-such-package-at-all"])
    assert found.versions == {"torch": torch.__version__.partition("+")[0]}

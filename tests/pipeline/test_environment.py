import os
from pathlib import Path

import pytest
import torch

import quant_explorer
from quant_explorer.core.errors import SettingsError
from quant_explorer.pipeline import environment
from quant_explorer.pipeline.environment import (
    core_numbers,
    cpu_model,
    describe_environment,
    has_bfloat16,
    idle_cores,
    instruction_sets,
    measuring_cores,
)

SAPPHIRE = """processor	: 0
model name	: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz
flags		: fpu sse4_2 avx f16c avx2 avx512f avx512bw avx512_vnni avx512_bf16 amx_bf16 amx_tile amx_int8
vmx flags	: vnmi avx512_fp16

processor	: 1
model name	: another
"""
GRAVITON = """processor	: 0
BogoMIPS	: 2100.00
Features	: fp asimd evtstrm asimdhp asimddp sve i8mm bf16
"""
OLD = "processor : 0\nmodel name : Old\nflags : fpu sse2\n"


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(environment, "Path", lambda _: path)
    return path


def test_instruction_sets_are_read_from_the_first_processor(cpuinfo: Path) -> None:
    cpuinfo.write_text(SAPPHIRE)
    assert cpu_model() == "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz"
    assert instruction_sets() == (
        *("avx", "avx2", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16"),
        *("amx_tile", "amx_int8", "amx_bf16"),
    )
    assert has_bfloat16()


def test_arm_names_them_otherwise(cpuinfo: Path) -> None:
    cpuinfo.write_text(GRAVITON)
    assert instruction_sets() == ("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve")
    assert has_bfloat16()
    assert cpu_model()


@pytest.mark.parametrize("content", [None, "", OLD])
def test_a_processor_that_says_little_has_none(cpuinfo: Path, content: str | None) -> None:
    if content is not None:
        cpuinfo.write_text(content)
    assert instruction_sets() == ()
    assert not has_bfloat16()


def test_the_digest_names_the_machine_and_its_settings(
    cpuinfo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo.write_text(SAPPHIRE)
    one = describe_environment(threads=1, packages=["numpy"], protocol=1)
    assert describe_environment(threads=1, packages=["numpy"], protocol=1) == one
    digests = {one.digest, describe_environment(threads=2, packages=["numpy"], protocol=1).digest}
    digests.add(describe_environment(threads=1, packages=["numpy", "torch"], protocol=1).digest)
    cpuinfo.write_text(GRAVITON)
    digests.add(describe_environment(threads=1, packages=["numpy"], protocol=1).digest)
    digests.add(describe_environment(threads=1, packages=["numpy"], protocol=2).digest)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    digests.add(describe_environment(threads=1, packages=["numpy"], protocol=2).digest)
    monkeypatch.setattr(quant_explorer, "__version__", "0.0.9")
    digests.add(describe_environment(threads=1, packages=["numpy"], protocol=2).digest)
    assert len(digests) == 7


def test_versions_are_those_installed_and_what_is_not_is_left_out() -> None:
    found = describe_environment(threads=1, packages=["torch", "no-such-package-at-all"], protocol=1)
    assert found.versions == {
        "quant-explorer": quant_explorer.__version__,
        "torch": torch.__version__.partition("+")[0],
    }


def test_cores_are_those_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 2, 9}, raising=False)
    assert core_numbers() == (2, 5, 9)
    assert measuring_cores(2) == (5, 9)
    assert [idle_cores(threads) for threads in (1, 2, 3)] == [((5,), (2,)), (), ()]
    with pytest.raises(SettingsError, match=r"--threads 4 is out of range\. Allowed: 1 to 3"):
        measuring_cores(4)

from pathlib import Path

import pytest

from quant_explorer.machine.cpu import cpu_model, instruction_sets

# What Linux shows of processors.
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
def cpuinfo(tmp_path: Path) -> Path:
    return tmp_path / "cpuinfo"


def test_instruction_sets_are_read_from_the_first_processor(cpuinfo: Path) -> None:
    cpuinfo.write_text(SAPPHIRE)
    assert cpu_model(cpuinfo) == "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz"
    assert instruction_sets(cpuinfo) == (
        *("avx", "avx2", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16"),
        *("amx_tile", "amx_int8", "amx_bf16"),
    )


def test_arm_names_them_otherwise(cpuinfo: Path) -> None:
    cpuinfo.write_text(GRAVITON)
    assert instruction_sets(cpuinfo) == ("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve")
    assert cpu_model(cpuinfo)


@pytest.mark.parametrize("content", [None, "", OLD])
def test_a_processor_that_says_little_has_none(cpuinfo: Path, content: str | None) -> None:
    if content is not None:
        cpuinfo.write_text(content)
    assert instruction_sets(cpuinfo) == ()

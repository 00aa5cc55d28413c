import platform

import pytest

from quant_explorer.core.host.architecture import (
    HALF_PRECISIONS,
    architecture,
    has_arithmetic,
    is_arm,
    is_x86,
)
from quant_explorer.core.quantspec import Precision


@pytest.mark.parametrize(
    ("machine", "name", "arm", "x86"),
    [
        ("x86_64", "x86_64", False, True),
        ("AMD64", "x86_64", False, True),
        ("aarch64", "aarch64", True, False),
        ("arm64", "aarch64", True, False),
        ("riscv64", "riscv64", False, False),
    ],
)
def test_systems_have_several_names_for_one_architecture(
    monkeypatch: pytest.MonkeyPatch, machine: str, name: str, arm: bool, x86: bool
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert (architecture(), is_arm(), is_x86()) == (name, arm, x86)


@pytest.mark.parametrize(
    ("features", "precisions"),
    [
        (("avx2", "f16c", "avx512f"), ()),
        (("avx2", "amx_bf16"), ("bf16",)),
        (("avx512_fp16", "avx512_bf16"), ("bf16", "fp16")),
        (("asimd", "asimdhp"), ("fp16",)),
    ],
)
def test_what_converts_16_bits_does_not_multiply_them(
    features: tuple[str, ...], precisions: tuple[Precision, ...]
) -> None:
    assert tuple(name for name in HALF_PRECISIONS if has_arithmetic(name, features)) == precisions

import pytest

from quant_explorer.core.roofline import Peaks, override_peaks
from quant_explorer.machine.memory import ResidentMemory
from quant_explorer.pipeline import doctor
from quant_explorer.pipeline.doctor import Fact, describe_peaks, examine

PEAKS = Peaks(
    1,
    {"fp32": 50.0, "bf16": 10.0, "int8": 200.0},
    10.0,
    kernels={"fp32": "torch.matmul", "int8": "torch._int_mm", "gb_per_s": "copy"},
    reasons={"fp16": "no kernel"},
)


def facts() -> dict[str, Fact]:
    return {fact.what: fact for fact in examine()}


@pytest.mark.parametrize(
    ("sets", "int8", "bf16", "fp16"),
    [
        (("avx2",), "none", "none", "none"),
        (("avx512_vnni", "avx512_bf16"), "in hardware", "in hardware", "none"),
        (("asimddp", "asimdhp"), "in hardware", "none", "in hardware"),
    ],
)
def test_arithmetic_follows_from_the_instruction_sets(
    monkeypatch: pytest.MonkeyPatch, sets: tuple[str, ...], int8: str, bf16: str, fp16: str
) -> None:
    monkeypatch.setattr(doctor, "instruction_sets", lambda: sets)
    found = facts()
    assert found["instruction sets"].finding == ", ".join(sets)
    assert found["INT8 dot products"].finding == int8
    assert found["BF16 arithmetic"].finding == bf16
    assert found["FP16 arithmetic"].finding == fp16


def test_one_engine_is_the_default_and_its_bits_are_given() -> None:
    engines = {what: fact for what, fact in facts().items() if what.startswith("engine ")}
    (default,) = (fact for what, fact in engines.items() if "(default)" in what)
    assert default.finding in ("8-bit activations", "7-bit activations")
    assert all(fact.why for fact in engines.values())


def test_peak_memory_says_why_it_cannot_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ResidentMemory, "unavailable", lambda self: "the kernel does not let us")
    assert facts()["peak memory"] == Fact("peak memory", "not measurable", "the kernel does not let us")


def test_facts_name_the_kernel_the_ridge_and_what_is_slower_than_fp32() -> None:
    facts = {fact.what: fact for fact in describe_peaks(override_peaks(PEAKS, {"int8": 250.0}))}
    assert facts["memory bandwidth"].finding == "10.0 GB/s"
    assert facts["peak fp32"].finding == "50.0 GMAC/s"
    assert facts["peak fp32"].why == "torch.matmul; memory binds below 5 MAC/byte"
    assert facts["peak bf16"].why.endswith("; 0.2 x fp32")
    assert facts["peak int8"].why.startswith("given, not measured; memory binds below 25 MAC/byte")
    assert (facts["peak fp16"].finding, facts["peak fp16"].why) == ("none", "no kernel")

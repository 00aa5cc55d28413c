from pathlib import Path

import pytest

from quant_explorer.core.contracts import Lowering, Runtime
from quant_explorer.core.cost.roofline import Peaks, override_peaks
from quant_explorer.core.errors import SettingsError, UnsupportedError, WorkerError
from quant_explorer.core.progress import Silent
from quant_explorer.machine.memory import ResidentMemory
from quant_explorer.machine.topology import available_cores
from quant_explorer.pipeline.doctor import diagnosis
from quant_explorer.pipeline.doctor.diagnosis import Fact, describe_peaks, examine, expect_int8
from quant_explorer.pipeline.doctor.int8_speed import Int8Speed
from quant_explorer.stats.intervals import Interval
from quant_explorer.testing.fake_runtime import FakeRuntime

PEAKS = Peaks(
    1,
    {"fp32": 50.0, "bf16": 10.0, "int8": 200.0},
    10.0,
    kernels={"fp32": "torch.matmul", "int8": "torch._int_mm", "gb_per_s": "copy"},
    reasons={"fp16": "no kernel"},
)


def facts() -> dict[str, Fact]:
    return {fact.what: fact for fact in examine({"fake": FakeRuntime})}


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
    monkeypatch.setattr(diagnosis, "instruction_sets", lambda: sets)
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


def expected(monkeypatch: pytest.MonkeyPatch, found: Int8Speed | Exception) -> Fact:
    def measure(runtime: Runtime, threads: int, folder: Path) -> Int8Speed:
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(diagnosis, "measure_int8_speed", measure)
    measurement, fact = expect_int8({"fake": FakeRuntime}, 1, Silent())
    assert "one small network" in measurement.finding
    assert "1 pinned core(s)" in measurement.why
    assert fact.what == "INT8 on fake"
    return fact


@pytest.mark.parametrize(
    ("speedup", "interval", "finding"),
    [
        (2.31, Interval(2.14, 2.46), "2.3 times as fast as FP32 [2.1, 2.5]"),
        (0.9, Interval(0.88, 0.93), "slower: 0.9 times as fast as FP32 [0.88, 0.93]"),
        (1.02, Interval(0.95, 1.1), "not known to be faster or slower: 1 times as fast as FP32 [0.95, 1.1]"),
    ],
)
def test_int8_is_faster_or_slower_beyond_its_interval_or_neither(
    monkeypatch: pytest.MonkeyPatch, speedup: float, interval: Interval, finding: str
) -> None:
    lowering = Lowering(("activations have 7 bits",), (), needs=("VNNI",))
    fact = expected(monkeypatch, Int8Speed("per_channel", speedup, interval, 0.98, lowering))
    assert fact.finding == finding
    assert fact.why == (
        "98% of the multiply-accumulates ran in INT8, per_channel weights; holds for CPUs with VNNI only; "
        "activations have 7 bits"
    )


def test_what_ran_in_float_is_no_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Int8Speed("per_channel", 1.5, Interval(1.4, 1.6), 0.1, Lowering((), ()))
    fact = expected(monkeypatch, found)
    assert fact.finding == "failed"
    assert fact.why == "10% of the multiply-accumulates ran in INT8, more than 50% is required"


@pytest.mark.parametrize(
    ("error", "finding", "why"),
    [
        (UnsupportedError("no kernels"), "not possible", "no kernels"),
        (WorkerError("the process died"), "failed", "the process died"),
        (OSError("libgomp.so.1: no such file"), "failed", "OSError: libgomp.so.1: no such file (-v shows"),
    ],
)
def test_what_is_not_possible_has_its_reason(
    monkeypatch: pytest.MonkeyPatch, error: Exception, finding: str, why: str
) -> None:
    fact = expected(monkeypatch, error)
    assert fact.finding == finding
    assert fact.why.startswith(why)


def test_more_threads_than_cores_are_an_error_and_no_row() -> None:
    with pytest.raises(SettingsError, match="--threads"):
        expect_int8({"fake": FakeRuntime}, available_cores() + 1, Silent())


def test_a_limit_of_a_container_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "memory_limit_bytes", lambda: 2_000_000_000)
    monkeypatch.setattr(diagnosis, "total_bytes", lambda: 2_000_000_000)
    monkeypatch.setattr(diagnosis, "available_bytes", lambda: 500_000_000)
    monkeypatch.setattr(diagnosis, "explain_quota", lambda: "the quota leaves one")
    found = facts()
    assert found["memory"].finding == "2,000.0 MB"
    assert found["memory"].why == "500.0 MB available, the limit of a control group"
    assert found["cores"].why == "the quota leaves one"

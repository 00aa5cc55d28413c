from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from quant_explorer.analysis.decide.gate import gate_size
from quant_explorer.core.measurement import Status
from quant_explorer.testing.replay import Played
from tests.analysis.replayed import ranked


def cells(model: str, *, size_bytes: int = 260_000, int8_macs: int = 990) -> tuple[Played, ...]:
    return (
        Played("fp32_baseline", model=model),
        Played("static_int8_per_tensor", size_bytes=size_bytes, int8_macs=int8_macs, model=model),
    )


def test_small_and_really_int8_passes(tmp_path: Path) -> None:
    assert gate_size(ranked(tmp_path, (*cells("a"), *cells("b")))) == ()


@pytest.mark.parametrize(("size_bytes", "passes"), [(500_000, True), (500_001, False)])
def test_over_half_of_fp32_fails(tmp_path: Path, size_bytes: int, passes: bool) -> None:
    violations = gate_size(ranked(tmp_path, cells("a", size_bytes=size_bytes)))
    assert [violation.kind for violation in violations] == ([] if passes else ["size"])


@pytest.mark.parametrize(("int8_macs", "passes"), [(900, True), (899, False)])
def test_too_little_int8_fails(tmp_path: Path, int8_macs: int, passes: bool) -> None:
    violations = gate_size(ranked(tmp_path, cells("a", int8_macs=int8_macs)))
    assert [violation.kind for violation in violations] == ([] if passes else ["int8_mac_fraction"])


def test_a_cell_that_another_model_has_is_expected(tmp_path: Path) -> None:
    (violation,) = gate_size(ranked(tmp_path, (*cells("a"), Played("fp32_baseline", model="b"))))
    assert (violation.model, violation.cell, violation.kind) == (
        "b",
        "static_int8_per_tensor@eager",
        "missing",
    )
    assert violation.message == "not in the results"


@pytest.mark.parametrize("status", [Status.UNSUPPORTED, Status.BUILD_FAILED, Status.TIMED_OUT])
def test_unsupported_and_failed_are_missing_with_their_reason(tmp_path: Path, status: Status) -> None:
    broken = Played("static_int8_per_tensor", model="b", status=status, reason="hardswish has no INT8")
    results = ranked(tmp_path, (*cells("a"), Played("fp32_baseline", model="b"), broken))
    (violation,) = gate_size(results)
    assert violation.kind == "missing"
    assert violation.message == f"it {status.predicate}: hardswish has no INT8"


def offered(model: str, status: Status, *, channel: Status = Status.OK) -> tuple[Played, ...]:
    """A model on a runtime whose per-tensor cell has `status`, and whose per-channel cell is sound."""
    tensor, per_channel = (
        Played(config, 1.0, 0, 260_000, model=model, int8_macs=990, status=found, reason="per channel only")
        for config, found in (("static_int8_per_tensor", status), ("static_int8_per_channel", channel))
    )
    return (Played("fp32_baseline", model=model), tensor, per_channel)


def test_a_cell_that_the_runtime_has_for_no_model_is_not_expected(tmp_path: Path) -> None:
    none = (*offered("a", Status.UNSUPPORTED), *offered("b", Status.UNSUPPORTED))
    assert gate_size(ranked(tmp_path, none)) == ()


@pytest.mark.parametrize("status", [Status.BUILD_FAILED, Status.DIED])
def test_a_cell_that_failed_for_another_model_is_expected(tmp_path: Path, status: Status) -> None:
    violations = gate_size(ranked(tmp_path, (*offered("a", Status.UNSUPPORTED), *offered("b", status))))
    assert [
        (violation.model, violation.cell, violation.message.partition(":")[0]) for violation in violations
    ] == [
        ("a", "static_int8_per_tensor@eager", "it is not possible"),
        ("b", "static_int8_per_tensor@eager", f"it {status.predicate}"),
    ]


def test_a_runtime_that_has_no_cell_at_all_does_not_pass(tmp_path: Path) -> None:
    nothing = offered("a", Status.UNSUPPORTED, channel=Status.UNSUPPORTED)
    assert [violation.cell for violation in gate_size(ranked(tmp_path, nothing))] == [
        "static_int8_per_tensor@eager",
        "static_int8_per_channel@eager",
    ]


def test_what_one_runtime_has_is_not_expected_of_another(tmp_path: Path) -> None:
    served = [replace(variant, runtime="served") for variant in offered("a", Status.UNSUPPORTED)]
    assert gate_size(ranked(tmp_path, (*offered("a", Status.OK), *served))) == ()


def test_models_that_were_asked_for_are_expected(tmp_path: Path) -> None:
    results = ranked(tmp_path, (*cells("a"), *cells("b", size_bytes=900_000)))
    assert gate_size(results, models=("a",)) == ()
    assert [violation.model for violation in gate_size(results, models=("a", "c"))] == ["c"]


def test_size_is_compared_on_the_same_runtime(tmp_path: Path) -> None:
    served = Played("static_int8_per_tensor", size_bytes=260_000, int8_macs=990, model="a", runtime="served")
    (violation,) = gate_size(ranked(tmp_path, (*cells("a"), served)))
    assert (violation.cell, violation.kind) == ("fp32_baseline@served", "missing")


def test_results_without_static_int8_do_not_pass(tmp_path: Path) -> None:
    (violation,) = gate_size(ranked(tmp_path, cells("a")[:1]))
    assert violation.kind == "missing"

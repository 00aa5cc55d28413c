from __future__ import annotations

from dataclasses import replace

import pytest

from quant_explorer.core.host.environment import Environment
from quant_explorer.core.measurement import Executed, Predictions, ReportSplit, Status, twin_key
from quant_explorer.core.quantspec import Precision


def test_fraction_is_the_share_of_all_multiply_accumulates() -> None:
    executed = Executed({"fp32": 25, "int8": 75}, {})
    assert executed.fraction("int8") == 0.75
    assert executed.fraction("fp32") == 0.25
    assert executed.fraction("bf16") == 0.0


@pytest.mark.parametrize("macs", [{}, {"int8": 0}])
def test_a_model_without_multiply_accumulates_ran_in_no_precision(macs: dict[str, int]) -> None:
    assert Executed(macs, {}).fraction("int8") == 0.0


def test_the_twin_is_not_the_variant() -> None:
    assert len({"d1", twin_key("d1"), twin_key("d2")}) == 3


def machine(*instruction_sets: str) -> Environment:
    return Environment("d", "cpu", instruction_sets, 2, 8_000_000_000, 1, "Linux", "3.11", {})


@pytest.mark.parametrize(
    ("instruction_sets", "precision", "emulated"),
    [
        (("avx2", "f16c"), "bf16", True),
        (("avx2", "f16c"), "fp16", True),
        (("avx2", "amx_bf16"), "bf16", False),
        (("avx2", "avx512_bf16"), "fp16", True),
        (("asimd", "asimdhp"), "fp16", False),
        (("avx2",), "fp32", False),
        (("avx2",), "int8", False),
        # What the system does not tell is not held against it.
        ((), "bf16", False),
    ],
)
def test_a_half_precision_without_instructions_is_emulated(
    instruction_sets: tuple[str, ...], precision: Precision, emulated: bool
) -> None:
    assert machine(*instruction_sets).emulates(precision) is emulated


@pytest.mark.parametrize(
    ("positions", "top1"),
    [((0, 1), (0,)), ((0, 0), (1, 1)), ((-1, 0), (1, 1))],
    ids=["few", "twice", "negative"],
)
def test_each_image_has_a_position_and_a_class(positions: tuple[int, ...], top1: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="needs a position of its own"):
        Predictions(positions, top1, 0, trained=True)


@pytest.mark.parametrize("label", [-1, 2, 2**70])
def test_a_label_is_an_output(label: int) -> None:
    with pytest.raises(ValueError, match="of 2 classes"):
        ReportSplit("d", "data", ("cat", "dog"), (0, 1), search_labels=(label,))


@pytest.mark.parametrize("status", Status)
def test_a_status_has_a_predicate_for_a_sentence(status: Status) -> None:
    sentence = f"the baseline {status.explain(None)}"
    assert sentence.endswith(": no reason was recorded")
    assert "_" not in sentence
    assert status.explain("out of memory") == f"{status.predicate}: out of memory"


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"digest": "e", "versions": {"torch": "2.15"}, "os": "Linux 7"}, True),
        ({"cpu": "another"}, False),
        ({"instruction_sets": ("avx2",)}, False),
        ({"threads": 2}, False),
        ({"protocol": 3}, False),
        ({"isa_limits": {"ATEN_CPU_CAPABILITY": "avx2"}}, False),
    ],
)
def test_ratios_compare_on_the_same_machine_whatever_the_versions(
    change: dict[str, object], same: bool
) -> None:
    here = machine("avx2", "avx512_vnni")
    assert here.is_same_machine(replace(here, **change)) == same  # type: ignore[arg-type]

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from quant_explorer.core.difference import (
    Difference,
    describe_changes,
    facts_of_environment,
    facts_of_provenance,
    find_differences,
    find_least_differences,
)
from quant_explorer.core.host.environment import Environment
from quant_explorer.core.recipe import Provenance, Recipe, Step

HERE = Environment("here", "cpu", ("avx2",), 2, 8_000_000_000, 1, "Linux", "3.11", {"torch": "2.14"}, 1)
THERE = Environment(
    *("there", "another", ("avx2", "fma"), 4, 9_000_000_000, 2, "Darwin", "3.12", {"torch": "2.13"}, 0),
    isa_limits={"ONEDNN_MAX_CPU_ISA": "AVX2"},
)
RECIPE = Recipe("pruned", (Step("prune", 2),), "openvino")
SOURCE = Provenance("toy", "w", "c", "t", (("torch", "2.14"),), 2, ("VNNI",), "native", "p")


@pytest.mark.parametrize("name", [field.name for field in fields(Environment) if field.name != "digest"])
def test_whatever_makes_another_environment_is_named(name: str) -> None:
    other = replace(HERE, **{name: getattr(THERE, name)})
    (found,) = find_differences(facts_of_environment(other), facts_of_environment(HERE))
    assert " there, " in found.as_contrast()
    assert found.as_contrast().endswith(" here")


@pytest.mark.parametrize(
    ("earlier", "sentences"),
    [
        (replace(SOURCE, versions=(("torch", "2.13"),)), "torch 2.13 is now 2.14"),
        (replace(SOURCE, versions=()), "torch (not recorded) is now 2.14"),
        (replace(SOURCE, versions=(*SOURCE.versions, ("nncf", "3.4"))), "nncf 3.4 is gone"),
        (replace(SOURCE, lowering=0), "lowering of openvino (not recorded) is now 2"),
        (replace(SOURCE, cpu=()), "CPU features none is now VNNI"),
        (replace(SOURCE, weights="other"), "float weights changed"),
        (replace(SOURCE, calibration="other"), "data changed"),
        (replace(SOURCE, training="other"), "fine-tuning changed"),
        (replace(SOURCE, preprocessing=""), "preprocessing changed"),
    ],
)
def test_what_makes_another_artifact_of_the_same_recipe_is_named(earlier: Provenance, sentences: str) -> None:
    found = find_differences(facts_of_provenance(RECIPE, earlier), facts_of_provenance(RECIPE, SOURCE))
    assert describe_changes(found) == sentences


def test_a_technique_has_a_version_too() -> None:
    older = replace(RECIPE, steps=(Step("prune", 1),))
    found = find_differences(facts_of_provenance(older, SOURCE), facts_of_provenance(RECIPE, SOURCE))
    assert describe_changes(found) == "technique prune 1 is now 2"


def test_the_nearest_is_compared_with() -> None:
    now = {"a": "1", "b": "1"}
    assert find_least_differences([{"a": "0", "b": "0"}, {"a": "1", "b": "0"}], now) == (
        Difference("b", "0", "1"),
    )
    assert find_least_differences([], now) == ()


def test_what_is_not_recorded_here_is_reported() -> None:
    assert Difference("torch", "2.13", "").as_contrast() == "torch 2.13 there, not recorded here"

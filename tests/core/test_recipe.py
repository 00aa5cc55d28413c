from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant_explorer.core.recipe import ParameterValue, Provenance, Recipe, Step, digest_of

PLAIN = Recipe("fp32_baseline", (), "eager")
PLAIN_SOURCE = Provenance("small_cnn", "a" * 64, "b" * 64)
FULL = Recipe(
    "qat_int8",
    (
        Step("qat", 2, (("epochs", 3), ("learning_rate", 0.01))),
        Step("static", 1, (("granularity", "per_tensor"), ("narrow", True))),
    ),
    "eager",
    (("engine", "x86"),),
)
FULL_SOURCE = Provenance(
    "small_cnn", "a" * 64, "b" * 64, "c" * 64, (("torch", "2.14.1"), ("torchvision", "0.29.1"))
)

values: st.SearchStrategy[ParameterValue] = (
    st.text(max_size=5) | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
)


@pytest.mark.parametrize(
    ("recipe", "provenance", "golden"),
    [(PLAIN, PLAIN_SOURCE, "3260d957151e2f0e"), (FULL, FULL_SOURCE, "96fa45f056bdd266")],
)
def test_golden_digests(recipe: Recipe, provenance: Provenance, golden: str) -> None:
    """These name artifacts and results that exist. If one changes, every run folder is built again."""
    assert recipe.digest(provenance) == golden


def test_two_names_for_the_same_steps_are_the_same_artifact() -> None:
    renamed = replace(FULL, config="another")
    assert renamed.name == "another@eager"
    assert renamed.digest(FULL_SOURCE) == FULL.digest(FULL_SOURCE)


@pytest.mark.parametrize(
    "other",
    [
        replace(FULL, runtime="onnxruntime"),
        replace(FULL, options=(("engine", "qnnpack"),)),
        replace(FULL, options=()),
        replace(FULL, steps=FULL.steps[::-1]),
        replace(FULL, steps=FULL.steps[:1]),
        replace(FULL, steps=(replace(FULL.steps[0], version=3), FULL.steps[1])),
        replace(FULL, steps=(replace(FULL.steps[0], technique="ptq"), FULL.steps[1])),
        replace(FULL, steps=(replace(FULL.steps[0], parameters=(("epochs", 3),)), FULL.steps[1])),
    ],
)
def test_what_is_done_decides_the_digest(other: Recipe) -> None:
    assert other.digest(FULL_SOURCE) != FULL.digest(FULL_SOURCE)


@pytest.mark.parametrize(
    "other",
    [
        replace(FULL_SOURCE, model="resnet18"),
        replace(FULL_SOURCE, weights="d" * 64),
        replace(FULL_SOURCE, calibration="d" * 64),
        replace(FULL_SOURCE, training="d" * 64),
        replace(FULL_SOURCE, training=""),
        replace(FULL_SOURCE, versions=(("torch", "2.14.2"), ("torchvision", "0.29.1"))),
        replace(FULL_SOURCE, lowering=1),
        replace(FULL_SOURCE, cpu=("VNNI",)),
        replace(FULL_SOURCE, target="portable"),
        replace(FULL_SOURCE, preprocessing="d" * 16),
    ],
)
def test_what_it_is_done_to_decides_the_digest(other: Provenance) -> None:
    assert FULL.digest(other) != FULL.digest(FULL_SOURCE)


def test_the_order_in_which_options_are_written_does_not() -> None:
    forwards = replace(FULL, options=(("engine", "x86"), ("fuse", True)))
    backwards = replace(FULL, options=(("fuse", True), ("engine", "x86")))
    assert forwards.digest(FULL_SOURCE) == backwards.digest(FULL_SOURCE)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.dictionaries(st.text(max_size=5), values, max_size=5))
def test_digests_do_not_depend_on_the_order_of_keys(content: dict[str, ParameterValue]) -> None:
    digest = digest_of(content)
    assert digest_of(dict(reversed(content.items()))) == digest
    assert len(digest) == 16
    assert int(digest, 16) >= 0


def test_a_truth_value_is_not_a_number() -> None:
    assert len({digest_of({"bits": value}) for value in (True, 1, 1.5, "1")}) == 4


def test_refuses_a_parameter_that_is_no_number() -> None:
    recipe = replace(FULL, steps=(Step("qat", 1, (("learning_rate", float("nan")),)),))
    with pytest.raises(ValueError, match="JSON"):
        recipe.digest(FULL_SOURCE)

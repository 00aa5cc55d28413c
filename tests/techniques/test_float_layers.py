from collections import OrderedDict

import pytest
from torch import nn

from quant_explorer.core.contracts import Candidate, Workbench
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.techniques.dynamic_int8 import DynamicInt8
from quant_explorer.techniques.float_layers import find_float_layers
from quant_explorer.techniques.static_int8 import StaticInt8
from quant_explorer.testing.toys import ToyTraining

MODEL = nn.Sequential(
    OrderedDict(
        stem=nn.Conv2d(3, 4, 3),
        body=nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Conv2d(4, 4, 1))),
        head=nn.Linear(4, 2),
    )
)


@pytest.mark.parametrize(
    ("patterns", "layers"),
    [
        ([], ()),
        (["head"], ("head",)),
        (["body"], ("body.0", "body.2.0")),
        (["body.*"], ("body.0", "body.2.0")),
        (["*.0", "stem"], ("stem", "body.0", "body.2.0")),
        (["body.1"], ()),
    ],
)
def test_patterns_name_layers_with_weights_or_what_is_around_them(
    patterns: list[str], layers: tuple[str, ...]
) -> None:
    assert find_float_layers(MODEL, patterns) == layers


@pytest.mark.parametrize("technique", [StaticInt8(float_layers="stem,head"), DynamicInt8("stem,head")])
def test_int8_leaves_them_in_float(technique: StaticInt8 | DynamicInt8) -> None:
    candidate = Candidate(MODEL, QuantSpec())
    assert technique.unsupported(candidate) is None
    applied = technique.apply(candidate, Workbench((), ToyTraining()))
    assert applied.spec.float_layers == ("stem", "head")


def test_a_pattern_that_matches_nothing_is_a_reason_with_near_names() -> None:
    candidate = Candidate(MODEL, QuantSpec())
    assert StaticInt8(float_layers="stem,tail").unsupported(candidate) == (
        "--float-layer tail: there is no such layer. Allowed: stem, body.0, body.2.0, head."
    )
    reason = StaticInt8(float_layers="bodi.*").unsupported(candidate)
    assert reason is not None
    assert "--float-layer bodi.*: there is no such layer. Did you mean 'body'" in reason


def test_of_many_layers_the_first_are_listed() -> None:
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(30)))
    reason = StaticInt8(float_layers="tail").unsupported(Candidate(model, QuantSpec()))
    assert reason is not None
    assert reason.endswith("Allowed: " + ", ".join(map(str, range(20))) + " and 10 more.")

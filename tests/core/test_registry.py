from __future__ import annotations

import pytest

from quant_explorer.core.errors import UnknownNameError
from quant_explorer.core.registry import Registry, nearest, unknown_name_message

RUNTIMES = Registry("runtime", {"onnxruntime": 2, "eager": 1})


def test_is_a_mapping_in_the_order_given() -> None:
    assert list(RUNTIMES) == ["onnxruntime", "eager"]
    assert dict(RUNTIMES) == {"onnxruntime": 2, "eager": 1}
    assert len(RUNTIMES) == 2
    assert "eager" in RUNTIMES
    assert "egaer" not in RUNTIMES


def test_a_wrong_name_is_answered_with_the_nearest_and_all_that_are_allowed() -> None:
    with pytest.raises(UnknownNameError) as caught:
        RUNTIMES["egaer"]
    expected = "unknown runtime 'egaer'. Did you mean 'eager'? Allowed: eager, onnxruntime."
    assert str(caught.value) == expected


def test_nothing_is_suggested_for_a_name_like_no_other() -> None:
    with pytest.raises(UnknownNameError) as caught:
        RUNTIMES["zzz"]
    assert str(caught.value) == "unknown runtime 'zzz'. Allowed: eager, onnxruntime."


def test_what_is_registered_cannot_be_changed_from_outside() -> None:
    members = {"eager": 1}
    registry = Registry("runtime", members)
    members["late"] = 2
    assert list(registry) == ["eager"]
    assert not hasattr(registry, "__setitem__")


def test_nearest_is_none_without_candidates() -> None:
    assert nearest("eager", []) is None


def test_nearest_is_what_begins_like_it_before_what_is_spelled_like_it() -> None:
    assert nearest("static_int8", ["static_int8_per_tensor", "dynamic"]) == "static_int8_per_tensor"
    assert nearest("e", ["onnxruntime", "eager"]) == "eager"
    assert nearest("torch", ["porch", "torchscript"]) == "torchscript"
    assert nearest("", ["eager"]) is None


def test_of_many_names_those_that_are_spelled_like_it_are_listed() -> None:
    names = [f"network_{number}" for number in range(1000)]
    message = unknown_name_message("model", "netwrok_77", names)
    assert "Did you mean 'network_77'?" in message
    assert message.endswith("and others, 1000 in all.")
    assert message.count(",") < 30

"""The shipped conformance suite on every registered runtime."""

import inspect
import pkgutil
from importlib import import_module

import pytest

import quant_explorer.runtimes
from quant_explorer.runtimes import RUNTIMES
from quant_explorer.runtimes.eager import Eager, select_engine
from quant_explorer.runtimes.fx import activation_bits
from quant_explorer.runtimes.onnx_saturation import saturates
from quant_explorer.runtimes.onnxruntime import OnnxRuntime
from quant_explorer.testing.conformance_runtime import RuntimeConformance


@pytest.mark.slow
class TestEager(RuntimeConformance):
    kind = Eager
    activation_levels = 2 ** activation_bits(select_engine(""))[0] - 1


@pytest.mark.slow
class TestOnnxRuntime(RuntimeConformance):
    kind = OnnxRuntime
    weight_levels = 64.0 if saturates() else 127.0


def test_every_runtime_is_registered_and_conforms() -> None:
    found = set()
    for module in pkgutil.iter_modules(quant_explorer.runtimes.__path__):
        name = f"quant_explorer.runtimes.{module.name}"
        for _, kind in inspect.getmembers(import_module(name), inspect.isclass):
            if kind.__module__ == name and hasattr(kind, "lower") and hasattr(kind, "open"):
                found.add(kind)
    assert found == set(RUNTIMES.values())
    assert found == {suite.kind for suite in RuntimeConformance.__subclasses__() if suite.kind in found}

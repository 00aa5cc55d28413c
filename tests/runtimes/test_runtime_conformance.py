"""The shipped conformance suite on every registered runtime."""

import inspect
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import quant_explorer.runtimes
from quant_explorer.core.contracts import Batch
from quant_explorer.runtimes import (
    RUNTIMES,
    inductor_saturation,
    onnx_saturation,
    openvino_saturation,
)
from quant_explorer.runtimes.eager import Eager, select_engine
from quant_explorer.runtimes.executorch import ExecuTorch
from quant_explorer.runtimes.inductor import Inductor
from quant_explorer.runtimes.onnxruntime import OnnxRuntime
from quant_explorer.runtimes.openvino import OpenVino
from quant_explorer.runtimes.torch_engine import activation_bits
from quant_explorer.runtimes.torchscript import TorchScript
from quant_explorer.testing.conformance_runtime import RuntimeConformance
from tests.kept_objects import kept_objects


@pytest.mark.slow
class TestEager(RuntimeConformance):
    kind = Eager
    activation_levels = 2 ** activation_bits(select_engine(""))[0] - 1
    portable_activation_levels = 127 if select_engine("") != "qnnpack" else 255


@pytest.mark.slow
class TestOnnxRuntime(RuntimeConformance):
    kind = OnnxRuntime
    weight_levels = 64.0 if onnx_saturation.saturates() else 127.0
    portable_weight_levels = 64.0


@pytest.mark.slow
class TestExecuTorch(RuntimeConformance):
    kind = ExecuTorch
    # Each method costs seconds to lower; test_executorch.py has several in one file.
    options = (("batch_sizes", "1"),)
    weight_levels = 127.0
    smallest_activation_scale = 2.0**-12


@pytest.mark.slow
class TestTorchScript(RuntimeConformance):
    kind = TorchScript
    activation_levels = 2 ** activation_bits(select_engine(""))[0] - 1
    portable_activation_levels = 127 if select_engine("") != "qnnpack" else 255


@pytest.mark.slow
class TestOpenVino(RuntimeConformance):
    kind = OpenVino
    weight_levels = 63.5 if openvino_saturation.saturates() else 127.0
    portable_weight_levels = 63.5

    def linear_images(self) -> Batch:
        """The suite's with 0 on a step of their range: NNCF widens others until it is one."""
        images = super().linear_images()
        high = float(images.max())
        clipped: Batch = np.clip(images, -120 / 135 * high, high)
        return clipped


@pytest.mark.slow
class TestInductor(RuntimeConformance):
    kind = Inductor
    activation_levels = 127 if inductor_saturation.saturates() else 255
    portable_activation_levels = 127

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def keep_objects(cls, shared_folder: Path) -> Iterator[None]:
        with kept_objects(shared_folder):
            yield


def test_every_runtime_is_registered_and_conforms() -> None:
    found = set()
    for module in pkgutil.iter_modules(quant_explorer.runtimes.__path__):
        name = f"quant_explorer.runtimes.{module.name}"
        for _, kind in inspect.getmembers(import_module(name), inspect.isclass):
            if kind.__module__ == name and hasattr(kind, "lower") and hasattr(kind, "open"):
                found.add(kind)
    assert found == set(RUNTIMES.values())
    assert found == {suite.kind for suite in RuntimeConformance.__subclasses__() if suite.kind in found}

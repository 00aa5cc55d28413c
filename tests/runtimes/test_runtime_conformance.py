"""The shipped conformance suite on every registered runtime."""

import inspect
import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import quant_explorer.runtimes
import tests.runtimes
from quant_explorer.core.contracts import Batch, Candidate, Lowering, Runtime
from quant_explorer.core.measurement import Executed
from quant_explorer.runtimes import RUNTIMES
from quant_explorer.runtimes.eager.runtime import Eager, select_engine
from quant_explorer.runtimes.executorch.runtime import ExecuTorch
from quant_explorer.runtimes.inductor import saturation as inductor_saturation
from quant_explorer.runtimes.inductor.runtime import Inductor
from quant_explorer.runtimes.onnxruntime import saturation as onnx_saturation
from quant_explorer.runtimes.onnxruntime.runtime import OnnxRuntime
from quant_explorer.runtimes.openvino import saturation as openvino_saturation
from quant_explorer.runtimes.openvino.runtime import OpenVino
from quant_explorer.runtimes.torch_graph.engine import activation_bits
from quant_explorer.runtimes.torchscript.runtime import TorchScript
from quant_explorer.testing.conformance_runtime import RuntimeConformance
from quant_explorer.testing.lowered import SPECS, LoweredCandidate, OpenedCandidate
from tests.conftest import OPTIONS
from tests.kept_objects import kept_objects


class InThisProcess(RuntimeConformance):
    """For runtimes whose workers import PyTorch, for 2 s each; the toy network has some all the same."""

    def logits(self, runtime: Runtime, lowering: Lowering, folder: Path, images: Batch) -> Batch:
        return type(runtime)(**dict(lowering.options)).open(folder).run(images)


class SharedConformance(RuntimeConformance):
    """On the files that all processes of this test run share."""

    @pytest.fixture(scope="class")
    @classmethod
    def files(
        cls, candidate: Candidate, runtime: Runtime, lowered: Callable[[str, str], LoweredCandidate]
    ) -> LoweredCandidate:
        spec = next(name for name, spec in SPECS.items() if spec == candidate.spec)
        return lowered(runtime.name, spec)


@pytest.mark.slow
class TestEager(InThisProcess, SharedConformance):
    kind = Eager
    activation_levels = 2 ** activation_bits(select_engine(""))[0] - 1
    portable_activation_levels = 127 if select_engine("") != "qnnpack" else 255


@pytest.mark.slow
class TestOnnxRuntime(SharedConformance):
    kind = OnnxRuntime
    weight_levels = 64.0 if onnx_saturation.saturates() else 127.0
    portable_weight_levels = 64.0


@pytest.mark.slow
class TestExecuTorch(InThisProcess, SharedConformance):
    kind = ExecuTorch
    options = tuple(OPTIONS["executorch"].items())
    weight_levels = 127.0
    smallest_activation_scale = 2.0**-12

    def executed(self, opened: OpenedCandidate, batch: Batch) -> Executed:
        """The suite's for one spec: each worker would load the exporter for 5 s, which is loaded here."""
        if opened.spec == "fp32":
            return super().executed(opened, batch)
        return ExecuTorch().open(opened.folder).executed(batch)


@pytest.mark.slow
class TestTorchScript(InThisProcess, SharedConformance):
    kind = TorchScript
    activation_levels = 2 ** activation_bits(select_engine(""))[0] - 1
    portable_activation_levels = 127 if select_engine("") != "qnnpack" else 255


@pytest.mark.slow
class TestOpenVino(SharedConformance):
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
class TestInductor(InThisProcess):
    """On files of this process: what PyTorch has computed in INT8 before decides how oneDNN packs weights."""

    kind = Inductor
    activation_levels = 127 if inductor_saturation.saturates() else 255
    portable_activation_levels = 127

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def keep_objects(cls, shared_folder: Path) -> Iterator[None]:
        with kept_objects(shared_folder):
            yield


def descendants(suite: type[RuntimeConformance]) -> Iterator[type[RuntimeConformance]]:
    for inherited in suite.__subclasses__():
        yield inherited
        yield from descendants(inherited)


def test_every_runtime_is_registered_and_conforms() -> None:
    found = set()
    for module in pkgutil.walk_packages(quant_explorer.runtimes.__path__, "quant_explorer.runtimes."):
        for _, kind in inspect.getmembers(import_module(module.name), inspect.isclass):
            if kind.__module__ == module.name and hasattr(kind, "lower") and hasattr(kind, "open"):
                found.add(kind)
    assert found == set(RUNTIMES.values())
    # A runtime may have its suite in a file of its own.
    for module in pkgutil.walk_packages(tests.runtimes.__path__, "tests.runtimes."):
        import_module(module.name)
    assert found <= {suite.kind for suite in descendants(RuntimeConformance) if hasattr(suite, "kind")}

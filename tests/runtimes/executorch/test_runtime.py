"""ExecuTorch: what is delegated, what really ran, several methods in one file, and what it must refuse."""

from __future__ import annotations

import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import get_args
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import nn

from quant_explorer.core.contracts import Batch, Candidate, Lowering
from quant_explorer.core.errors import SettingsError, UnsupportedError
from quant_explorer.core.measurement import Executed
from quant_explorer.core.quantspec import ActivationRange, Observer, QuantSpec
from quant_explorer.runtimes.executorch.runtime import ExecuTorch, ExecuTorchSession, split
from quant_explorer.testing.lowered import LoweredCandidate
from quant_explorer.testing.reference import float_logits
from quant_explorer.testing.toys import TOY_CONVOLUTION_MACS, TOY_LINEAR_MACS, toy_batches, toy_model
from quant_explorer.testing.zoo import ZOO

pytest.importorskip("executorch")
pytest.importorskip("torchao")

STATIC = QuantSpec("int8", "static")
FIRST_CONVOLUTION_MACS = 8 * (16 * 16) * (3 * 3 * 3)
TOY_MACS = TOY_CONVOLUTION_MACS + TOY_LINEAR_MACS


def lower_single(candidate: Candidate, folder: Path, batches: tuple[Batch, ...] = ()) -> Lowering:
    return ExecuTorch(batch_sizes="1").lower(candidate, batches or toy_batches(), folder)


def open_here(folder: Path) -> ExecuTorchSession:
    runtime = ExecuTorch()
    runtime.load_libraries(1)
    return runtime.open(folder)


def executed_single(folder: Path, batch: Batch) -> Executed:
    return open_here(folder).executed(batch[:1])


class TestUnsupported:
    @pytest.mark.parametrize(
        ("spec", "words"),
        [
            (QuantSpec("bf16"), "no BF16 convolutions"),
            (QuantSpec("int8", "float"), "ask for static or dynamic"),
            (QuantSpec("int8", "dynamic", "per_tensor"), "ask for per_channel"),
        ],
    )
    def test_names_what_to_ask_for(self, spec: QuantSpec, words: str) -> None:
        assert words in (ExecuTorch().unsupported(Candidate(toy_model(), spec)) or "")

    @pytest.mark.parametrize(
        "spec",
        [
            QuantSpec(),
            QuantSpec("fp16"),
            STATIC,
            QuantSpec("int8", "static", "per_tensor"),
            QuantSpec("int8", "dynamic"),
        ],
    )
    def test_the_rest_is_lowered(self, spec: QuantSpec) -> None:
        assert ExecuTorch().unsupported(Candidate(toy_model(), spec)) is None

    @pytest.mark.parametrize("sizes", ["", "one", "1,0", "8;32", "-1"])
    def test_batch_sizes_that_are_none(self, sizes: str, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="batch_sizes"):
            ExecuTorch(sizes).lower(Candidate(toy_model(), QuantSpec()), toy_batches(), tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_a_layer_that_does_not_exist(self, tmp_path: Path) -> None:
        spec = QuantSpec("int8", "static", float_layers=("4", "head"))
        with pytest.raises(UnsupportedError, match="no layer named head"):
            lower_single(Candidate(toy_model(), spec), tmp_path)

    @pytest.mark.parametrize(
        ("spec", "reason"),
        [
            (QuantSpec(), "does not run it .*convolution"),
            (QuantSpec("int8", "static"), r"no INT8 kernel for aten\.convolution.*\[2, 1, 3, 3, 3\]"),
        ],
    )
    def test_a_layer_that_no_kernel_takes(self, spec: QuantSpec, reason: str, tmp_path: Path) -> None:
        model = nn.Sequential(nn.Unflatten(1, (1, 3)), nn.Conv3d(1, 2, 3, padding=1), nn.Flatten())
        with pytest.raises(UnsupportedError, match=reason):
            lower_single(Candidate(model.eval(), spec), tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_grid_sample_between_int8_layers(self, tmp_path: Path) -> None:
        specimen = ZOO["spatial_transformer"]
        spec = QuantSpec("int8", "static", "per_channel")
        with pytest.raises(UnsupportedError, match=r"grid_sample \(of layer '1'\)"):
            ExecuTorch("1").lower(Candidate(specimen.model(), spec), [specimen.images(2)], tmp_path)

    def test_an_operator_without_a_kernel(self, tmp_path: Path) -> None:
        class Determinant(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                out: torch.Tensor = torch.linalg.det(x)
                return out

        with pytest.raises(UnsupportedError, match=r"no kernel for it"):
            lower_single(Candidate(Determinant().eval(), QuantSpec()), tmp_path)
        assert list(tmp_path.iterdir()) == []


class TestSplit:
    @pytest.mark.parametrize(
        ("count", "parts"),
        [(1, [1]), (4, [4]), (7, [4, 1, 1, 1]), (32, [32]), (71, [32, 32, 4, 1, 1, 1]), (0, [])],
    )
    def test_largest_first(self, count: int, parts: list[int]) -> None:
        assert split(count, (32, 4, 1)) == parts


class FakeMethod:
    """Reads the memory it was given once and writes to its own, as a method of a program does."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.images = torch.empty(0)
        self.sums = torch.zeros(size, 1)

    def set_inputs(self, inputs: tuple[torch.Tensor]) -> None:
        (self.images,) = inputs
        assert len(self.images) == self.size

    def execute(self) -> None:
        self.sums.copy_(self.images.flatten(1).sum(1, keepdim=True))

    def get_outputs(self, *, clone_outputs: bool) -> list[torch.Tensor]:
        assert not clone_outputs
        return [self.sums]


class FakeMethodMeta:
    def __init__(self, size: int) -> None:
        self.size = size

    def input_tensor_meta(self, index: int) -> FakeMethodMeta:
        return self

    def sizes(self) -> tuple[int, ...]:
        return (self.size, 3, 16, 16)

    def is_memory_planned(self) -> bool:
        return False


class FakeProgram:
    """The part of the binding's program that a session uses; it keeps what was loaded, weakly."""

    sizes = (1, 32, 8)

    def __init__(self) -> None:
        self.loaded: list[weakref.ref[FakeMethod]] = []

    def num_methods(self) -> int:
        return len(self.sizes)

    def get_method_name(self, number: int) -> str:
        return f"method {self.sizes[number]}"

    def method_meta(self, name: str) -> FakeMethodMeta:
        return FakeMethodMeta(int(name.split()[1]))

    def load_method(self, name: str) -> FakeMethod:
        assert self.alive() == [], "two methods in memory"
        method = FakeMethod(self.method_meta(name).size)
        self.loaded.append(weakref.ref(method))
        return method

    def alive(self) -> list[int]:
        return [method.size for method in (reference() for reference in self.loaded) if method is not None]


class TestMethods:
    def test_only_the_one_in_use_is_in_memory(self) -> None:
        program = FakeProgram()
        session = ExecuTorchSession(Path("none.pte"), program)
        assert program.alive() == []
        images = toy_batches(size=9)[0]
        session.run(images[:1])
        session.run(images[1:2])
        assert (program.alive(), len(program.loaded)) == ([1], 1)
        session.run(images)
        assert (program.alive(), len(program.loaded)) == ([1], 3)
        session.run(images[:8])
        assert program.alive() == [8]

    @pytest.mark.parametrize("count", [1, 7, 8, 9, 75])
    def test_images_keep_their_order(self, count: int) -> None:
        images = toy_batches(size=count)[0]
        logits = ExecuTorchSession(Path("none.pte"), FakeProgram()).run(images)
        np.testing.assert_allclose(logits[:, 0], images.reshape(count, -1).sum(1), rtol=1e-4, atol=1e-4)

    @pytest.mark.slow
    def test_share_one_copy_of_the_weights(self, tmp_path: Path) -> None:
        """And give the same logits, whichever method an image goes through."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            model = nn.Sequential(nn.Flatten(), nn.Linear(768, 64)).eval()
        lowering = ExecuTorch("4").lower(Candidate(model, QuantSpec()), toy_batches(), tmp_path)
        assert any("one method for each batch size (1, 4)" in note for note in lowering.notes)
        (file,) = tmp_path.iterdir()
        weights = 4 * 768 * 64
        assert weights < file.stat().st_size < 1.1 * weights
        (images,) = toy_batches(count=1, size=7)
        session = open_here(tmp_path)
        np.testing.assert_allclose(session.run(images), float_logits(model, images), rtol=0, atol=1e-5)
        executed = session.executed(images)
        assert executed.macs == {"fp32": 768 * 64}
        # Once for four images, three times for one.
        assert executed.kernels["Fully Connected (NC, F32) GEMM"] == 4


@pytest.mark.slow
class TestStatic:
    """On the artifact that other tests of the runtimes share."""

    @pytest.fixture
    def static(self, lowered: Callable[[str, str], LoweredCandidate]) -> LoweredCandidate:
        return lowered("executorch", "static_int8_per_channel")

    def test_every_layer_runs_in_an_int8_kernel(self, static: LoweredCandidate) -> None:
        """In the profile of the run itself, beside the types in the graph."""
        executed = executed_single(static.folder, toy_batches()[0])
        assert executed.macs == {"int8": TOY_MACS}
        layers = {
            name: calls
            for name, calls in executed.kernels.items()
            if name.startswith(("Convolution", "Fully Connected", "native_call"))
        }
        assert layers == {
            "Convolution (NHWC, QC8) IGEMM": 2,
            "Fully Connected (NC, QS8, QC8W) GEMM": 1,
        }
        assert "XNNPACK runs the whole graph" in static.lowering.notes

    def test_notes_say_what_the_reader_must_know(self, static: LoweredCandidate) -> None:
        notes = " ".join(static.lowering.notes)
        assert "XNNPACKQuantizer" in notes
        assert "PyTorch" in notes

    def test_strides_are_looked_at(self, static: LoweredCandidate) -> None:
        (images,) = toy_batches(count=1)
        session = open_here(static.folder)
        channels_last = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(session.run(channels_last), session.run(images))

    @pytest.mark.parametrize("shape", [(1, 3, 16, 15), (1, 1, 16, 16), (3, 16, 16), (0, 3, 16, 16)])
    def test_images_of_another_shape_are_refused(
        self, static: LoweredCandidate, shape: tuple[int, ...]
    ) -> None:
        """With a method in memory and without."""
        session = open_here(static.folder)
        (images,) = toy_batches(count=1)
        for _ in range(2):
            with pytest.raises(ValueError, match=r"the program takes \(3, 16, 16\)|at least one"):
                session.run(np.zeros(shape, np.float32))
            assert np.isfinite(session.run(images[:1])).all()

    def test_logits_are_the_callers(self, static: LoweredCandidate) -> None:
        """Not the memory that the next call writes to."""
        (images,) = toy_batches(count=1, size=2)
        session = open_here(static.folder)
        first = session.run(images[:1])
        kept = first.copy()
        assert (session.run(images[1:]) != kept).any()
        np.testing.assert_array_equal(first, kept)

    def test_a_program_with_memory_of_its_own_for_images_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As earlier versions wrote them: only the first images would reach it."""
        from executorch.exir.passes import MemoryPlanningPass

        from quant_explorer.runtimes.executorch import lowering as xnnpack

        default = MemoryPlanningPass()
        monkeypatch.setattr(xnnpack, "MemoryPlanningPass", lambda alloc_graph_input: default)
        lower_single(Candidate(toy_model(), QuantSpec()), tmp_path)
        with pytest.raises(ValueError, match=r"model\.pte: .* build it again"):
            open_here(tmp_path).run(toy_batches()[0][:1])

    def test_a_worker_imports_the_binding_alone(self, static: LoweredCandidate) -> None:
        """The exporter and the quantizer cost seconds and 200 MB, and no deployment has them."""
        program = f"""
import sys
from pathlib import Path
import numpy as np
from quant_explorer.runtimes.executorch.runtime import ExecuTorch
runtime = ExecuTorch()
runtime.load_libraries(1)
runtime.open(Path({str(static.folder)!r})).run(np.zeros((1, 3, 16, 16), np.float32))
loaded = {{"executorch.exir", "torchao", "torchvision", "onnxruntime", "openvino"}} & sys.modules.keys()
assert not loaded, loaded
"""
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


@pytest.fixture
def without_xnnpack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave convolutions and products to ExecuTorch's own kernels."""
    from executorch.backends.xnnpack.partition import config
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

    from quant_explorer.runtimes.executorch import lowering as xnnpack

    left = {config.gemm_configs.ConvolutionConfig, config.generic_node_configs.BMMConfig}
    taken = [kind for kind in config.ALL_PARTITIONER_CONFIGS if kind not in left]
    monkeypatch.setattr(xnnpack, "XnnpackPartitioner", lambda configs: XnnpackPartitioner(configs=taken))


@pytest.mark.slow
class TestInt8ThatRanFloat:
    def test_a_quantizer_that_did_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from quant_explorer.runtimes.torch_graph import pt2e

        monkeypatch.setattr(pt2e, "quantize", lambda program, calibration, quantizer: pt2e.graph_of(program))
        lower_single(Candidate(toy_model(), STATIC), tmp_path)
        executed = executed_single(tmp_path, toy_batches()[0])
        assert executed.macs == {"fp32": TOY_MACS}
        assert executed.kernels["Convolution (NHWC, F32) IGEMM"] == 2

    def test_convolutions_that_were_not_delegated(self, tmp_path: Path, without_xnnpack: None) -> None:
        """They run between conversions, in a portable kernel."""
        spec = QuantSpec("int8", "static", "per_tensor")
        lowering = lower_single(Candidate(toy_model(), spec), tmp_path)
        executed = executed_single(tmp_path, toy_batches()[0])
        assert executed.macs == {"fp32": TOY_CONVOLUTION_MACS, "int8": TOY_LINEAR_MACS}
        assert executed.kernels["native_call_convolution.out"] == 2
        outside = next(note for note in lowering.notes if note.startswith("not taken by XNNPACK"))
        assert "aten.convolution.default x 2" in outside


class Layers(nn.Module):
    """Every kind of layer that is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.strided = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(8, 16, 3, groups=8)
        self.grouped = nn.Conv2d(16, 8, 1, groups=2)
        self.transposed = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.rows = nn.Linear(12, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.transposed(self.grouped(self.depthwise(self.strided(x))))
        rows = self.rows(maps).flatten(2)
        products: torch.Tensor = torch.bmm(rows, rows.transpose(1, 2))
        return products.flatten(1)


# Output elements times weights of a filter; of the transposed one, input elements; of products, the summed.
LAYERS_MACS = (
    8 * 8 * 8 * (3 * 3 * 3)
    + 16 * 6 * 6 * (1 * 3 * 3)
    + 8 * 6 * 6 * 8
    + 8 * 6 * 6 * (4 * 2 * 2)
    + 4 * 12 * 6 * 12
    + 4 * 4 * 72
)


@pytest.mark.slow
class TestCounts:
    def test_of_layers_in_xnnpack(self, tmp_path: Path) -> None:
        assert not any(name.startswith("native_call_conv") for name in self.check(tmp_path).kernels)

    def test_of_layers_outside(self, tmp_path: Path, without_xnnpack: None) -> None:
        kernels = self.check(tmp_path).kernels
        # Two images, one after the other.
        assert kernels["native_call_convolution.out"] == 2 * 4
        assert kernels["native_call_bmm.out"] == 2 * 1

    def check(self, folder: Path) -> Executed:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            model = Layers().eval()
        lower_single(Candidate(model, QuantSpec()), folder)
        (images,) = toy_batches(count=1, size=2)
        session = open_here(folder)
        expected = float_logits(model, images)
        np.testing.assert_allclose(session.run(images), expected, rtol=0, atol=1e-4 * np.abs(expected).max())
        executed = session.executed(images)
        assert executed.macs == {"fp32": LAYERS_MACS}
        return executed


@pytest.mark.slow
def test_float_layers_stay_float(tmp_path: Path) -> None:
    spec = QuantSpec("int8", "static", float_layers=("0",))
    lower_single(Candidate(toy_model(), spec), tmp_path)
    assert executed_single(tmp_path, toy_batches()[0]).macs == {
        "fp32": FIRST_CONVOLUTION_MACS,
        "int8": TOY_MACS - FIRST_CONVOLUTION_MACS,
    }


@pytest.mark.slow
def test_fp16_rounds_to_eleven_bits(lowered: Callable[[str, str], LoweredCandidate]) -> None:
    half, (images,) = lowered("executorch", "fp16"), toy_batches(count=1)
    session = open_here(half.folder)
    logits, expected = session.run(images), float_logits(half.candidate.model, images)
    assert logits.dtype == np.float32
    error = np.abs(logits - expected).max() / np.abs(expected).max()
    # A few roundings of 2^-11 each: more than float32 would have, less than bfloat16 must have.
    assert 2**-16 < error < 2**-8
    executed = session.executed(images[:1])
    assert executed.macs == {"fp16": TOY_MACS}
    assert executed.kernels["Convolution (NHWC, F16) IGEMM"] == 2
    assert any("in FP32" in note for note in half.lowering.notes)


class TestPrepare:
    def test_the_observer_asked_for_sets_the_scale_of_one_export(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """MinMax keeps the whole range of the input; the histogram looks for one with less error."""
        from quant_explorer.runtimes.executorch import lowering as xnnpack

        exported = Mock(wraps=torch.export.export)
        monkeypatch.setattr(torch.export, "export", exported)
        model, batches = toy_model(), toy_batches()
        xnnpack.prepare(Candidate(model, QuantSpec()), batches)
        whole = max(float(batch.max()) for batch in batches) - min(float(batch.min()) for batch in batches)
        for observer in get_args(Observer):
            spec = QuantSpec("int8", "static", observer=observer)
            graph = xnnpack.prepare(Candidate(model, spec), batches).graph
            quantize = next(node for node in graph.nodes if "quantize_per_tensor" in str(node.target))
            assert (float(quantize.args[1]) == pytest.approx(whole / 255, rel=1e-5)) == (observer == "minmax")
        assert [call.args[0] for call in exported.call_args_list].count(model) == 1

    def test_ranges_learned_in_training_are_reported_as_unused(self) -> None:
        from quant_explorer.runtimes.executorch import lowering as xnnpack

        ranges = (ActivationRange("relu", 0.0, 1.0),)
        notes = xnnpack.describe_spec(QuantSpec("int8", "static", activation_ranges=ranges))
        assert any("not used" in note for note in notes)
        assert not any("not used" in note for note in xnnpack.describe_spec(STATIC))


def test_gelu_by_tanh_is_not_taken_for_the_exact_function(tmp_path: Path) -> None:
    """They differ by up to 4.7e-4, and XNNPACK has the exact function alone."""
    model = nn.Sequential(nn.GELU(approximate="tanh"), nn.Flatten())
    images = np.linspace(-3, 3, 48, dtype=np.float32).reshape(1, 3, 4, 4)
    lower_single(Candidate(model.eval(), QuantSpec()), tmp_path, (images,))
    np.testing.assert_allclose(open_here(tmp_path).run(images), float_logits(model, images), atol=1e-5)


@pytest.mark.parametrize("name", ["shared_norms", "batch_norm_tokens"])
def test_batch_norms_are_folded_into_their_own_layers(name: str, tmp_path: Path) -> None:
    """XNNPACK's pass gave all calls the weights of the last one, and took tokens for the layer's channels."""
    specimen = ZOO[name]
    model, images = specimen.model(), specimen.images(2, seed=1)
    lower_single(Candidate(model, QuantSpec()), tmp_path, (images,))
    np.testing.assert_allclose(open_here(tmp_path).run(images), float_logits(model, images), atol=1e-4)

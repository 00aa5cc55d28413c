"""The onnxruntime runtime: what it writes, in which precision it runs, and what it refuses."""

import contextvars
import dataclasses
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from torch import nn

from quant_explorer.core.contracts import Batch, Candidate, Lowering
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.core.host import packages
from quant_explorer.core.quantspec import ActivationRange, Granularity, Observer, QuantSpec
from quant_explorer.pipeline.measure import LEAST_STATIC_INT8_FRACTION
from quant_explorer.runtimes.onnx_graph import export as onnx_export
from quant_explorer.runtimes.onnxruntime import saturation as onnx_saturation
from quant_explorer.runtimes.onnxruntime.runtime import OnnxRuntime, session_options
from quant_explorer.testing.reference import float_logits
from quant_explorer.testing.toys import (
    TOY_CONVOLUTION_MACS,
    TOY_LINEAR_MACS,
    toy_batches,
    toy_linear_model,
    toy_model,
)
from quant_explorer.testing.zoo import ZOO

BATCHES = toy_batches()
STATIC = QuantSpec("int8", "static", observer="minmax")
DYNAMIC = QuantSpec("int8", "dynamic")
SPECS = {
    "fp32": QuantSpec(),
    "fp16": QuantSpec("fp16"),
    "dynamic": DYNAMIC,
    "per tensor": QuantSpec("int8", "static", "per_tensor", "minmax"),
    "per channel": STATIC,
}
ON_X86 = platform.machine().lower() in ("x86_64", "amd64")

ALONE = """
import sys
sys.modules.update(dict.fromkeys(("torch", "torchvision", "onnx", "onnxscript")))
import numpy
from pathlib import Path
from quant_explorer.runtimes.onnxruntime.runtime import OnnxRuntime
OnnxRuntime().load_libraries(1)
session = OnnxRuntime().open(Path("."))
images = numpy.ones((2, 3, 16, 16), numpy.float32)
assert session.run(images).shape == (2, 4)
assert session.executed(images).kernels
"""


@dataclass(frozen=True)
class LoweredFolder:
    folder: Path
    lowering: Lowering

    @property
    def graph(self) -> onnx.GraphProto:
        return onnx.load(self.folder / "model.onnx").graph

    def tensor(self, name: str) -> NDArray[np.generic]:
        found = [item for item in self.graph.initializer if item.name == name]
        return np.asarray(numpy_helper.to_array(found[0]))


class Switched(nn.Module):
    """With an activation that ONNX Runtime spells out, and a layer that is called twice on 3 dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)
        self.switch = nn.Hardswish()
        self.again = nn.Linear(16, 16)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(128, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.switch(self.conv(x)).flatten(2)
        out: torch.Tensor = self.head(self.again(self.again(x)))
        return out


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(48, 48)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(self.layer(x.flatten(1)))
        return out


class Branch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :4] if x.sum() > 0 else x.flatten(1)[:, 4:8]


def lower(
    model: nn.Module, spec: QuantSpec, folder: Path, batches: tuple[Batch, ...] = BATCHES
) -> LoweredFolder:
    return LoweredFolder(folder, OnnxRuntime().lower(Candidate(model, spec), batches, folder))


@pytest.fixture(scope="module")
def toy() -> nn.Module:
    """Shared, so that it is exported once."""
    return toy_model()


@pytest.fixture(scope="module", params=SPECS)
def lowered(
    request: pytest.FixtureRequest, toy: nn.Module, tmp_path_factory: pytest.TempPathFactory
) -> LoweredFolder:
    return lower(toy, SPECS[request.param], tmp_path_factory.mktemp(request.param.replace(" ", "_")))


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (QuantSpec("bf16"), "no BF16 kernels for the CPU; fp16 is"),
        (QuantSpec("int8", "float"), "not INT8 weights alone"),
        (QuantSpec("int8", "dynamic", float_layers=("9",)), "no nn.Linear layer is left"),
        *((spec, None) for spec in SPECS.values()),
        (QuantSpec("int8", "dynamic", float_layers=("0", "90")), None),
    ],
)
def test_unsupported(spec: QuantSpec, reason: str | None, toy: nn.Module) -> None:
    found = OnnxRuntime().unsupported(Candidate(toy, spec))
    assert found is None if reason is None else found is not None and reason in found


def test_missing_libraries_are_named_and_so_are_their_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = OnnxRuntime()
    assert runtime.unavailable() is None
    installed = runtime.versions()
    assert installed.keys() == {"onnx", "onnx-ir", "onnxruntime", "onnxscript", "torch"}
    assert installed["onnxruntime"] == onnxruntime.__version__

    monkeypatch.setattr(packages, "installed_version", lambda package: None)
    reason = runtime.unavailable()
    assert reason is not None
    assert "pip install 'quant-explorer[onnxruntime]'" in reason
    assert set(runtime.versions().values()) == {"none"}


def test_one_file_that_is_the_same_every_time(lowered: LoweredFolder, toy: nn.Module, tmp_path: Path) -> None:
    (file,) = lowered.folder.iterdir()
    assert file.name == "model.onnx"
    data = file.read_bytes()
    # pytest numbers the folders it makes.
    name = max((spec for spec in SPECS if lowered.folder.name.startswith(spec.replace(" ", "_"))), key=len)
    spec = SPECS[name]
    lower(toy, spec, tmp_path)
    assert (tmp_path / "model.onnx").read_bytes() == data
    assert str(lowered.folder).encode() not in data


def test_all_configurations_share_one_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    export = onnx_export._export

    def counted(model: nn.Module, example: Batch) -> onnx.ModelProto:
        calls.append(model)
        return export(model, example)

    monkeypatch.setattr(onnx_export, "_export", counted)
    model = toy_linear_model()
    batches = toy_batches((3, 4, 4))
    for spec in SPECS.values():
        lower(model, spec, tmp_path, batches)
    assert calls == [model]


def test_inputs_and_outputs_are_float32(lowered: LoweredFolder) -> None:
    for value in (*lowered.graph.input, *lowered.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
    assert [value.name for value in lowered.graph.input] == ["images"]
    assert [value.name for value in lowered.graph.output] == ["logits"]


def test_worker_needs_onnxruntime_alone(lowered: LoweredFolder) -> None:
    subprocess.run([sys.executable, "-c", ALONE], check=True, cwd=lowered.folder)


def test_no_operator_is_left_between_float_and_int8(toy: nn.Module, tmp_path: Path) -> None:
    """Convolutions, linear layer and max pool in INT8; the mean, which has no such kernel, in float."""
    lower(toy, STATIC, tmp_path)
    executed = OnnxRuntime().open(tmp_path).executed(BATCHES[0])
    assert executed.macs == {"int8": TOY_CONVOLUTION_MACS + TOY_LINEAR_MACS}
    assert {name: executed.kernels[name] for name in ("QLinearConv", "NhwcMaxPool", "QGemm")} == {
        "QLinearConv": 2,
        "NhwcMaxPool": 1,
        "QGemm": 1,
    }
    assert executed.kernels["DequantizeLinear"] == executed.kernels["QuantizeLinear"] == 2


def test_half_is_stored_in_half_and_named_by_what_it_ran_in(toy: nn.Module, tmp_path: Path) -> None:
    half = lower(toy, SPECS["fp16"], tmp_path)
    kinds = {item.name: item.data_type for item in half.graph.initializer}
    assert {kinds[name] for name in ("0.weight", "4.weight", "9.weight", "9.bias")} == {TensorProto.FLOAT16}
    session = OnnxRuntime().open(tmp_path)
    expected = float_logits(toy, BATCHES[0])
    error = np.abs(session.run(BATCHES[0]) - expected).max()
    assert 0 < error < 2**-10 * np.abs(expected).max() * 4
    if ON_X86:
        assert any("computed in FP32" in note for note in half.lowering.notes)
        assert session.executed(BATCHES[0]).macs == {"fp32": TOY_CONVOLUTION_MACS + TOY_LINEAR_MACS}


class ExchangedAxes(nn.Module):
    """A linear layer over what has its leading axes exchanged, as in nn.MultiheadAttention."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.head = nn.Linear(16, 8), nn.Linear(24, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        projected = self.project(x.flatten(2).transpose(0, 1)).transpose(0, 1)
        logits: torch.Tensor = self.head(projected.flatten(1))
        return logits


def test_half_opens_where_leading_axes_are_exchanged_before_a_layer(tmp_path: Path) -> None:
    """In a process of its own, which ONNX Runtime would end."""
    half = lower(ExchangedAxes().eval(), SPECS["fp16"], tmp_path, toy_batches((3, 4, 4)))
    open_file = "import onnxruntime; onnxruntime.InferenceSession('model.onnx')"
    subprocess.run([sys.executable, "-c", open_file], check=True, cwd=tmp_path)
    assert {item.data_type for item in half.graph.initializer if len(item.dims) == 2} == {TensorProto.FLOAT16}


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_dynamic_int8_is_its_formula(granularity: Granularity, tmp_path: Path) -> None:
    """One step of an input may fall to the other side where it is halfway; nothing else may differ."""
    model, batches = toy_linear_model(), toy_batches((3, 4, 4))
    lower(model, QuantSpec("int8", "dynamic", granularity), tmp_path, batches)
    features = batches[0].reshape(len(batches[0]), -1).astype(np.float64)
    state = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    weight, bias = state["1.weight"], state["1.bias"]
    axis = 1 if granularity == "per_channel" else None
    levels = 64 if onnx_saturation.saturates() else 127
    scale = np.abs(weight).max(axis=axis, keepdims=True) / levels
    step = (features.max() - features.min()) / 255
    zero = np.rint(-features.min() / step)
    steps = np.clip(np.rint(features / step) + zero, 0, 255) - zero
    expected = (steps * step) @ (np.rint(weight / scale) * scale).T + bias
    logits = OnnxRuntime().open(tmp_path).run(batches[0])
    assert np.abs(logits - expected).max() <= 1.01 * step * np.abs(weight).max()
    assert np.median(np.abs(logits - expected)) < 1e-5


@pytest.mark.parametrize(
    ("spec", "layer", "macs"),
    [
        (STATIC, "4", 16 * 8 * 8 * 8 * 9),
        (STATIC, "9", TOY_LINEAR_MACS),
        (SPECS["per tensor"], "0", 8 * 16 * 16 * 3 * 9),
    ],
)
def test_float_layers_run_in_float(
    spec: QuantSpec, layer: str, macs: int, toy: nn.Module, tmp_path: Path
) -> None:
    kept = QuantSpec(spec.precision, spec.activations, spec.granularity, spec.observer, (layer,))
    lower(toy, kept, tmp_path)
    assert OnnxRuntime().open(tmp_path).executed(BATCHES[0]).macs == {
        "fp32": macs,
        "int8": TOY_CONVOLUTION_MACS + TOY_LINEAR_MACS - macs,
    }


def test_float_layers_keep_their_precision_in_half_and_dynamic(toy: nn.Module, tmp_path: Path) -> None:
    half = lower(toy, QuantSpec("fp16", float_layers=("4",)), tmp_path)
    assert half.tensor("4.weight").dtype == np.float32
    assert half.tensor("0.weight").dtype == np.float16
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    batches = toy_batches((3, 4, 4))
    lower(model, QuantSpec("int8", "dynamic", float_layers=("1",)), tmp_path, batches)
    macs = OnnxRuntime().open(tmp_path).executed(batches[0]).macs
    assert macs == {"fp32": 48 * 16, "int8": 16 * 4}


def test_layers_are_found_where_a_function_was_spelled_out(tmp_path: Path) -> None:
    """HardSwish becomes a HardSigmoid and a product, which is quantized unless the layer is to stay float."""
    model, batches = Switched().eval(), toy_batches((3, 4, 4))
    kernels = []
    for spec in (STATIC, QuantSpec("int8", "static", observer="minmax", float_layers=("switch",))):
        lower(model, spec, tmp_path, batches)
        session = OnnxRuntime().open(tmp_path)
        executed = session.executed(batches[0])
        assert executed.macs.keys() == {"int8"}
        kernels.append(executed.kernels)
        expected = float_logits(model, batches[0])
        error = session.run(batches[0]) - expected
        assert 10 * np.log10((expected**2).sum() / (error**2).sum()) > 20
    assert [kernel.get("QLinearMul", 0) for kernel in kernels] == [1, 0]


def test_a_layer_that_is_not_in_the_graph_is_refused(toy: nn.Module, tmp_path: Path) -> None:
    """The batch norm was folded; ignoring the wish would be silent."""
    for spec in (
        QuantSpec("fp16", float_layers=("1",)),
        QuantSpec("int8", "static", float_layers=("1",)),
        QuantSpec("int8", "dynamic", float_layers=("1",)),
    ):
        with pytest.raises(UnsupportedError, match="layer '1' is not in the exported graph"):
            lower(toy, spec, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_added_to_places_is_float32_in_fp16(tmp_path: Path) -> None:
    """ONNX Runtime has no other kernel for a scatter with a reduction."""
    specimen = ZOO["token_merging"]
    model, images = specimen.model(), specimen.images(4, seed=1)
    lower(model, QuantSpec("fp16"), tmp_path, (images,))
    expected = float_logits(model, images)
    error = OnnxRuntime().open(tmp_path).run(images) - expected
    assert 10 * np.log10((expected**2).sum() / (error**2).sum()) > 50


def test_shared_linear_weights_are_refused_where_the_quantizer_gets_them_wrong(tmp_path: Path) -> None:
    model, batches = Twice().eval(), toy_batches((3, 4, 4))
    with pytest.raises(UnsupportedError, match=r"more than once \(layer\).*a layer of its own"):
        lower(model, DYNAMIC, tmp_path, batches)
    lower(model, STATIC, tmp_path, batches)
    expected = float_logits(model, batches[0])
    error = OnnxRuntime().open(tmp_path).run(batches[0]) - expected
    assert 10 * np.log10((expected**2).sum() / (error**2).sum()) > 20


class Masked(nn.Module):
    """Attention of pixels to those before them."""

    def __init__(self, masked: float) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(16, 16), nn.Linear(48, 4)
        self.mask: torch.Tensor
        self.register_buffer("mask", torch.full((3, 3), masked).triu(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(x.flatten(2))
        scores = tokens @ tokens.transpose(1, 2) + self.mask
        logits: torch.Tensor = self.head((scores.softmax(-1) @ tokens).flatten(1))
        return logits


@pytest.mark.parametrize("masked", [-1e9, torch.finfo(torch.float32).min, -torch.inf])
@pytest.mark.parametrize("observer", ["histogram", "minmax"])
def test_a_mask_leaves_the_scores_their_values(masked: float, observer: Observer, tmp_path: Path) -> None:
    model, batches = Masked(masked).eval(), toy_batches((3, 4, 4))
    lower(model, dataclasses.replace(STATIC, observer=observer), tmp_path, batches)
    expected = float_logits(model, batches[0])
    error = OnnxRuntime().open(tmp_path).run(batches[0]) - expected
    assert 10 * np.log10((expected**2).sum() / (error**2).sum()) > 20


def test_grouped_transposed_convolutions_stay_float(tmp_path: Path) -> None:
    """Per channel, ONNX Runtime's quantizer takes the channels of one group for all of them."""
    model = nn.Sequential(nn.ConvTranspose2d(4, 8, 2, stride=2, groups=2), nn.Flatten(), nn.Linear(512, 4))
    batches = toy_batches((4, 4, 4))
    lower(model.eval(), QuantSpec("int8", "static", "per_channel", "minmax"), tmp_path, batches)
    session = OnnxRuntime().open(tmp_path)
    assert session.executed(batches[0]).in_float == ("ConvTranspose of layer '0'",)
    error = session.run(batches[0]) - (expected := float_logits(model, batches[0]))
    assert 10 * np.log10((expected**2).sum() / (error**2).sum()) > 20


def test_int8_that_ran_in_float_is_seen(tmp_path: Path) -> None:
    """ONNX Runtime quantizes transposed convolutions, but has no INT8 kernel for them."""
    layers = nn.ConvTranspose2d(3, 8, 2, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    batches = toy_batches((3, 4, 4))
    written = lower(nn.Sequential(*layers).eval(), STATIC, tmp_path, batches)
    assert written.tensor("0.weight_quantized").dtype == np.int8
    executed = OnnxRuntime().open(tmp_path).executed(batches[0])
    assert executed.macs == {"fp32": 3 * 4 * 4 * 8 * 4, "int8": 8 * 4}
    assert executed.fraction("int8") < LEAST_STATIC_INT8_FRACTION


def test_observers_are_those_of_onnxruntime(toy: nn.Module, tmp_path: Path) -> None:
    """One wild pixel among 400,000 decides the range by minimum and maximum, not by percentile."""
    batches = toy_batches(count=8, size=64)
    batches[3][5, 0, 7, 7] = 100.0
    scales, notes = {}, {}
    for observer in ("minmax", "histogram"):
        lowered = lower(toy, QuantSpec("int8", "static", observer=observer), tmp_path, batches)
        scales[observer] = float(lowered.tensor("images_scale").item())
        notes[observer] = " ".join(lowered.lowering.notes)
    lowest = min(float(batch.min()) for batch in batches)
    np.testing.assert_allclose(scales["minmax"], (100 - lowest) / 255, rtol=1e-5)
    assert scales["histogram"] < 0.5 * scales["minmax"]
    assert "minimum and maximum" in notes["minmax"]
    assert "99.999th percentile" in notes["histogram"]


def test_ranges_learned_in_training_are_reported_as_unused(toy: nn.Module, tmp_path: Path) -> None:
    spec = QuantSpec("int8", "static", activation_ranges=(ActivationRange("x", -1.0, 1.0),))
    assert any(
        "learned in training are not used" in note for note in lower(toy, spec, tmp_path).lowering.notes
    )
    assert not any("training" in note for note in lower(toy, STATIC, tmp_path).lowering.notes)


def test_weights_have_seven_bits_where_kernels_overflow(
    toy: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_saturation, "saturates", lambda: True)
    static = lower(toy, STATIC, tmp_path)
    assert np.abs(static.tensor("4.weight_quantized").astype(int)).max() == 64
    assert "weights have 7 bits" in " ".join(static.lowering.notes)
    dynamic = lower(toy, DYNAMIC, tmp_path)
    # Where ONNX Runtime transposes the weight in a node of its own, its name says so.
    (weight,) = (
        tensor.name
        for tensor in dynamic.graph.initializer
        if tensor.name in ("9.weight_quantized", "9.weight_Transposed_quantized")
    )
    assert np.abs(dynamic.tensor(weight).astype(int)).max() == 64
    assert "weights have 7 bits" in " ".join(dynamic.lowering.notes)


def test_a_portable_target_has_seven_bits_on_every_cpu(
    toy: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_saturation, "saturates", lambda: False)
    native = lower(toy, STATIC, tmp_path)
    assert np.abs(native.tensor("4.weight_quantized").astype(int)).max() == 127
    assert native.lowering.needs == (("VNNI",) if ON_X86 else ())
    portable = lower(toy, dataclasses.replace(STATIC, target="portable"), tmp_path)
    assert np.abs(portable.tensor("4.weight_quantized").astype(int)).max() == 64
    assert portable.lowering.needs == ()
    assert "target portable" in " ".join(portable.lowering.notes)


def test_overflow_is_found_by_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As vpmaddubsw does it: each pair of products is cut off at 2^15 - 1."""
    exact = np.full((16, 16), 128 * 255 * 127, np.int32)
    for result, expected in ((exact, False), (np.full_like(exact, 64 * (2**15 - 1)), True)):
        session = SimpleNamespace(run=lambda outputs, feed, result=result: [result])
        monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, session=session, **__: session)
        assert onnx_saturation.saturates.__wrapped__() is expected


@pytest.mark.parametrize(
    ("machine", "kind"), [("x86_64", np.uint8), ("aarch64", np.int8), ("arm64", np.int8)]
)
def test_activations_have_the_type_that_suits_the_processor(
    machine: str, kind: type, toy: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert lower(toy, STATIC, tmp_path).tensor("images_zero_point").dtype == kind
    assert OnnxRuntime().open(tmp_path).executed(BATCHES[0]).fraction("int8") == 1.0


def test_sessions_have_the_threads_that_were_asked_for_and_do_not_spin() -> None:
    def threads(count: int) -> int:
        OnnxRuntime().load_libraries(count)
        options = session_options()
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
        assert options.inter_op_num_threads == 1
        return int(options.intra_op_num_threads)

    assert contextvars.copy_context().run(threads, 2) == 2
    assert contextvars.copy_context().run(threads, 1) == 1


def test_outputs_outlive_the_next_call(lowered: LoweredFolder) -> None:
    """In every call of a shape: the first, and those whose memory is bound."""
    session = OnnxRuntime().open(lowered.folder)
    images, others = BATCHES[0], BATCHES[1]
    for _ in range(2):
        logits = session.run(images)
        kept = logits.copy()
        assert (session.run(others) != kept).any()
        np.testing.assert_array_equal(logits, kept)


def test_images_that_are_not_contiguous(lowered: LoweredFolder) -> None:
    flipped: Batch = BATCHES[0][:, :, :, ::-1]
    session = OnnxRuntime().open(lowered.folder)
    expected = session.run(np.ascontiguousarray(flipped))
    np.testing.assert_array_equal(session.run(flipped), expected)
    np.testing.assert_array_equal(OnnxRuntime().open(lowered.folder).run(flipped), expected)


@pytest.mark.parametrize(
    "images",
    [np.zeros((1, 4, 16, 16), np.float32), np.zeros((1, 3, 16), np.float32), np.zeros((1, 3, 16, 16))],
)
def test_images_that_do_not_fit_are_an_error_and_do_no_harm(
    images: Batch, toy: nn.Module, tmp_path: Path
) -> None:
    lower(toy, STATIC, tmp_path)
    session = OnnxRuntime().open(tmp_path)
    before = session.run(BATCHES[0])
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
        session.run(images)
    np.testing.assert_array_equal(session.run(BATCHES[0]), before)


def test_a_model_that_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="cannot be exported to ONNX"):
        lower(Branch().eval(), QuantSpec(), tmp_path)
    assert list(tmp_path.iterdir()) == []

"""The openvino runtime: what it writes and refuses, what the plugin executes, what a worker imports."""

import dataclasses
import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

pytest.importorskip("openvino")
pytest.importorskip("nncf")

import openvino

from quant_explorer.core.contracts import Batch, Candidate
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.core.host.architecture import is_x86
from quant_explorer.core.quantspec import ActivationRange, Granularity, Precision, QuantSpec, Target
from quant_explorer.metrics.fidelity import sqnr_db
from quant_explorer.runtimes.openvino import lowering as openvino_lowering
from quant_explorer.runtimes.openvino import saturation as openvino_saturation
from quant_explorer.runtimes.openvino import session as openvino_session
from quant_explorer.runtimes.openvino.runtime import OpenVino
from quant_explorer.runtimes.openvino.session import OpenVinoSession, computes_natively, has_kernels
from quant_explorer.runtimes.torch_graph.macs import count_macs
from quant_explorer.testing.reference import Affine, LinearLayer, float_logits
from quant_explorer.testing.toys import (
    TOY_CONVOLUTION_MACS,
    TOY_LINEAR_MACS,
    toy_batches,
    toy_linear_model,
    toy_model,
)
from quant_explorer.testing.zoo import ZOO

FILES = {"model.xml", "model.bin"}
STATIC = QuantSpec("int8", "static", "per_channel", "minmax")
SECOND_CONVOLUTION_MACS = 16 * (8 * 8) * (8 * 3 * 3)
BATCHES = toy_batches(count=2)


@functools.cache
def shared_model() -> nn.Module:
    """One module, which is exported once."""
    return toy_model()


def lower(spec: QuantSpec, folder: Path, model: nn.Module | None = None) -> OpenVinoSession:
    candidate = Candidate(model or shared_model(), spec)
    ((option, precision),) = OpenVino().lower(candidate, BATCHES, folder).options
    assert option == "precision"
    runtime = OpenVino(str(precision))
    runtime.load_libraries(1)
    return runtime.open(folder)


def test_the_input_of_a_depthwise_convolution_has_one_scale(tmp_path: Path) -> None:
    """NNCF's default would give it one a channel."""
    images = toy_batches((8, 12, 12), count=1)
    OpenVino().lower(Candidate(Side("depthwise").eval(), STATIC), images, tmp_path)
    model = openvino.Core().read_model(tmp_path / "model.xml")
    sizes = {
        int(np.prod(operation.input(1).get_shape()))
        for operation in model.get_ops()
        if operation.get_type_name() == "FakeQuantize"
    }
    assert sizes == {1}


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (QuantSpec("int8", "dynamic"), "computes it in float32"),
        (QuantSpec("int8", "float"), "in float32; choose static"),
        (QuantSpec("fp32", "static"), "needs int8, not fp32"),
        (QuantSpec("fp16", float_layers=("9",)), "no layers can stay in fp32"),
        (QuantSpec("bf16", float_layers=("9",)), "no layers can stay in fp32"),
    ],
)
def test_unsupported(spec: QuantSpec, reason: str) -> None:
    found = OpenVino().unsupported(Candidate(toy_model(), spec))
    assert found is not None
    assert reason in found


@pytest.mark.parametrize("group", [0, 32])
def test_linear_layers_after_a_flattening_are_unpacked_to_float(group: int) -> None:
    """Why dynamic INT8 is refused: to be lowered when this fails."""
    import nncf
    from openvino import opset13 as operations

    weight = np.random.default_rng(0).standard_normal((8, 128), dtype=np.float32)
    images = operations.parameter([-1, 128, 1, 1], np.float32)
    rows = operations.reshape(images, operations.constant([-1, 128]), special_zero=False)
    model = openvino.Model([operations.matmul(rows, operations.constant(weight), False, True)], [images])
    compressed = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
    compressed.reshape([1, 128, 1, 1])
    settings = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": group}
    compiled = openvino.Core().compile_model(compressed, "CPU", settings)
    (product,) = (
        node.get_rt_info()["runtimePrecision"].value
        for node in compiled.get_runtime_model().get_ordered_ops()
        if node.get_rt_info()["layerType"].value == "FullyConnected"
    )
    assert product == "f32"


@pytest.mark.parametrize("spec", [QuantSpec(), STATIC], ids=["fp32", "static_int8"])
def test_files_tell_nothing_of_where_they_were_made(spec: QuantSpec, tmp_path: Path) -> None:
    lower(spec, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == FILES
    text = (tmp_path / "model.xml").read_text()
    assert str(tmp_path) not in text
    assert "nncf" not in text


def test_one_module_is_exported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exports: list[object] = []
    export = torch.onnx.export

    def counted(*arguments: object, **settings: object) -> object:
        exports.append(arguments)
        return export(*arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.onnx, "export", counted)
    model = toy_model()
    for spec in (QuantSpec(), QuantSpec("fp16"), STATIC):
        lower(spec, tmp_path, model)
    assert len(exports) == 1


@pytest.mark.parametrize(
    ("layers", "kept"),
    [
        (("9",), TOY_LINEAR_MACS),
        (("4",), SECOND_CONVOLUTION_MACS),
        (("0", "4"), TOY_CONVOLUTION_MACS),
    ],
)
def test_float_layers_stay_in_float(layers: tuple[str, ...], kept: int, tmp_path: Path) -> None:
    session = lower(dataclasses.replace(STATIC, float_layers=layers), tmp_path)
    total = TOY_CONVOLUTION_MACS + TOY_LINEAR_MACS
    assert session.executed(BATCHES[0]).macs == {"fp32": kept, "int8": total - kept}


def test_an_unknown_float_layer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="'missing'"):
        lower(dataclasses.replace(STATIC, float_layers=("missing",)), tmp_path)


@pytest.mark.parametrize(
    ("name", "spec", "reason"),
    [
        ("fourier_mixing", QuantSpec(), r"Fourier transforms \(body/DFT"),
        ("einsum_shared", STATIC, r"INT8 einsums that share a weight \(body/Einsum"),
    ],
)
def test_what_the_plugin_computes_otherwise_is_refused_by_name(
    name: str, spec: QuantSpec, reason: str, tmp_path: Path
) -> None:
    """The largest logit is off by 1.4 of itself, and 3 dB are left of INT8."""
    specimen = ZOO[name]
    with pytest.raises(UnsupportedError, match=reason):
        OpenVino().lower(Candidate(specimen.model(), spec), [specimen.images(2)], tmp_path)


def test_int8_that_runs_in_float_is_seen(tmp_path: Path) -> None:
    """Activations of 1024 levels have no INT8 kernels; the weights in the file are INT8 all the same."""
    lower(STATIC, tmp_path)
    model = openvino.Core().read_model(
        (tmp_path / "model.xml").read_bytes(), (tmp_path / "model.bin").read_bytes()
    )
    for operation in model.get_ordered_ops():
        if operation.get_type_name() == "FakeQuantize":
            operation.set_attribute("levels", 1024)
    openvino.save_model(model, tmp_path / "model.xml", compress_to_fp16=False)
    session = OpenVino("int8").open(tmp_path)
    assert session.executed(BATCHES[0]).macs == {"fp32": TOY_CONVOLUTION_MACS + TOY_LINEAR_MACS}


@pytest.mark.parametrize(("precision", "least_db"), [("fp16", 55.0), ("bf16", 30.0)])
def test_half_precision(precision: Precision, least_db: float, tmp_path: Path) -> None:
    """Stored in 16 bits; what it is computed in is counted, and told."""
    model = shared_model()
    reason = OpenVino().unsupported(Candidate(model, QuantSpec(precision)))
    if reason is not None:
        assert not has_kernels(precision)
        pytest.skip(reason)
    session = lower(QuantSpec(precision), tmp_path)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert (tmp_path / "model.bin").stat().st_size < 3 * parameters
    expected = float_logits(model, BATCHES[0])
    found = sqnr_db(session.run(BATCHES[0]), expected)
    assert found is not None
    assert least_db < found < 100
    (note,) = OpenVino().lower(Candidate(model, QuantSpec(precision)), BATCHES, tmp_path).notes
    executed = session.executed(BATCHES[0])
    assert executed.fraction(precision if has_kernels(precision) else "fp32") == 1.0
    assert ("this CPU" in note) == (not computes_natively(precision))


@pytest.mark.parametrize(("replaced", "reason"), [(False, None), (True, "OpenVINO has no bf16 kernels")])
def test_a_half_precision_that_the_plugin_replaces_is_refused(
    replaced: bool, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It computes in FP32, or in the other of the two, without a word."""
    executed = "f32" if replaced else "bf16"
    core = SimpleNamespace(compile_model=lambda *_: None)
    monkeypatch.setattr(openvino_session, "_core", lambda: core)
    monkeypatch.setattr(openvino_session, "_inference_precision", lambda compiled: executed)
    openvino_session.has_kernels.cache_clear()
    found = OpenVino().unsupported(Candidate(shared_model(), QuantSpec("bf16")))
    openvino_session.has_kernels.cache_clear()
    assert found is None if reason is None else str(found).startswith(reason)


@pytest.mark.parametrize("spec", [QuantSpec(), STATIC], ids=["fp32", "static_int8"])
def test_floats_are_never_computed_in_half_precision_unasked(spec: QuantSpec, tmp_path: Path) -> None:
    """The plugin's own choice on a CPU with BF16 is BF16; a hint forbids it."""
    executed = lower(spec, tmp_path).executed(BATCHES[0])
    assert executed.fraction("bf16") == executed.fraction("fp16") == 0.0


@pytest.mark.parametrize("granularity", get_args(Granularity))
def test_a_quantized_layer_is_its_formula(granularity: Granularity, tmp_path: Path) -> None:
    """Fake quantization in float64 with NNCF's convention; from the file comes only the corrected bias."""
    model, (images,) = toy_linear_model(), toy_batches((3, 4, 4), count=1, size=64)
    spec = dataclasses.replace(STATIC, granularity=granularity)
    OpenVino().lower(Candidate(model, spec), (images,), tmp_path)
    weight_levels = 63.5 if openvino_saturation.saturates() else 127.0
    layer = LinearLayer.of(model, images, granularity, weight_levels, activation_levels=255)
    # The half range ends at 63, although its step is max|w| / 63.5.
    steps = np.clip(np.rint(layer.weight / layer.weight_scale), -int(weight_levels), int(weight_levels))
    # NNCF widens the range until 0 is a step of it, by moving the end that is nearer to one.
    zero, high = layer.input.zero_point, float(images.max())
    source = Affine(max(high / (255 - zero), -float(images.min()) / zero), zero, 255)
    bias = stored_bias(tmp_path / "model.xml")
    expected = source.round_trip(layer.features) @ (steps * layer.weight_scale).T + bias
    logits = OpenVino("int8").open(tmp_path).run(images)
    errors = np.abs(logits - expected).max(axis=1)
    assert errors.max() <= source.scale * np.abs(layer.weight).max(), "more than one tie rounded otherwise"
    assert np.mean(errors > 1e-5 * np.abs(expected).max()) <= 0.1
    # Fast bias correction takes the mean error of the calibration images away.
    assert np.all(np.abs((expected - layer.sums()).mean(axis=0)) < 1e-3 * np.abs(layer.sums()).max())


@pytest.mark.parametrize("saturates", [False, True])
@pytest.mark.parametrize("target", get_args(Target))
def test_weights_have_seven_bits_where_kernels_overflow(
    target: Target, saturates: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_saturation, "saturates", lambda: saturates)
    spec = dataclasses.replace(STATIC, target=target)
    lowering = OpenVino().lower(Candidate(shared_model(), spec), BATCHES, tmp_path)
    weights = [
        np.abs(operation.get_data().astype(int)).max()
        for operation in openvino.Core().read_model(tmp_path / "model.xml").get_ops()
        if operation.get_type_name() == "Constant" and operation.get_element_type() == openvino.Type.i8
    ]
    reduced = saturates or target == "portable"
    assert len(weights) == 3
    assert set(weights) <= ({63, 64} if reduced else {127})
    assert any("weights have 7 bits" in note for note in lowering.notes) == reduced
    assert lowering.needs == (("VNNI",) if is_x86() and not reduced else ())


@pytest.mark.parametrize(("largest", "expected"), [(2 * 255 * 127, False), (2**15 - 1, True)])
def test_overflow_is_found_by_computing(
    largest: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As vpmaddubsw does it: each pair of products is cut off at 2^15 - 1."""

    def compiled(images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        summands = 128 if images.ndim == 2 else 64 * 9
        return {"sums": np.full((1, 4), summands / 2 * largest, np.float32)}

    core = SimpleNamespace(compile_model=lambda *_: compiled)
    monkeypatch.setattr(openvino, "Core", lambda: core)
    assert openvino_saturation.saturates.__wrapped__() is expected


def test_products_of_activations_are_distinguished_from_those_with_weights(tmp_path: Path) -> None:
    """Both sides have 8 bits, which NNCF's fix of overflows leaves as they are."""
    model, images = Attention().eval(), toy_batches((8, 6, 6), count=1)
    OpenVino().lower(Candidate(model, QuantSpec()), images, tmp_path)
    read = openvino.Core().read_model(tmp_path / "model.xml")
    assert openvino_lowering.products_of_activations(read) == ["attention/MatMul_3"]
    total, products = (4 * 8 * 8 + 2 * 36 * 8) * 36, 2 * 36 * 8 * 36
    portable = dataclasses.replace(STATIC, target="portable")
    for spec, expected in (
        (STATIC, {"fp32": products} if openvino_saturation.saturates() else {}),
        (portable, {"fp32": products}),
    ):
        OpenVino().lower(Candidate(model, spec), images, tmp_path)
        macs = OpenVino("int8").open(tmp_path).executed(images[0]).macs
        assert macs == expected | {"int8": total - sum(expected.values())}


def stored_bias(path: Path) -> NDArray[np.float64]:
    (addition,) = (
        operation
        for operation in openvino.Core().read_model(path).get_ops()
        if operation.get_type_name() == "Add"
    )
    return np.asarray(addition.input_value(1).get_node().get_data(), np.float64)


def test_ranges_that_are_not_used_are_reported(tmp_path: Path) -> None:
    spec = dataclasses.replace(STATIC, activation_ranges=(ActivationRange("x", -1.0, 1.0),))
    notes = [
        OpenVino().lower(Candidate(shared_model(), given), BATCHES, tmp_path).notes
        for given in (STATIC, spec)
    ]
    (note,) = set(notes[1]) - set(notes[0])
    assert "not used" in note


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = images.flatten(2).transpose(1, 2)
        out: torch.Tensor = self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return out.mean(1)


class Recurrent(nn.Module):
    """A layer over the tokens of an image."""

    def __init__(self, kind: Callable[..., nn.Module], **options: bool | int) -> None:
        super().__init__()
        self.layer = kind(8, 6, batch_first=True, **options)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.layer(images.flatten(2).transpose(1, 2))[0]
        return states.mean(1)


def ending(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "grouped": lambda: ending(nn.Conv2d(8, 16, 3, groups=4)),
    "depthwise": lambda: ending(nn.Conv2d(8, 8, 3, groups=8, padding=1)),
    "strided and dilated": lambda: ending(nn.Conv2d(8, 6, 3, stride=2, dilation=2, bias=False)),
    "rectangular": lambda: ending(nn.Conv2d(8, 6, (1, 5), padding=(0, 2))),
    "transposed": lambda: ending(nn.ConvTranspose2d(8, 6, 3, stride=2)),
    "transposed and grouped": lambda: ending(nn.ConvTranspose2d(8, 6, 3, stride=2, groups=2)),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(8 * 12 * 12, 5, bias=False)),
    "linear at every place": lambda: nn.Sequential(nn.Linear(12, 5), nn.Flatten()),
    "attention": Attention,
    "gru": lambda: Recurrent(nn.GRU),
    "gru in both directions": lambda: Recurrent(nn.GRU, bidirectional=True),
    "lstm of two layers in both directions": lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True),
    "lstm": lambda: Recurrent(nn.LSTM),
}


class Side(nn.Module):
    """Layers side by side, so that one export has all of them."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            self.layers = nn.ModuleList(LAYERS[name]() for name in names)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([layer(images) for layer in self.layers], dim=1)


@pytest.mark.parametrize(
    ("layers", "spec", "ran_in"),
    [(tuple(LAYERS), QuantSpec(), "fp32"), (("grouped", "depthwise", "linear"), STATIC, "int8")],
)
def test_macs_are_those_that_pytorch_counts(
    layers: tuple[str, ...], spec: QuantSpec, ran_in: Precision, tmp_path: Path
) -> None:
    """In one sum: a layer that is missed or counted otherwise makes it another."""
    model, images = Side(*layers).eval(), toy_batches((8, 12, 12), count=1)
    OpenVino().lower(Candidate(model, spec), images, tmp_path)
    session = OpenVino(ran_in).open(tmp_path)
    assert session.executed(images[0]).macs == {ran_in: count_macs(model, images[0]).macs["fp32"]}


def test_a_recurrent_layer_is_named_where_it_stays_in_float(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3), Recurrent(nn.GRU, bidirectional=True)).eval()
    images = toy_batches((8, 6, 6), count=1)
    OpenVino().lower(Candidate(model, STATIC), images, tmp_path)
    executed = OpenVino().open(tmp_path).executed(images[0])
    gates, steps = 3, 16
    assert executed.macs == {"fp32": 2 * gates * steps * 6 * (8 + 6), "int8": steps * 8 * 8 * 9}
    assert executed.in_float == ("GRUSequence of layer '1.layer'",)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> OpenVinoSession:
    return lower(QuantSpec(), tmp_path_factory.mktemp("fp32"))


def test_outputs_outlive_the_next_call(opened: OpenVinoSession) -> None:
    first = opened.run(BATCHES[0])
    kept = first.copy()
    opened.run(BATCHES[1])
    np.testing.assert_array_equal(first, kept)


def test_the_batch_size_may_change_at_every_call(opened: OpenVinoSession) -> None:
    expected = float_logits(toy_model(), BATCHES[0])
    for size in (1, 8, 3, 1):
        logits = opened.run(BATCHES[0][:size])
        np.testing.assert_allclose(logits, expected[:size], rtol=0, atol=1e-5)


def test_images_that_are_not_contiguous(opened: OpenVinoSession) -> None:
    flipped: Batch = BATCHES[0][:, :, :, ::-1]
    np.testing.assert_array_equal(opened.run(flipped), opened.run(np.ascontiguousarray(flipped)))


def test_images_of_another_shape_are_refused(opened: OpenVinoSession) -> None:
    with pytest.raises(RuntimeError):
        opened.run(np.zeros((1, 4, 16, 16), np.float32))
    assert opened.run(BATCHES[0][:1]).shape == (1, 4)


def test_a_broken_file_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    (tmp_path / "model.xml").write_text("<net>")
    with pytest.raises(RuntimeError):
        OpenVino().open(tmp_path)


ALONE = """
import sys
from pathlib import Path
import numpy as np
from quant_explorer.runtimes.openvino.runtime import OpenVino

runtime = OpenVino()
runtime.load_libraries(1)
session = runtime.open(Path(sys.argv[1]))
batch = np.zeros((2, 3, 16, 16), np.float32)
session.run(batch)
session.executed(batch)
print(sorted({"torch", "nncf", "onnx", "onnxruntime", "openvino"} & sys.modules.keys()))
"""


def test_a_worker_imports_openvino_and_no_more(tmp_path: Path) -> None:
    lower(QuantSpec(), tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[-2] == "['openvino']"


def test_edges_of_feature_maps_are_not_corrected_for(tmp_path: Path) -> None:
    """On the images it calibrates with, quantization makes noise: correcting biases must not shift logits."""
    (images,) = toy_batches(count=1, size=64)
    images[:, :, 4:12, 4:12] += 2.0
    OpenVino().lower(Candidate(shared_model(), STATIC), (images,), tmp_path)
    errors = OpenVino("int8").open(tmp_path).run(images) - float_logits(shared_model(), images)
    assert errors.any()
    assert (np.abs(errors.mean(0)) < errors.std(0)).all()

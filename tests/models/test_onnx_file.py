"""An `.onnx` file as a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from quant_explorer.core.errors import ModelError
from quant_explorer.models import LoadedModel, load_model
from quant_explorer.workload.model_cost import analyze_model

WEIGHT = np.arange(5 * 12, dtype=np.float32).reshape(5, 12) / 10
KERNEL = np.ones((3, 3, 1, 1), np.float32)


def make(
    path: Path,
    *,
    batch: int | str = "n",
    shape: tuple[int | str, ...] = (3, 2, 2),
    opset: int = 17,
    kind: int = TensorProto.FLOAT,
    change: Callable[[onnx.ModelProto], None] = lambda model: None,
) -> Path:
    """Write a 1 x 1 convolution, a Reshape to the batch that was exported, and a matrix product."""
    rows = batch if isinstance(batch, int) else -1
    nodes = [
        helper.make_node("Conv", ["input", "stem.0.weight"], ["features"], name="/stem/Conv"),
        helper.make_node("Reshape", ["features", "sizes"], ["flat"], name="/Reshape"),
        helper.make_node("Gemm", ["flat", "onnx::Gemm_7"], ["scores"], name="/head/Gemm", transB=1),
    ]
    constants = {"stem.0.weight": KERNEL, "sizes": np.array([rows, 12]), "onnx::Gemm_7": WEIGHT}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", kind, [batch, *shape])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 5])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


def load(path: Path) -> LoadedModel:
    return load_model(str(path), weights=None, classes=5, image_shape=(3, 9, 7), seed=0)


@pytest.mark.parametrize("batch", ["n", 1])
@pytest.mark.parametrize("opset", [11, 17])
def test_it_computes_what_the_file_says_for_any_number_of_images(
    tmp_path: Path, batch: int | str, opset: int
) -> None:
    loaded = load(make(tmp_path / "model.onnx", batch=batch, opset=opset))
    assert loaded.trained
    assert loaded.input_shape == (3, 2, 2)
    for count in (1, 2, 5):
        images = np.random.default_rng(0).random((count, 3, 2, 2), np.float32)
        mixed = np.repeat(images.sum(1, keepdims=True), 3, axis=1)
        expected = mixed.reshape(count, 12) @ WEIGHT.T
        found = loaded.module(torch.from_numpy(images)).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert ("was made to take any number" in "".join(loaded.notes)) == (batch == 1)
    assert ("converted from opset 11" in "".join(loaded.notes)) == (opset == 11)


def test_layers_have_the_names_of_their_weights_or_of_their_nodes(tmp_path: Path) -> None:
    module = load(make(tmp_path / "model.onnx")).module
    assert [name for name, _ in module.named_parameters()] == ["stem.0.weight", "head.weight"]


def test_metadata_say_what_an_image_is_like(tmp_path: Path) -> None:
    def describe(model: onnx.ModelProto) -> None:
        helper.set_model_props(model, {"preprocessing": '{"resize": 3}', "mean": "[0.1, 0.2, 0.3]"})

    asked = load(make(tmp_path / "model.onnx", change=describe)).preprocessing
    assert (asked.resize, asked.mean, asked.channels, asked.image_size) == (3, (0.1, 0.2, 0.3), 3, (2, 2))


def keep_outside(location: str) -> Callable[[onnx.ModelProto], None]:
    def move(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[2]
        onnx.external_data_helper.set_external_data(tensor, location, 0, len(tensor.raw_data))
        tensor.ClearField("raw_data")

    return move


def test_weights_are_read_from_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(WEIGHT.tobytes())
    module = load(make(tmp_path / "model.onnx", change=keep_outside("weights.bin"))).module
    np.testing.assert_array_equal(module.state_dict()["head.weight"].numpy(), WEIGHT)


@pytest.mark.parametrize("location", ["../weights.bin", "inside/weights.bin", "{folder}/weights.bin"])
def test_weights_from_elsewhere_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "weights.bin").write_bytes(WEIGHT.tobytes())
    folder = tmp_path / "model"
    folder.mkdir()
    # A link that leaves the folder.
    (folder / "inside").symlink_to(tmp_path)
    place = location.format(folder=tmp_path)
    with pytest.raises(ModelError, match="outside of its folder"):
        load(make(folder / "model.onnx", change=keep_outside(place)))


def test_weights_that_end_too_early_are_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(WEIGHT.tobytes()[:-1])
    with pytest.raises(ModelError, match="ends before the weights 'onnx::Gemm_7' do"):
        load(make(tmp_path / "model.onnx", change=keep_outside("weights.bin")))


def add_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, None))


def quantize(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("DynamicQuantizeLinear", ["flat"], ["a", "b", "c"]))


def use_others_operator(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Call", ["flat"], ["a"], domain="com.other"))


def spoil(model: onnx.ModelProto) -> None:
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight.flat[0] = np.nan
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, model.graph.initializer[0].name))


def misstate(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] += 1


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ({"change": spoil}, "NaN or infinite weights in"),
        ({"change": misstate}, "ONNX Runtime cannot compute it for 1 image"),
        ({"batch": 4}, "takes 4 images at a time"),
        ({"shape": (2, 2, 3)}, "1 or 3 channels before height and width"),
        ({"kind": TensorProto.UINT8}, "its input 'input' is UINT8"),
        ({"change": add_output}, "outputs scores, features.*extract_model"),
        ({"change": quantize}, "is quantized already"),
        ({"change": use_others_operator}, r"operators of others: com\.other\.Call"),
    ],
    ids=["NaN", "sizes", "batch", "channels last", "bytes", "outputs", "quantized", "operators"],
)
def test_what_cannot_be_compared_is_refused_in_words(
    tmp_path: Path, file: dict[str, object], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        load(make(tmp_path / "model.onnx", **file))  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_what_is_no_onnx_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="not a readable ONNX file"):
        load(tmp_path / "model.onnx")


def test_its_layers_are_counted(tmp_path: Path) -> None:
    module = load(make(tmp_path / "model.onnx")).module
    layers = analyze_model(module, (3, 2, 2)).layers
    assert [(layer.name, layer.macs, layer.parameters) for layer in layers] == [
        ("stem.0", 3 * 3 * 4, 9),
        ("head", 5 * 12, 60),
    ]

"""Multiply-accumulates of ONNX Runtime's kernels against the textbook formula."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import GraphOptimizationLevel, SessionOptions

from quant_explorer.core.measurement import Executed
from quant_explorer.runtimes.onnxruntime.macs import count_macs
from quant_explorer.runtimes.onnxruntime.runtime import session_options

Attributes = dict[str, int | list[int]]

IMAGES = np.random.default_rng(0).standard_normal((3, 8, 12, 12), dtype=np.float32)


def write(path: Path, nodes: list[onnx.NodeProto], *tensors: onnx.TensorProto) -> Path:
    """A graph from `x` to `y` that reads `tensors` by their names."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "graph",
        [value("x", TensorProto.FLOAT, ["n", 8, 12, 12])],
        [value("y", TensorProto.FLOAT, None)],
        list(tensors),
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)],
        ir_version=10,
    )
    onnx.save(model, path)
    return path


def weight(*shape: int, name: str = "w", dtype: str = "float32") -> onnx.TensorProto:
    values = np.random.default_rng(1).integers(-9, 9, shape).astype(dtype)
    return numpy_helper.from_array(values, name)


def convolution(images: str, filters: str, attributes: Attributes) -> onnx.NodeProto:
    node = helper.make_node("Conv", [images, filters], ["c"])
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    return node


def count(path: Path, options: Callable[[], SessionOptions] = session_options) -> Executed:
    return count_macs(path, {"x": IMAGES}, options)


# Output elements x weights of a filter; a transposed convolution has input elements x weights instead.
# 16 channels are a block of the layout that ONNX Runtime pads to.
CONVOLUTIONS: dict[str, tuple[tuple[int, ...], Attributes, int]] = {
    "dense": ((16, 8, 3, 3), {}, 16 * 10 * 10 * 8 * 9),
    "fewer channels than a block": ((5, 8, 3, 3), {}, 5 * 10 * 10 * 8 * 9),
    "one more than a block": ((17, 8, 1, 1), {}, 17 * 12 * 12 * 8),
    "padded and strided": ((16, 8, 3, 3), {"strides": [2, 2], "pads": [1] * 4}, 16 * 6 * 6 * 8 * 9),
    "dilated": ((16, 8, 3, 3), {"dilations": [2, 2]}, 16 * 8 * 8 * 8 * 9),
    "grouped": ((16, 2, 3, 3), {"group": 4}, 16 * 10 * 10 * 2 * 9),
    "depthwise": ((8, 1, 5, 5), {"group": 8, "pads": [2] * 4}, 8 * 12 * 12 * 25),
    "not square": ((4, 8, 1, 7), {}, 4 * 12 * 6 * 8 * 7),
}


@pytest.mark.parametrize("layer", CONVOLUTIONS)
def test_float_convolutions(layer: str, tmp_path: Path) -> None:
    shape, attributes, expected = CONVOLUTIONS[layer]
    nodes = [
        convolution("x", "w", attributes),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    assert count(write(tmp_path / "model.onnx", nodes, weight(*shape))).macs == {"fp32": expected}


@pytest.mark.parametrize("layer", CONVOLUTIONS)
def test_int8_convolutions(layer: str, tmp_path: Path) -> None:
    shape, attributes, expected = CONVOLUTIONS[layer]
    executed = count(write_qdq(tmp_path / "model.onnx", shape, attributes))
    assert executed.macs == {"int8": expected}
    assert executed.kernels["QLinearConv"] == 1


def write_qdq(path: Path, shape: tuple[int, ...], attributes: Attributes) -> Path:
    """A convolution between QuantizeLinear and DequantizeLinear, as the quantizer writes it."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "s", "zw"], ["wd"]),
        convolution("xd", "wd", attributes),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "s", "z"], ["y"]),
    ]
    return write(
        path,
        nodes,
        weight(*shape, dtype="int8"),
        numpy_helper.from_array(np.array(0.1, np.float32), "s"),
        numpy_helper.from_array(np.array(128, np.uint8), "z"),
        numpy_helper.from_array(np.array(0, np.int8), "zw"),
    )


def test_int8_that_runs_in_float_is_seen(tmp_path: Path) -> None:
    """Without the optimizer the weights are made float again, and that is what is multiplied."""

    def without_optimizer() -> SessionOptions:
        options = session_options()
        options.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
        return options

    shape, attributes, expected = CONVOLUTIONS["dense"]
    path = write_qdq(tmp_path / "model.onnx", shape, attributes)
    assert count(path).macs == {"int8": expected}
    executed = count(path, without_optimizer)
    assert executed.macs == {"fp32": expected}
    assert executed.kernels["Conv"] == 1


def test_transposed_convolutions(tmp_path: Path) -> None:
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], group=2)
    path = write(tmp_path / "model.onnx", [node], weight(8, 3, 2, 2))
    assert count(path).macs == {"fp32": 8 * 12 * 12 * 3 * 4}


PRODUCTS: dict[str, tuple[list[onnx.NodeProto], tuple[onnx.TensorProto, ...], dict[str, int]]] = {
    "linear": (
        [
            helper.make_node("Flatten", ["x"], ["f"]),
            helper.make_node("Gemm", ["f", "w", "b"], ["y"], transB=1),
        ],
        (weight(5, 1152), weight(5, name="b")),
        {"fp32": 5 * 1152},
    ),
    "linear with relu": (
        [
            helper.make_node("Flatten", ["x"], ["f"]),
            helper.make_node("Gemm", ["f", "w", "b"], ["g"]),
            helper.make_node("Relu", ["g"], ["y"]),
        ],
        (weight(1152, 5), weight(5, name="b")),
        {"fp32": 5 * 1152},
    ),
    "linear at every place": (
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        (weight(12, 7),),
        {"fp32": 8 * 12 * 12 * 7},
    ),
    "images with themselves, transposed": (
        [
            helper.make_node("Transpose", ["x"], ["t"], perm=[0, 1, 3, 2]),
            helper.make_node("MatMul", ["x", "t"], ["y"]),
        ],
        (),
        {"fp32": 8 * 12 * 12 * 12},
    ),
    "transposed images with a weight": (
        [
            helper.make_node("Slice", ["x", "from", "to", "axis"], ["s"]),
            helper.make_node("Transpose", ["s"], ["t"], perm=[0, 1, 3, 2]),
            helper.make_node("MatMul", ["t", "w"], ["y"]),
        ],
        (
            weight(12, 7),
            *(
                numpy_helper.from_array(np.array([at]), name)
                for name, at in (("from", 0), ("to", 5), ("axis", 3))
            ),
        ),
        {"fp32": 8 * 5 * 12 * 7},
    ),
    "heads of attention, as a transposition in front of a product is fused with it": (
        [
            helper.make_node("Reshape", ["x", "sizes"], ["r"]),
            helper.make_node("Transpose", ["r"], ["q"], perm=[1, 0, 2]),
            helper.make_node("MatMul", ["q", "w"], ["y"]),
        ],
        (weight(12, 12, 7), numpy_helper.from_array(np.array([-1, 12, 12]), "sizes")),
        {"fp32": 12 * 8 * 12 * 7},
    ),
    "einsum": (
        [helper.make_node("Einsum", ["x", "w"], ["y"], "/Einsum[nchw.wk-nchk]", equation="nchw,wk->nchk")],
        (weight(12, 7),),
        {"fp32": 8 * 12 * 12 * 7},
    ),
    "INT8 with ranges of the batch": (
        [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
            helper.make_node("MatMulInteger", ["q", "w", "z"], ["i"]),
            helper.make_node("Cast", ["i"], ["c"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["c", "s"], ["y"]),
        ],
        (weight(12, 7, dtype="int8"),),
        {"int8": 8 * 12 * 12 * 7},
    ),
    "none": (
        [
            helper.make_node("Relu", ["x"], ["r"]),
            helper.make_node("MaxPool", ["r"], ["y"], kernel_shape=[2, 2]),
        ],
        (),
        {},
    ),
}


@pytest.mark.parametrize("layer", PRODUCTS)
def test_products(layer: str, tmp_path: Path) -> None:
    nodes, tensors, expected = PRODUCTS[layer]
    assert count(write(tmp_path / "model.onnx", nodes, *tensors)).macs == expected


def test_kernels_are_those_of_a_session_as_it_is_opened(tmp_path: Path) -> None:
    """The reordering into blocks belongs to them, though MACs are counted without."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Conv", ["c", "v"], ["y"]),
    ]
    path = write(tmp_path / "model.onnx", nodes, weight(16, 8, 1, 1), weight(16, 16, 1, 1, name="v"))
    kernels = count(path).kernels
    assert kernels["Conv"] == 2
    assert sum(kernels.values()) > 2


def test_no_profile_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "model.onnx", [helper.make_node("Relu", ["x"], ["y"])])
    assert count(path) == Executed({}, {"Relu": 1})
    assert list(tmp_path.iterdir()) == [path]

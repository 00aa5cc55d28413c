"""What of a graph serves divisions, logarithms and square roots alone."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quant_explorer.runtimes.onnx_graph.sensitive import sensitive_nodes


def graph(*nodes: tuple[str, str, str]) -> onnx.GraphProto:
    """Return a graph of nodes (operator, operands, output), each named after its output; `w` is a weight."""
    return helper.make_graph(
        [helper.make_node(kind, operands.split(), [output], name=output) for kind, operands, output in nodes],
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 4, 4])],
        [helper.make_tensor_value_info(nodes[-1][2], TensorProto.FLOAT, ["n", 4, 4])],
        [
            numpy_helper.from_array(np.ones((4, 4), np.float32), "w"),
            numpy_helper.from_array(np.array(1 / 3, np.float32), "third"),
        ],
    )


@pytest.mark.parametrize(
    ("nodes", "found"),
    [
        pytest.param(
            [
                *(("MatMul", "images w", "layer"), ("ReduceMean", "layer", "mean")),
                *(("Sub", "layer mean", "centred"), ("Mul", "centred centred", "squares")),
                *(("ReduceMean", "squares", "variance"), ("Div", "variance w", "corrected")),
                *(("Sqrt", "corrected", "deviation"), ("Div", "centred deviation", "normed")),
            ],
            ["mean", "centred", "squares", "variance", "corrected", "deviation", "normed"],
            id="a standard deviation, and what is divided by it",
        ),
        pytest.param(
            [
                *(("MatMul", "images images", "mixed"), ("ReduceSum", "images", "sums")),
                *(("MatMul", "sums images", "norm"), ("Div", "mixed norm", "out")),
            ],
            ["mixed", "sums", "norm", "out"],
            id="linear attention",
        ),
        pytest.param(
            [("MatMul", "images images", "products"), ("Sqrt", "products", "root")],
            ["root"],
            id="a root of products, which keep INT8",
        ),
        pytest.param(
            [
                *(("Clip", "images", "positive"), ("Pow", "positive w", "powers")),
                *(("GlobalAveragePool", "powers", "mean"), ("Pow", "mean third", "out")),
            ],
            ["positive", "powers", "mean", "out"],
            id="a power with a fraction, and not one without",
        ),
        pytest.param(
            [("Exp", "images", "powers"), ("ReduceSum", "powers", "sums"), ("Log", "sums", "out")],
            ["powers", "sums", "out"],
            id="a logarithm of a sum",
        ),
        pytest.param(
            [
                ("Mul", "images images", "squares"),
                ("Sqrt", "squares", "root"),
                ("Add", "squares root", "out"),
            ],
            ["root"],
            id="what others read, too",
        ),
        pytest.param([("Mul", "images w", "scaled"), ("Div", "scaled w", "out")], [], id="by a constant"),
    ],
)
def test_reaches_back_to_layers_and_to_what_others_read(
    nodes: list[tuple[str, str, str]], found: list[str]
) -> None:
    assert list(sensitive_nodes(graph(*nodes))) == found

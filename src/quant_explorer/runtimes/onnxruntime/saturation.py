"""Whether the INT8 kernels of ONNX Runtime overflow on this CPU.

Source: ONNX Runtime, "Quantize ONNX models", on U8S8 and saturation,
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html.
"""

from __future__ import annotations

import functools

import numpy as np
import onnx
import onnxruntime

from quant_explorer.core.quantspec import Target
from quant_explorer.runtimes.saturation import FOR_ANY_CPU


def explain_reduced_range(target: Target) -> str | None:
    """Return why weights have 7 bits for this target, or None where they have 8."""
    if target == "portable":
        return f"weights have 7 bits, {FOR_ANY_CPU}"
    if saturates():
        return (
            "weights have 7 bits: on this CPU ONNX Runtime's kernels overflow with 8 bits (no VNNI "
            "instructions)"
        )
    return None


@functools.cache
def saturates() -> bool:
    """Say whether products of unsigned and signed 8-bit numbers overflow on this CPU.

    Kernels without VNNI add pairs of them in 16 bits. Found by multiplying the largest values there are.
    """
    inner = 128
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMulInteger", ["a", "b"], ["c"])],
        "largest",
        [value("a", onnx.TensorProto.UINT8, [16, inner]), value("b", onnx.TensorProto.INT8, [inner, 16])],
        [value("c", onnx.TensorProto.INT32, [16, 16])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {"a": np.full((16, inner), 255, np.uint8), "b": np.full((inner, 16), 127, np.int8)}
    return bool((session.run(None, feed)[0] != inner * 255 * 127).any())

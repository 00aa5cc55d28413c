"""BF16 and FP16 in PyTorch: a traced float graph cast to 16 bits, with float32 at its ends.

Source: PyTorch, `torch.nn.Module.to`; oneDNN, "Data types",
https://uxlfoundation.github.io/oneDNN/dev_guide_data_types.html (which CPUs multiply in 16 bits).
"""

from __future__ import annotations

import torch
from torch import fx, nn

from quant_explorer.core.contracts import Batch
from quant_explorer.core.errors import UnsupportedError, explain
from quant_explorer.core.host.architecture import HALF_PRECISIONS, has_arithmetic
from quant_explorer.core.quantspec import Precision, is_inside

DTYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
_NEEDS: dict[Precision, str] = {
    "bf16": "AVX-512 or Arm's BF16",
    "fp16": "AVX512-FP16, AMX-FP16 or Arm's FP16",
}


class HalfPrecisionModel(nn.Module):
    """A model whose weights are `dtype`, for float32 images and logits, so that nothing around it changes."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (n, channels, height, width) to logits (n, classes)."""
        logits: torch.Tensor = self.model(images.to(self.dtype))
        return logits.float()


def explain_missing_kernels(precision: Precision) -> str | None:
    """Return why PyTorch has no kernels of `precision` for this CPU, or None.

    It does not refuse: it runs convolutions in a plain loop, about 50 times slower than FP32 (measured).
    """
    if _has_kernels(precision):
        return None
    return (
        f"PyTorch has no {precision} kernels for this CPU (they need {_NEEDS[precision]}) and would run "
        "convolutions in a plain loop, far slower than fp32"
    )


def _has_kernels(precision: Precision) -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    supported = {
        "bf16": torch.ops.mkldnn._is_mkldnn_bf16_supported,
        "fp16": torch.ops.mkldnn._is_mkldnn_fp16_supported,
    }
    return bool(supported[precision]())


def explain_emulation(precision: Precision) -> str | None:
    """Return a note for the report where the CPU does not multiply in `precision` itself, or None.

    Also None where PyTorch is too old (before 2.10) to say what the CPU can do.
    """
    if not hasattr(torch.cpu, "get_capabilities"):
        return None
    if precision.upper() in native_precisions():
        return None
    return f"this CPU has no {precision} arithmetic: oneDNN converts to fp32 and back, slower than fp32"


def native_precisions() -> tuple[str, ...]:
    """Return which of BF16 and FP16 the CPU multiplies in itself; none where PyTorch cannot say."""
    if not hasattr(torch.cpu, "get_capabilities"):
        return ()
    features = [name for name, there in torch.cpu.get_capabilities().items() if there]
    return tuple(precision.upper() for precision in HALF_PRECISIONS if has_arithmetic(precision, features))


def cast(
    graph: fx.GraphModule, precision: Precision, float_layers: tuple[str, ...], example: Batch
) -> fx.GraphModule:
    """Cast a fused graph in place, and return it: float32 images in, float32 logits out.

    `float_layers` (a layer, or a module with all layers inside) stay float32, with a cast before and
    after. Raises UnsupportedError when an operator has no kernel for `precision` or a value is too large
    for it, found by running `example` (n, channels, height, width).
    """
    dtype = DTYPES[precision]
    graph.to(dtype)
    for node in list(graph.graph.nodes):
        if node.op == "placeholder":
            _cast_output(graph, node, dtype)
        elif node.op == "call_module" and is_inside(str(node.target), float_layers):
            graph.get_submodule(node.target).float()
            _cast_inputs(graph, node, torch.float32)
            _cast_output(graph, node, dtype)
        elif node.op == "output":
            _cast_inputs(graph, node, torch.float32)
    graph.recompile()
    try:
        with torch.inference_mode():
            logits = graph(torch.from_numpy(example))
    except (NotImplementedError, RuntimeError, TypeError) as error:
        raise UnsupportedError(
            f"an operator of the model cannot run in {precision} ({explain(error)})"
        ) from error
    if not logits.isfinite().all():
        largest = torch.finfo(dtype).max
        raise UnsupportedError(f"the model computes values beyond {largest:g}, the largest of {precision}")
    return graph


def _cast_inputs(graph: fx.GraphModule, node: fx.Node, dtype: torch.dtype) -> None:
    for source in node.all_input_nodes:
        with graph.graph.inserting_before(node):
            node.replace_input_with(source, graph.graph.call_method("to", (source, dtype)))


def _cast_output(graph: fx.GraphModule, node: fx.Node, dtype: torch.dtype) -> None:
    with graph.graph.inserting_after(node):
        cast_output = graph.graph.call_method("to", (node, dtype))
    node.replace_all_uses_with(cast_output, delete_user_cb=lambda user: user is not cast_output)

"""BF16 and FP16 in PyTorch: a traced float graph cast to 16 bits, with float32 at its ends.

Source: PyTorch, `torch.nn.Module.to`; oneDNN, "Data types",
https://uxlfoundation.github.io/oneDNN/dev_guide_data_types.html (which CPUs multiply in 16 bits).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx, nn

from quant_explorer.core.contracts import Batch
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.core.host.architecture import HALF_PRECISIONS, has_arithmetic
from quant_explorer.core.quantspec import Precision, is_inside
from quant_explorer.tracing.reasons import in_brackets

DTYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
_FAILURES = (IndexError, NotImplementedError, RuntimeError, TypeError)
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
) -> tuple[fx.GraphModule, tuple[str, ...]]:
    """Cast a fused graph in place: float32 images in, float32 logits out; return it, and notes.

    `float_layers` (a layer, or a module with all layers inside) stay float32, with a cast before and
    after, and so does what has no kernel for `precision`. Raises UnsupportedError when an operator has none
    for float32 either or a value is too large, found by running `example` (n, channels, height, width).
    """
    dtype = DTYPES[precision]
    graph.to(dtype)
    for node in list(graph.graph.nodes):
        if node.op == "placeholder":
            _cast_output(graph, node, dtype)
        elif node.op == "call_module" and is_inside(str(node.target), float_layers):
            graph.get_submodule(node.target).float()
            _cast_inputs(graph, node, torch.float32, node.all_input_nodes)
            _cast_output(graph, node, dtype)
        elif node.op == "output":
            _cast_inputs(graph, node, torch.float32, node.all_input_nodes)
    kept: list[str] = []
    while (error := (running := _Running(graph)).attempt(example)) is not None:
        node, floats = running.current, running.floats()
        mixed = [source for source, value in floats.items() if value.dtype != dtype]
        if mixed:
            _cast_inputs(graph, node, dtype, mixed)
            continue
        made = running.compute_in_float()
        if made is None:
            raise UnsupportedError(f"{_describe(node)} cannot run in {precision}{in_brackets(error)}")
        kept.append(_describe(node))
        _cast_inputs(graph, node, torch.float32, list(floats))
        if made.is_floating_point():
            _cast_output(graph, node, dtype)
    graph.recompile()
    if not running.logits.isfinite().all():
        largest = torch.finfo(dtype).max
        raise UnsupportedError(f"the model computes values beyond {largest:g}, the largest of {precision}")
    note = f"in float32, as PyTorch has no {precision} kernel: {', '.join(kept)}"
    return graph, ((note,) if kept else ())


class _Running(fx.Interpreter):
    """A run of a graph that keeps all values, and which node is running."""

    current: fx.Node
    logits: torch.Tensor

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph, garbage_collect_values=False)
        # What a library says must not be longer by the graph.
        self.extra_traceback = False

    def attempt(self, example: Batch) -> Exception | None:
        """Run it, and return what a node raised."""
        try:
            with torch.inference_mode():
                self.logits = self.run(torch.from_numpy(example))
        except _FAILURES as error:
            return error
        return None

    def run_node(self, n: fx.Node) -> object:
        """Run a node."""
        self.current = n
        return super().run_node(n)

    def floats(self) -> dict[fx.Node, torch.Tensor]:
        """Return the floats that the node reads which is running."""
        values = {node: self.env[node] for node in self.current.all_input_nodes}
        return {
            node: value
            for node, value in values.items()
            if isinstance(value, torch.Tensor) and value.is_floating_point()
        }

    def compute_in_float(self) -> torch.Tensor | None:
        """Compute the node which is running, and its layer, in float32; None where that fails too."""
        node = self.current
        if node.op == "call_module":
            self.fetch_attr(str(node.target)).float()
        self.env |= {source: value.float() for source, value in self.floats().items()}
        try:
            with torch.inference_mode():
                made = super().run_node(node)
        except _FAILURES:
            return None
        return made if isinstance(made, torch.Tensor) else None


def _describe(node: fx.Node) -> str:
    if node.op == "call_module":
        return f"layer {node.target}"
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", node.name)
    scope = node.meta.get("scope")
    return f"operator {name}" + (f" of layer {scope!r}" if scope else "")


def _cast_inputs(graph: fx.GraphModule, node: fx.Node, dtype: torch.dtype, inputs: Sequence[fx.Node]) -> None:
    for source in inputs:
        with graph.graph.inserting_before(node):
            node.replace_input_with(source, graph.graph.call_method("to", (source, dtype)))


def _cast_output(graph: fx.GraphModule, node: fx.Node, dtype: torch.dtype) -> None:
    with graph.graph.inserting_after(node):
        cast_output = graph.graph.call_method("to", (node, dtype))
    node.replace_all_uses_with(cast_output, delete_user_cb=lambda user: user is not cast_output)

"""What `executorch` does with a model before it is a file: quantize for XNNPACK, and delegate to it.

Source: ExecuTorch, "Quantization" of the XNNPACK backend,
https://docs.pytorch.org/executorch/stable/backends/xnnpack/xnnpack-quantization.html.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS
from executorch.backends.xnnpack.partition.config.generic_node_configs import GeluConfig
from executorch.backends.xnnpack.partition.config.node_configs import MaxDimConfig
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from executorch.backends.xnnpack.utils.configs import (
    get_xnnpack_edge_compile_config,
    get_xnnpack_executorch_backend_config,
)
from executorch.exir import EdgeProgramManager, ExecutorchProgramManager, to_edge_transform_and_lower
from executorch.exir.error import ExportError, InternalError
from executorch.exir.passes import MemoryPlanningPass
from executorch.extension.pybindings import _C
from torchao.quantization.pt2e import MinMaxObserver
from torchao.quantization.pt2e.quantizer import QuantizationConfig

from quant_explorer.core.contracts import Batch, Candidate
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.core.units import list_some
from quant_explorer.runtimes.executorch.norms import separate_norms
from quant_explorer.runtimes.torch_graph import half, pt2e
from quant_explorer.tracing.reasons import explain_refusal

_aten = torch.ops.aten
# XNNPACK rescales INT8 sums by factors of a limited range; the vendor's observers have the same bound.
_SMALLEST_SCALE = 2.0**-12
# Of the operators outside of XNNPACK; a transformer has twenty.
_NAMED = 8


class _Quantizer(XNNPACKQuantizer):  # type: ignore[misc]  # ExecuTorch has no type information
    """The vendor's, without its patterns of batch norms in training: exporting them again takes 3 s."""

    SUPPORTED_PATTERNS = tuple(
        pattern for pattern in XNNPACKQuantizer.SUPPORTED_PATTERNS if "bn" not in pattern.name
    )


class _Gelu(GeluConfig):  # type: ignore[misc]  # ExecuTorch has no type information
    """The vendor's, without GELU by tanh, for which XNNPACK would compute the one by the error function."""

    def check_constraints(self, node: torch.fx.Node, ep: torch.export.ExportedProgram) -> bool:
        """Say whether XNNPACK takes the node."""
        if node.kwargs.get("approximate", "none") != "none":
            return False
        return bool(super().check_constraints(node, ep))


class _MaxDim(MaxDimConfig):  # type: ignore[misc]  # ExecuTorch has no type information
    """The vendor's, without maxima over channels or without `keepdim`, which it takes and cannot write."""

    def check_constraints(self, node: torch.fx.Node, ep: torch.export.ExportedProgram) -> bool:
        """Say whether XNNPACK takes the node."""
        keeps = len(node.args) > 2 and bool(node.args[2])
        return keeps and node.args[1] in (2, 3) and bool(super().check_constraints(node, ep))


_OWN = {GeluConfig: _Gelu, MaxDimConfig: _MaxDim}
_CONFIGS = [_OWN.get(config, config) for config in ALL_PARTITIONER_CONFIGS]


@dataclass(frozen=True)
class LoweredProgram:
    """The bytes of a .pte file, and what a reader of the report should know of it."""

    program: bytes
    notes: tuple[str, ...]


def prepare(candidate: Candidate, calibration: Sequence[Batch]) -> torch.fx.GraphModule:
    """Return the graph to lower: the float model exported, converted to FP16, or quantized.

    Raises UnsupportedError when the model cannot be exported or quantized, or has no layer of the name of
    one that is to stay in float.
    """
    unknown = set(candidate.spec.float_layers) - {name for name, _ in candidate.model.named_modules()}
    if unknown:
        raise UnsupportedError(f"the model has no layer named {', '.join(sorted(unknown))} to keep in float")
    shape = calibration[0].shape[1:]
    if candidate.spec.precision == "fp16":
        cast = half.HalfPrecisionModel(copy.deepcopy(candidate.model).half(), torch.float16).eval()
        return separate_norms(pt2e.graph_of(pt2e.export(cast, shape)))
    program = pt2e.export(candidate.model, shape)
    if candidate.spec.precision == "fp32":
        return separate_norms(pt2e.graph_of(program))
    if candidate.spec.activations == "static":
        _refuse_sampled(program)
    return pt2e.quantize(program, calibration, quantizer(candidate.spec))


def _refuse_sampled(program: torch.export.ExportedProgram) -> None:
    """Raise UnsupportedError for grid_sample between INT8 layers: the graph is right, its file is not.

    Seen in ExecuTorch 1.5: 31 and 3 dB, with the pool and the convolution behind it in float too.
    """
    layers = [
        repr(pt2e.layer_of(node)) for node in program.graph.nodes if node.target is _aten.grid_sampler.default
    ]
    if layers:
        raise UnsupportedError(
            f"ExecuTorch computes something else of grid_sample (of layer {', '.join(layers)}) between INT8 "
            "layers; choose FP32, or another runtime"
        )


def quantizer(spec: QuantSpec) -> XNNPACKQuantizer:
    """Return the vendor's quantizer with its symmetric INT8 configuration, all but `spec.float_layers`."""
    vendors = get_symmetric_quantization_config(
        is_per_channel=spec.granularity == "per_channel", is_dynamic=spec.activations == "dynamic"
    )
    config = pt2e.keep_small_weights(vendors)
    chosen = _Quantizer().set_filter_function(_is_in_none_of(spec.float_layers))
    if spec.activations == "dynamic":
        return chosen.set_operator_type(torch.ops.aten.linear.default, config)
    return chosen.set_global(_with_min_max(config) if spec.observer == "minmax" else config)


def _with_min_max(config: QuantizationConfig) -> QuantizationConfig:
    activations = dataclasses.replace(
        config.input_activation, observer_or_fake_quant_ctr=MinMaxObserver.with_args(eps=_SMALLEST_SCALE)
    )
    return dataclasses.replace(config, input_activation=activations, output_activation=activations)


def _is_in_none_of(layers: Sequence[str]) -> Callable[[torch.fx.Node], bool]:
    def keep(node: torch.fx.Node) -> bool:
        modules = {str(path) for path, _ in node.meta.get("nn_module_stack", {}).values()}
        return modules.isdisjoint(layers)

    return keep


def describe_spec(spec: QuantSpec) -> tuple[str, ...]:
    """Return what the vendor makes of a spec, as sentences for the report."""
    notes: list[str] = []
    if spec.precision == "fp16":
        notes.append(
            "FP16 activations; ExecuTorch stores the weights of convolutions in FP32, and XNNPACK multiplies "
            "in FP32 on CPUs without FP16 arithmetic (AVX512-FP16, Armv8.2)"
        )
    if spec.precision == "int8":
        notes.append("quantizer: XNNPACKQuantizer, symmetric weights from -127 to 127")
    if spec.activation_ranges:
        notes.append("activation ranges learned in training are not used: the quantizer calibrates again")
    return tuple(notes)


def lower(graph: torch.fx.GraphModule, shape: Sequence[int], sizes: Sequence[int]) -> LoweredProgram:
    """Lower `graph` once for each number of images in `sizes`, in one file that stores equal weights once.

    A method for a range of sizes would reserve the memory of the largest for the smallest, and XNNPACK
    leaves reshapes with an unknown dimension to slower kernels. The method for one image is "forward".
    Raises UnsupportedError when ExecuTorch has no kernel for a part of the graph.
    """
    with (
        torch.no_grad(),
        explain_refusal(
            "ExecuTorch cannot lower the exported graph",
            "write the operators it is about otherwise, or choose another runtime",
            *(KeyError, ExportError, InternalError),
        ),
    ):
        programs = {
            method_name(size): torch.export.export(graph, (torch.zeros(size, *shape),)) for size in sizes
        }
        edge = to_edge_transform_and_lower(
            programs,
            partitioner=[XnnpackPartitioner(configs=_CONFIGS)],
            compile_config=get_xnnpack_edge_compile_config(),
        )
        outside = _outside_xnnpack(edge, method_name(sizes[0]))
        _refuse_unfused(edge, method_name(sizes[0]))
        # The caller's memory for the images: the runtime would copy them to its own before each call.
        planning = MemoryPlanningPass(alloc_graph_input=False)
        config = get_xnnpack_executorch_backend_config()
        program = edge.to_executorch(dataclasses.replace(config, memory_planning_pass=planning))
    missing = _kernels(program) - set(_C._get_operator_names())
    if missing:
        raise UnsupportedError(
            f"XNNPACK does not take {', '.join(sorted(missing)).replace('::', '.')}, and ExecuTorch's "
            "wheel has no kernel for it; write it otherwise, or choose another runtime"
        )
    data = bytes(program.buffer)
    _try(data, torch.zeros(sizes[0], *shape), method_name(sizes[0]), outside)
    return LoweredProgram(data, outside)


def method_name(size: int) -> str:
    """Return the method for `size` images; "forward" is what ExecuTorch's own examples call."""
    return "forward" if size == 1 else f"batch_{size}"


def _outside_xnnpack(edge: EdgeProgramManager, method: str) -> tuple[str, ...]:
    calls = Counter(
        str(node.target.__name__)
        for node in edge.exported_program(method).graph.nodes
        if node.op == "call_function"
    )
    for plumbing in ("executorch_call_delegate", "getitem"):
        calls.pop(plumbing, None)
    if not calls:
        return ("XNNPACK runs the whole graph",)
    named = [f"{name} x {times}" if times > 1 else name for name, times in sorted(calls.items())]
    return (f"not taken by XNNPACK, run by ExecuTorch's portable kernels: {list_some(named, _NAMED)}",)


def _refuse_unfused(edge: EdgeProgramManager, method: str) -> None:
    """Raise UnsupportedError for INT8 weights whose layer XNNPACK does not take: nothing else reads them."""
    for node in edge.exported_program(method).graph.nodes:
        if node.op == "call_function" and node.target.__name__.endswith("dequantize_per_channel.default"):
            operators = ", ".join(sorted({str(user.target.__name__) for user in node.users}))
            raise UnsupportedError(
                f"XNNPACK has no INT8 kernel for {operators} with weights of shape {list(_sizes(node))}, and "
                "ExecuTorch has no other; keep that layer in float, or choose another runtime"
            )


def _sizes(node: torch.fx.Node) -> Sequence[int]:
    sizes: Sequence[int] = node.meta["val"].shape
    return sizes


def _try(data: bytes, images: torch.Tensor, method: str, outside: Sequence[str]) -> None:
    """Run the program once: ExecuTorch's own kernels find out then what they do not take."""
    try:
        _C._load_for_executorch_from_buffer(data).run_method(method, (images,))
    except RuntimeError as error:
        raise UnsupportedError(
            f"ExecuTorch lowers the model but does not run it ({'; '.join(outside)}); write these operators "
            "otherwise, or choose another runtime"
        ) from error


def _kernels(program: ExecutorchProgramManager) -> set[str]:
    return {
        f"{operator.name}.{operator.overload}" if operator.overload else str(operator.name)
        for plan in program.executorch_program.execution_plan
        for operator in plan.operators
    }

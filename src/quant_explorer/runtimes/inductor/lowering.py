"""How `inductor` lowers: quantize or cast the exported program, compile it with AOTInductor.

Sources: see `inductor.py`.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import zipfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import torch
from torch import nn
from torch.export import ExportedProgram

from quant_explorer.core.contracts import Batch, Candidate
from quant_explorer.core.errors import BuildError, UnsupportedError, explain
from quant_explorer.core.host.architecture import is_x86
from quant_explorer.core.quantspec import Grid, QuantSpec, Target
from quant_explorer.runtimes.inductor import cpp_compiler
from quant_explorer.runtimes.inductor.saturation import explain_reduced_range, saturates
from quant_explorer.runtimes.saturation import exact_by
from quant_explorer.runtimes.torch_graph import half, pt2e
from quant_explorer.runtimes.torch_graph import macs as torch_macs
from quant_explorer.tracing.plain import TRANSPOSED, layers_of
from quant_explorer.tracing.reasons import in_brackets

if TYPE_CHECKING:
    from torchao.quantization.pt2e.quantizer import QuantizationConfig
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import X86InductorQuantizer

_log = logging.getLogger(__name__)
# torchao's own smallest scale, for both of its observers of activations.
_EPS = 2**-12

# The oldest x86-64 CPUs that Inductor vectorizes for.
_PORTABLE_LEVEL = "x86-64-v3"
_PORTABLE: Final[dict[str, object]] = {"cpp.march": _PORTABLE_LEVEL, "cpp.simdlen": 256}

SETTINGS: Final[dict[str, object]] = {
    # Without it weights are arguments, and no pattern of quantized weights is replaced by an INT8 kernel.
    "freezing": True,
    # The library takes the threads of the process that loads it, not of the one that built it.
    "cpp.dynamic_threads": True,
    # Debug information would be half of the file.
    "aot_inductor.enable_line_tables": False,
    # The first package on a machine, which makes them, came out with another size than those that use them.
    "aot_inductor.precompile_headers": False,
    # Shapes are checked at the entrance; those inside follow. Their messages contain addresses.
    "size_asserts": False,
    # The check at the entrance would refuse a batch of one: the compiler counts on at least two.
    "aot_inductor.check_lowerbound": False,
}


def prepare(candidate: Candidate, calibration: Sequence[Batch]) -> tuple[ExportedProgram, tuple[str, ...]]:
    """Return the program to compile, for any batch size, and notes for the report."""
    model, spec, shape = candidate.model, candidate.spec, calibration[0].shape[1:]
    notes = (_explain_instruction_set(spec.target),)
    if spec.precision == "fp32":
        return pt2e.export(model, shape), (*notes, _REPACKED)
    if spec.precision in half.DTYPES:
        dtype = half.DTYPES[spec.precision]
        cast = half.HalfPrecisionModel(copy.deepcopy(model).to(dtype), dtype).eval()
        emulation = half.explain_emulation(spec.precision)
        return pt2e.export(cast, shape), (*notes, _REPACKED, *([emulation] if emulation else []))
    quantizer, quantizer_notes = _quantizer(spec)
    if spec.activations == "static":
        quantizer_notes += tuple(f"{layer} stays in float: {_ONE_CHANNEL}" for layer in _one_channel(model))
    graph = pt2e.quantize(pt2e.export(model, shape), calibration, quantizer, _is_miscompiled)
    pt2e.fix_sizes(graph, calibration[0])
    _straighten_inputs(graph)
    return pt2e.export(graph, shape), (*notes, *quantizer_notes)


def _straighten_inputs(graph: torch.fx.GraphModule) -> None:
    """Copy the inputs of linear layers whose memory is transposed, as behind attention.

    PyTorch spells such a layer as a product of batches, for which torchao's passes fail.
    """
    for node in list(graph.graph.nodes):
        source = node.args[0] if node.target is torch.ops.aten.linear.default else None
        if not isinstance(source, torch.fx.Node) or source.meta["val"].is_contiguous():
            continue
        with graph.graph.inserting_before(node):
            straight = graph.graph.call_function(
                torch.ops.aten.clone.default, (source,), {"memory_format": torch.contiguous_format}
            )
        node.replace_input_with(source, straight)
    graph.recompile()


_REPACKED = (
    "float convolutions reorder weights at each call: Inductor packs ahead only for a fixed batch size"
)


# Seen in PyTorch 2.14: onednn.qconv2d_pointwise itself is right, the compiled package is far off.
_NOT_TAKEN = "torchao's quantizer takes 2-d convolutions and linear layers"
_ONE_CHANNEL = "AOTInductor compiles an INT8 convolution of one input channel to something else"


# Places among the arguments of conv2d and max_pool2d.
_GROUPS, _CEIL_MODE = 6, 5


def _is_miscompiled(node: torch.fx.Node) -> bool:
    """Say whether it is a convolution of one input channel, or a max pool that rounds its size up.

    Depthwise convolutions are right. Of such a pool, torchao's passes compute the size rounded down.
    """
    if node.target is torch.ops.aten.max_pool2d.default:
        return len(node.args) > _CEIL_MODE and bool(node.args[_CEIL_MODE])
    if node.target is not torch.ops.aten.conv2d.default:
        return False
    weight = node.args[1]
    assert isinstance(weight, torch.fx.Node)
    groups = node.args[_GROUPS] if len(node.args) > _GROUPS else 1
    return bool(groups == 1 and weight.meta["val"].shape[1] == 1)


def _one_channel(model: nn.Module) -> list[str]:
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.in_channels == 1
    ]


def explain_float_layers(model: nn.Module) -> dict[str, str]:
    """Return the layers that static INT8 leaves in float, and why."""
    unquantized = layers_of(model, (nn.Conv3d, *TRANSPOSED))
    return dict.fromkeys(unquantized, _NOT_TAKEN) | dict.fromkeys(_one_channel(model), _ONE_CHANNEL)


def _explain_instruction_set(target: Target) -> str:
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    if target == "portable":
        return f"compiled for any CPU of {_PORTABLE_LEVEL} (AVX2 and FMA)"
    return f"compiled for this CPU's instruction set ({pick_vec_isa()}) and for no lesser CPU"


def needed_features(spec: QuantSpec) -> tuple[str, ...]:
    """Return what a package compiled for the target of `spec` needs of a CPU to run and to be exact."""
    if spec.target == "portable":
        return (_PORTABLE_LEVEL,)
    compiled = cpp_compiler.compiled_features()
    if spec.precision != "int8" or not is_x86():
        return compiled
    return (*compiled, *exact_by(saturates=saturates()))


def settings(target: Target) -> dict[str, object]:
    """Return Inductor's options for code of the target."""
    return SETTINGS | (_PORTABLE if target == "portable" else {})


def _quantizer(spec: QuantSpec) -> tuple[X86InductorQuantizer, tuple[str, ...]]:
    from torchao.quantization.pt2e.quantizer import arm_inductor_quantizer as arm
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    dynamic = spec.activations == "dynamic"
    notes: tuple[str, ...] = ()
    if is_x86():
        quantizer = x86.X86InductorQuantizer()
        reason = explain_reduced_range(spec.target)
        reduced = reason is not None
        config = x86.get_default_x86_inductor_quantization_config(is_dynamic=dynamic, reduce_range=reduced)
        notes = (reason,) if reason else ()
    else:
        quantizer = arm.ArmInductorQuantizer()
        config = arm.get_default_arm_inductor_quantization_config(is_dynamic=dynamic)
    config = pt2e.keep_small_weights(config)
    for layer in spec.float_layers:
        quantizer.set_module_name_qconfig(layer, None)
    if dynamic:
        quantizer.set_module_type_qconfig(nn.Linear, config)
    else:
        quantizer.set_global(_with_observer(config, spec))
        if spec.activation_ranges:
            notes += ("ranges learned in training are not used: torchao calibrates again",)
    return quantizer, (f"quantizer: torchao {type(quantizer).__name__}", *notes)


def grid(target: Target) -> Grid:
    """Return the grid of the vendor's quantizer for the target."""
    reduced = is_x86() and explain_reduced_range(target) is not None
    levels = 127 if reduced else 255
    return Grid(activation_levels=levels, transposed="float", transposed_groups="float")


def _with_observer(config: QuantizationConfig, spec: QuantSpec) -> QuantizationConfig:
    """torchao's own recipe, with the observer of activations that the spec asks for."""
    from torchao.quantization.pt2e import HistogramObserver, MinMaxObserver

    observer = {"histogram": HistogramObserver, "minmax": MinMaxObserver}[spec.observer]
    activation = dataclasses.replace(
        config.input_activation, observer_or_fake_quant_ctr=observer.with_args(eps=_EPS)
    )
    return dataclasses.replace(config, input_activation=activation, output_activation=activation)


def count_macs(model: nn.Module, image: Batch) -> int:
    """Return the multiply-accumulates of the float model for `image` (1, channels, height, width)."""
    return sum(torch_macs.count_macs(model, image).macs.values())


def compile_package(
    program: ExportedProgram, path: Path, metadata: dict[str, str], options: dict[str, object]
) -> None:
    """Compile `program` with AOTInductor and its `options` to a package at `path`, with `metadata` in it.

    Intermediate files and generated sources are removed. Raises BuildError when Inductor or the C++
    compiler fails.
    """
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.exc import InductorError
    from torch._inductor.utils import fresh_cache

    configs = options | {"aot_inductor.metadata": dict(metadata)}
    # A failure would leave what fresh_cache makes.
    with TemporaryDirectory() as scratch:
        whole = Path(scratch) / path.name
        try:
            with torch.no_grad(), fresh_cache(dir=scratch):
                aoti_compile_and_package(program, package_path=str(whole), inductor_configs=configs)
        except InductorError as error:
            raise BuildError(f"Inductor cannot compile the model: {_summarize(explain(error))}") from error
        except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            # What passes over graphs raise for one that they were not written for.
            _log.info("Inductor: %s", error)
            raise UnsupportedError(
                f"Inductor cannot compile the exported graph{in_brackets(error)}; choose another runtime, "
                "or FP32"
            ) from error
        _leave_out_sources(whole, path)


def check_images(program: ExportedProgram, model: nn.Module, shape: Sequence[int]) -> None:
    """Raise UnsupportedError when compiling `program` has fixed the number of images (n, *shape).

    Inductor does so silently, and the package returns as many rows for any other number. `model` is the
    float model, whose layers are named.
    """
    (name,) = program.graph_signature.user_inputs
    entrance = next(node for node in program.graph.nodes if node.name == name)
    images = entrance.meta["val"].shape[0]
    count = images if isinstance(images, int) else images.node.maybe_as_int()
    if count is None:
        return
    grouped = [
        f"{node.target.overloadpacket.__name__} of layer {pt2e.layer_of(node)!r}"
        for node in pt2e.export(model, shape).graph.nodes
        if str(node.target).startswith("aten.conv")
        and len(node.args) > _GROUPS
        and isinstance(node.args[_GROUPS], torch.fx.Node)
    ]
    because = f" (groups computed from their number: {', '.join(grouped)})" if grouped else ""
    raise UnsupportedError(
        f"Inductor compiles the model for {count} images only{because}; write it without the number of "
        "images, or choose another runtime"
    )


def _leave_out_sources(whole: Path, path: Path) -> None:
    """Write the package without the generated C++: no loader reads it, and scales as text vary in length."""
    with zipfile.ZipFile(whole) as package, zipfile.ZipFile(path, "w") as kept:
        for entry in package.infolist():
            if not entry.filename.endswith(".cpp"):
                kept.writestr(entry, package.read(entry))


def _summarize(message: str) -> str:
    """The first line, and the first that a C++ compiler calls an error."""
    lines = message.splitlines()
    return "; ".join([*lines[:1], *[line for line in lines if "error:" in line][:1]])

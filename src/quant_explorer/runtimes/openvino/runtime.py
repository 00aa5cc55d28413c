"""OpenVINO on the CPU, INT8 by NNCF's post-training quantization.

Artifact: `model.xml` and `model.bin` (OpenVINO IR). Source of the method: OpenVINO, "Basic quantization
flow" and "Precision control", https://docs.openvino.ai/2025/openvino-workflow.html.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from quant_explorer.core.contracts import Batch, Candidate, Deployment, Lowering
from quant_explorer.core.host.packages import explain_missing, package_versions
from quant_explorer.core.quantspec import FULL_RANGE, Grid, Precision, QuantSpec

if TYPE_CHECKING:
    from quant_explorer.runtimes.openvino.session import OpenVinoSession

MODEL_FILE = "model.xml"


@dataclass(frozen=True)
class OpenVino:
    """The `openvino` runtime. `precision` is the one that floating-point layers may compute in at most."""

    precision: str = "fp32"
    name: ClassVar[str] = "openvino"
    version: ClassVar[int] = 7
    deployment: ClassVar[Deployment] = Deployment(("openvino",), Path(__file__).with_name("predict.py.jinja"))

    def unavailable(self) -> str | None:
        """OpenVINO, NNCF and the ONNX exporter are an extra."""
        return explain_missing("openvino", "openvino", "nncf", "onnx", "onnxscript")

    def cpu_features(self) -> tuple[str, ...]:
        """INT8 weights have 8 bits where the plugin's kernels are exact; half precision may be emulated."""
        from quant_explorer.runtimes.openvino.saturation import saturates
        from quant_explorer.runtimes.openvino.session import computes_natively
        from quant_explorer.runtimes.saturation import exact_by

        native = (precision.upper() for precision in ("bf16", "fp16") if computes_natively(precision))
        return (*exact_by(saturates=saturates()), *native)

    def versions(self) -> dict[str, str]:
        """Return the versions of what exports, converts, quantizes and runs."""
        return package_versions("openvino", "nncf", "onnx", "onnx-ir", "onnxscript", "torch")

    def unsupported(self, candidate: Candidate) -> str | None:
        """INT8 is static; half precision is that of the whole model."""
        spec = candidate.spec
        if spec.precision != "int8":
            if spec.activations != "float":
                return f"{spec.activations} quantization of activations needs int8, not {spec.precision}"
            if spec.precision != "fp32" and spec.float_layers:
                return f"openvino lowers the whole model to {spec.precision}: no layers can stay in fp32"
            return _explain_missing_kernels() if spec.precision == "bf16" else None
        if spec.activations == "dynamic":
            return (
                "in a model for any number of images, OpenVINO's CPU plugin unpacks the INT8 weights of a "
                "linear layer that follows a flattening and computes it in float32; choose static INT8"
            )
        if spec.activations == "float":
            return "OpenVINO computes INT8 weights with float activations in float32; choose static INT8"
        return None

    def kept_in_float(self, candidate: Candidate) -> dict[str, str]:
        """NNCF quantizes all convolutions and linear layers."""
        return {}

    def lower(self, candidate: Candidate, calibration: Sequence[Batch], folder: Path) -> Lowering:
        """Export to ONNX, convert, quantize as the spec asks, and write `model.xml` and `model.bin`.

        Raises UnsupportedError when the model cannot be exported, or a layer of `float_layers` is not in it.
        """
        from quant_explorer.runtimes.onnx_graph.checking import check_exported
        from quant_explorer.runtimes.onnx_graph.export import export_onnx
        from quant_explorer.runtimes.openvino import lowering as openvino_lowering
        from quant_explorer.runtimes.openvino.saturation import explain_reduced_range
        from quant_explorer.runtimes.saturation import exact_by

        spec = candidate.spec
        exported = export_onnx(candidate.model, calibration[0])
        if spec.precision != "fp32":
            check_exported(candidate.model, calibration[0], openvino_lowering.run_once(exported))
        needs: tuple[str, ...] = ()
        grid = FULL_RANGE
        if spec.precision == "int8":
            reason = explain_reduced_range(spec.target)
            reduced = reason is not None
            model = openvino_lowering.quantize(exported, spec, calibration, reduced=reduced)
            notes = _quantization_notes(spec)
            notes = (*notes, reason) if reason else notes
            needs = exact_by(saturates=reduced)
            grid = Grid(weight_levels=63.5 if reduced else 127, shares_pools=False)
        else:
            model = openvino_lowering.convert(exported)
            notes = _half_notes(spec.precision)
        half = spec.precision in ("fp16", "bf16")
        openvino_lowering.save(model, folder / MODEL_FILE, half=half)
        return Lowering(notes=notes, options=(("precision", spec.precision),), needs=needs, grid=grid)

    def load_libraries(self, threads: int) -> None:
        """Import OpenVINO and load its CPU plugin with `threads` threads in one stream."""
        from quant_explorer.runtimes.openvino import session as openvino_session

        openvino_session.load_plugin(threads)

    def open(self, folder: Path) -> OpenVinoSession:
        """Read the model; it is compiled for the number of images it is first given."""
        from quant_explorer.runtimes.openvino.session import OpenVinoSession

        return OpenVinoSession(folder / MODEL_FILE, self.precision)


def _quantization_notes(spec: QuantSpec) -> tuple[str, ...]:
    notes = [
        "quantizer: NNCF post-training quantization, preset mixed (weights symmetric, activations "
        f"asymmetric), activation ranges by {spec.observer}, bias correction"
    ]
    if spec.activation_ranges:
        notes.append("activation ranges learned in training are not used: NNCF calibrates the tuned weights")
    return tuple(notes)


def _explain_missing_kernels() -> str | None:
    from quant_explorer.runtimes.openvino.session import has_kernels

    if has_kernels("bf16"):
        return None
    return (
        "OpenVINO has no bf16 kernels for this CPU (they need AVX-512, AVX-NE-CONVERT or Arm's BF16) and "
        "would compute in FP32; fp16 stores the weights in 16 bits too"
    )


def _half_notes(precision: Precision) -> tuple[str, ...]:
    from quant_explorer.runtimes.openvino.session import computes_natively, has_kernels

    if precision == "fp32":
        return ()
    native = computes_natively(precision)
    half = has_kernels("fp16")
    computed = {
        "fp16": "computed in FP16" if half else "computed in FP32: this CPU has no FP16 arithmetic",
        "bf16": "computed in BF16" + ("" if native else ", emulated: this CPU has no BF16 arithmetic"),
    }
    return (f"weights are stored in FP16 and {computed[precision]}",)

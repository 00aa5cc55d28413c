"""Quantization-aware training: fine-tune with the rounding of the asked-for INT8 in the forward pass.

Weights are fake-quantized at every step with gradients passed straight through; activation ranges
are observed first, on the calibration images with the same observer as post-training quantization,
and then held, as in Wu et al., "Integer Quantization for Deep Learning Inference", 2020 (section 5.2).
The result is a float model with the trained weights, so that any runtime can lower it. PyTorch's FX graph
mode (`qat_fx.py`) also gives the ranges, which `eager` and `torchscript` use; torchao's PT2E (`qat_pt2e.py`)
is for a PyTorch without FX quantization and for models that FX cannot take.
Source: Jacob et al., CVPR 2018.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from quant_explorer.core.contracts import Batch, Candidate, Workbench
from quant_explorer.core.errors import UnsupportedError, explain
from quant_explorer.core.host.packages import explain_missing, package_versions
from quant_explorer.core.quantspec import ActivationRange

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class FakeQuantized:
    """A model to train, with INT8 simulated and activation ranges held.

    `restore` returns a copy of a float model, in evaluation mode, with what was trained in `module`. `note`
    is for the report. `activation_ranges` are empty where no runtime can use them.
    """

    module: nn.Module
    restore: Callable[[nn.Module], nn.Module]
    note: str
    activation_ranges: tuple[ActivationRange, ...] = ()


@dataclass(frozen=True)
class QuantizationAwareTraining:
    """Train `epochs` with fake quantization at a peak of `learning_rate`."""

    epochs: int = 1
    learning_rate: float = 0.005
    name: ClassVar[str] = "qat"
    version: ClassVar[int] = 6
    trains: ClassVar[bool] = True

    def versions(self) -> dict[str, str]:
        """What is there decides which of the two simulates INT8."""
        fx = "missing" if _explain_missing_fx() else "available"
        return {"torch.ao.quantization": fx, **package_versions("torchao")}

    def unsupported(self, candidate: Candidate) -> str | None:
        """The precision to train for must have been asked for by an earlier step, and can be simulated."""
        from quant_explorer.tracing.onnx_program import explain_no_module

        if reason := explain_no_module(candidate.model):
            return reason
        if candidate.spec.activations != "static":
            return "quantization-aware training needs a static INT8 step before it"
        without_fx, without_pt2e = _explain_missing_fx(), _explain_missing_pt2e()
        if without_fx and without_pt2e:
            return f"quantization-aware training needs torchao, for {without_fx}; {without_pt2e}"
        return None

    def apply(self, candidate: Candidate, workbench: Workbench) -> Candidate:
        """Return a float model with the trained weights and a spec with the activation ranges, if any.

        Raises UnsupportedError when the model can be captured neither by torch.fx nor by torch.export.
        """
        prepared = _prepare(candidate, workbench)
        notes: tuple[str, ...] = (prepared.note,)
        if not _trains_alike(prepared.module, candidate.model, workbench.calibration[0]):
            notes = (*notes, _OTHER_TRAINING)
        workbench.fine_tune(
            prepared.module,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            label="fine-tune INT8 (QAT)",
        )
        return dataclasses.replace(
            candidate,
            model=prepared.restore(candidate.model),
            spec=dataclasses.replace(candidate.spec, activation_ranges=prepared.activation_ranges),
            notes=(*candidate.notes, *notes),
        )


_OTHER_TRAINING = (
    "training took place in the graph of evaluation mode: what forward() does in training alone, beside "
    "norms and dropout, was left out"
)
# Folding a batch norm only rounds differently.
_TOLERANCE = 1e-2


def _trains_alike(prepared: nn.Module, model: nn.Module, example: Batch) -> bool:
    """Say whether both compute the same for images (n, C, H, W) in training, without fake quantization."""
    import torch

    outputs: list[object] = []
    for module in (model, prepared):
        copied = copy.deepcopy(module).train()
        for part in copied.modules():
            # Of either library.
            disable = getattr(part, "disable_fake_quant", None)
            if callable(disable):
                disable()
        # The same numbers for dropout.
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.default_generator.manual_seed(0)
            outputs.append(copied(torch.from_numpy(example.copy())))
    expected, found = outputs
    if not isinstance(expected, torch.Tensor) or not isinstance(found, torch.Tensor):
        return False
    return bool((found - expected).abs().max() <= _TOLERANCE * expected.abs().max())


def _prepare(candidate: Candidate, workbench: Workbench) -> FakeQuantized:
    model, spec, calibration = candidate.model, candidate.spec, workbench.calibration
    reason = _explain_missing_fx()
    if reason is None:
        from quant_explorer.techniques import qat_fx

        try:
            return qat_fx.prepare(model, spec, calibration)
        except UnsupportedError as error:
            if _explain_missing_pt2e():
                raise
            reason = explain(error)
    from quant_explorer.techniques import qat_pt2e

    try:
        prepared = qat_pt2e.prepare(model, spec, calibration)
    except UnsupportedError as error:
        raise UnsupportedError(f"{reason}; nor can torchao train it: {explain(error)}") from error
    return dataclasses.replace(prepared, note=f"{prepared.note}, for {reason}")


def _explain_missing_fx() -> str | None:
    try:
        from torch.ao.quantization import quantize_fx  # noqa: F401
    except ImportError:
        return "this PyTorch has no torch.ao.quantization"
    return None


def _explain_missing_pt2e() -> str | None:
    return explain_missing("qat", "torchao")

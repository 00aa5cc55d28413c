"""A model that is an ONNX file: a module whose weights cannot be changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import torch
from torch import nn

from quant_explorer.core.contracts import Batch

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

INPUT_NAME, OUTPUT_NAME = "images", "logits"


class _Holder(Protocol):
    program: torch.Tensor


class OnnxProgram(nn.Module):
    """Computes a serialized graph by ONNX Runtime, for any number of images.

    Its input is called `images`, its output `logits`. Its layers are there by name with their weights, so
    that they can be chosen by name and counted; what is computed is the file alone. `linear` names those that
    multiply by a matrix.
    """

    def __init__(self, data: bytes, layers: Mapping[str, torch.Tensor], linear: tuple[str, ...]) -> None:
        """Take a file whose nodes are named `<layer>/<operator>`, and the weights of its layers."""
        super().__init__()
        # A buffer, so that digests of the weights are of the whole file.
        self.register_buffer("program", torch.frombuffer(bytearray(data), dtype=torch.uint8))
        self.linear = linear
        self._session: InferenceSession | None = None
        for name, weight in layers.items():
            owner: nn.Module = self
            for part in name.split("."):
                if part not in owner._modules:
                    owner.add_module(part, nn.Module())
                owner = cast(nn.Module, owner._modules[part])
            owner.register_parameter("weight", nn.Parameter(weight, requires_grad=False))

    @property
    def data(self) -> bytes:
        """The serialized graph."""
        return cast(_Holder, self).program.numpy().tobytes()

    @property
    def convolutions(self) -> tuple[str, ...]:
        """Layers with weights that are not linear."""
        layers = (name for name, module in self.named_modules() if "weight" in module._parameters)
        return tuple(name for name in layers if name not in self.linear)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map float32 images (n, channels, height, width) to float32 logits (n, classes)."""
        if self._session is None:
            from onnxruntime import InferenceSession, SessionOptions

            options = SessionOptions()
            options.log_severity_level = 3
            options.intra_op_num_threads = torch.get_num_threads()
            self._session = InferenceSession(self.data, options, providers=["CPUExecutionProvider"])
        given = np.ascontiguousarray(images.detach().numpy(), dtype=np.float32)
        logits: Batch = self._session.run([OUTPUT_NAME], {INPUT_NAME: given})[0]
        return torch.from_numpy(logits)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_session": None}


def explain_no_module(model: nn.Module) -> str | None:
    """Return why PyTorch's own runtimes and what changes weights cannot have a model, or None."""
    if isinstance(model, OnnxProgram):
        return (
            "the model is an ONNX file, which has no PyTorch module; give the module "
            "(path/to/file.py:function) or the program of torch.export (.pt2)"
        )
    return None


def linear_layers(model: nn.Module) -> tuple[str, ...]:
    """Return the qualified names of the layers that multiply by a matrix."""
    if isinstance(model, OnnxProgram):
        return model.linear
    return tuple(name for name, module in model.named_modules() if isinstance(module, nn.Linear))

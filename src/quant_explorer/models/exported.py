"""A `.pt2` file: what torch.export.save wrote of a model, with its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from quant_explorer.core.data.preprocessing import Preprocessing
from quant_explorer.core.errors import ModelError
from quant_explorer.models.architecture import Shape
from quant_explorer.models.user import read_preprocessing

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

# Of `extra_files` when the program was saved.
PREPROCESSING_FILE = "preprocessing.json"
# Two images and more are other programs for PyTorch than one.
_CHECKED_IMAGES = 3
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class ExportedModel:
    """`path/to/file.pt2`. Nothing of it is run but operators of PyTorch, see `tracing/program_file.py`."""

    name: str
    path: Path

    @property
    def description(self) -> str:
        """Where the model comes from."""
        return f"exported program {self.path}"

    @property
    def notes(self) -> tuple[str, ...]:
        """That it was captured for evaluation."""
        return (
            f"Model: {self.path.name} is a program captured in evaluation mode; dropout stays off where it "
            "is fine-tuned",
        )

    @cached_property
    def _read(self) -> tuple[ExportedProgram, Mapping[str, str]]:
        from quant_explorer.tracing.program_file import read_program

        return read_program(self.path)

    def input_shape(self, image_shape: Shape) -> Shape:
        """Return the shape of an image, with the sizes that the program was captured for.

        Raises ModelError for a program that takes something else than one batch of any number of images.
        """
        shape = self._shape()
        if len(shape) != 4:
            raise ModelError(
                f"{self.path}: its input has shape {_shown(shape)}. Allowed: (n, channels, h, w)."
            )
        if shape[0] is not None:
            raise ModelError(
                f"{self.path}: takes {shape[0]} images at a time and no other number. Export it for any: "
                "torch.export.export(model, (torch.zeros(16, ...),), "
                "dynamic_shapes=({0: torch.export.Dim('batch', min=1)},))."
            )
        channels, height, width = (own or wanted for own, wanted in zip(shape[1:], image_shape, strict=True))
        return channels, height, width

    def preprocessing(self) -> Preprocessing:
        """Return what `preprocessing.json` in the archive asks for; raises ModelError."""
        text = self._read[1].get(PREPROCESSING_FILE)
        where = f"{self.path}: {PREPROCESSING_FILE}"
        try:
            return read_preprocessing(None if text is None else json.loads(text), where)
        except ValueError as error:
            raise ModelError(f"{where} is not JSON ({error})") from error

    def build(self, classes: int, input_shape: Shape) -> nn.Module:
        """Return the program as a module of layers; raises ModelError when they compute something else."""
        import torch

        from quant_explorer.tracing.raised import raise_layers

        program = self._read[0]
        module = raise_layers(program)
        images = torch.rand(_CHECKED_IMAGES, *input_shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected, found = program.module()(images.clone()), module(images.clone())
        if not isinstance(expected, torch.Tensor):
            raise ModelError(
                f"{self.path}: returns a {type(expected).__name__}. Allowed: one tensor of logits; "
                "export a module that returns it."
            )
        if not torch.allclose(found, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
            raise ModelError(
                f"{self.path}: its layers compute something else than the program; give the function that "
                "makes the module, as path/to/file.py:function."
            )
        return module

    def _shape(self) -> tuple[int | None, ...]:
        import torch

        program = self._read[0]
        names = program.graph_signature.user_inputs
        found = [node.meta.get("val") for node in program.graph.nodes if node.name in names]
        if len(found) != 1 or not isinstance(found[0], torch.Tensor):
            raise ModelError(
                f"{self.path}: takes {len(found)} inputs ({', '.join(map(str, names))}). Allowed: one."
            )
        if found[0].dtype != torch.float32:
            raise ModelError(f"{self.path}: takes images of {found[0].dtype}. Allowed: torch.float32.")
        if (values := len(program.graph_signature.user_outputs)) != 1:
            raise ModelError(
                f"{self.path}: returns {values} values. Allowed: one tensor of logits; "
                "export a module that returns it."
            )
        return tuple(size if isinstance(size, int) else None for size in found[0].shape)


def _shown(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('n' if size is None else str(size) for size in shape)})"


def parse_exported(name: str) -> ExportedModel | None:
    """Return the program that `name` stands for, or None; raises ModelError without a file."""
    if not name.endswith(".pt2"):
        return None
    path = Path(name).expanduser()
    if not path.is_file():
        raise ModelError(f"--model {name}: no such file")
    return ExportedModel(name, path)

"""An `.onnx` file as a model: checked, and as `onnxruntime` and `openvino` lower from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from quant_explorer.core.data.preprocessing import Preprocessing
from quant_explorer.core.errors import ModelError
from quant_explorer.core.host.packages import explain_missing
from quant_explorer.models.architecture import Shape
from quant_explorer.models.user import read_preprocessing

if TYPE_CHECKING:
    from torch import nn

    from quant_explorer.models.onnx_graph import OnnxGraph

# Keys of metadata_props: one with a JSON object, or single fields as JSON; and the names of the outputs.
PREPROCESSING_KEY, CLASSES_KEY = "preprocessing", "classes"
_FIELDS = ("resize", "crop", "interpolation", "antialias", "mean", "std", "value_range")
# Of "Image.NominalPixelRange" in ONNX's own list of metadata, https://onnx.ai/onnx/repo-docs/MetadataProps.html.
_RANGE_KEY = "Image.NominalPixelRange"
_RANGES: Mapping[str, dict[str, object]] = {
    "NominalRange_0_255": {"mean": 0.0, "std": 1.0, "value_range": 255.0},
    "Normalized_0_1": {"mean": 0.0, "std": 1.0, "value_range": 1.0},
    "Normalized_1_1": {"mean": 0.5, "std": 0.5, "value_range": 1.0},
}


@dataclass(frozen=True)
class OnnxFile:
    """`path/to/file.onnx`, with weights in it or in files of the same folder."""

    name: str
    path: Path

    @property
    def description(self) -> str:
        """Where the model comes from."""
        return f"ONNX file {self.path}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What was changed to take any number of images."""
        return self._graph.notes

    @cached_property
    def _graph(self) -> OnnxGraph:
        if missing := explain_missing("onnxruntime", "onnx", "onnxruntime"):
            raise ModelError(f"--model {self.name}: {missing}")
        from quant_explorer.models.onnx_graph import read_onnx

        return read_onnx(self.path)

    def input_shape(self, image_shape: Shape) -> Shape:
        """Return the shape of an image, with the sizes that the file has."""
        channels, height, width = (
            own or wanted for own, wanted in zip(self._graph.shape, image_shape, strict=True)
        )
        return channels, height, width

    def preprocessing(self) -> Preprocessing:
        """Return what the metadata of the file ask for; raises ModelError for a value that is none."""
        metadata = self._graph.metadata
        asked: dict[str, object] = dict(_RANGES.get(metadata.get(_RANGE_KEY, ""), {}))
        for key in (*_FIELDS, PREPROCESSING_KEY):
            if key not in metadata:
                continue
            value = _parse(metadata[key])
            if key != PREPROCESSING_KEY:
                asked[key] = value
            elif isinstance(value, dict):
                asked |= value
            else:
                raise ModelError(f"{self.path}: its metadata {key} are no JSON object")
        return read_preprocessing(asked or None, f"{self.path}: metadata")

    def outputs(self) -> tuple[str, ...]:
        """Return the names of the outputs in order, none where the metadata have none."""
        names = _parse(self._graph.metadata.get(CLASSES_KEY, "[]"))
        return tuple(map(str, names)) if isinstance(names, list) else ()

    def build(self, classes: int, input_shape: Shape) -> nn.Module:
        """Return the module that computes the file; raises ModelError when ONNX Runtime cannot."""
        return self._graph.build(input_shape)


def _parse(text: str) -> object:
    try:
        value: object = json.loads(text)
    except ValueError:
        return text
    return value


def parse_onnx(name: str) -> OnnxFile | None:
    """Return the file that `name` stands for, None for any other name; raises ModelError without a file."""
    if not name.endswith(".onnx"):
        return None
    path = Path(name).expanduser()
    if not path.is_file():
        raise ModelError(f"--model {name}: no such file")
    return OnnxFile(name, path)

"""Architecture: a family of models that can be built for any number of classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, int, int]


class Architecture(Protocol):
    """One way to build a float model. Weights are initialized from torch's global generator."""

    @property
    def name(self) -> str:
        """What `--model` calls it."""

    @property
    def description(self) -> str:
        """One line for the list of models."""

    def input_shape(self, image_shape: Shape) -> Shape:
        """Return the (channels, height, width) it takes when the images have `image_shape`."""

    def build(self, classes: int, input_shape: Shape) -> nn.Module:
        """Return a model of (n, *input_shape) to (n, classes); raises ModelError for a shape it refuses."""

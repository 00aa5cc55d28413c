"""Architecture: a family of models that can be built for any number of classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from quant_explorer.core.data.preprocessing import Preprocessing

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


@runtime_checkable
class Particular(Protocol):
    """What an architecture may have beside: it knows how images are prepared for it."""

    def preprocessing(self) -> Preprocessing:
        """Return what it asks for, None where it leaves that to others; raises ModelError."""


@runtime_checkable
class Complete(Protocol):
    """What an architecture may have beside: it is a file with weights, so that nothing has to be trained."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of the file."""


@runtime_checkable
class Labelled(Protocol):
    """What an architecture may have beside: weights whose outputs have names."""

    def outputs(self) -> tuple[str, ...]:
        """Return the names in order, none where they are not known."""

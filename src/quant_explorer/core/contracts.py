"""What a technique, a runtime and a session promise. N techniques + M runtimes, never N x M."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from quant_explorer.core.measurement import Executed
from quant_explorer.core.quantspec import FULL_RANGE, Grid, QuantSpec
from quant_explorer.core.recipe import ParameterValue

if TYPE_CHECKING:
    from torch import nn

Batch = NDArray[np.float32]


@dataclass(frozen=True)
class Candidate:
    """A float model on its way to a runtime, and the precision asked for so far.

    `notes` are what techniques found while they worked and a reader of the report should know. `channels`
    are those that could be pruned, (before, after), None for a model that was not.
    """

    model: nn.Module
    spec: QuantSpec
    notes: tuple[str, ...] = ()
    channels: tuple[int, int] | None = None


@dataclass(frozen=True)
class Teacher:
    """A model in evaluation mode whose logits are learned beside the labels (see `techniques/fine_tune.py`).

    `temperature` divides the logits of both before softmax; `weight` (0 to 1) is the share of the loss
    that comes from the teacher, the rest from the labels.
    """

    model: nn.Module
    temperature: float
    weight: float


class FineTune(Protocol):
    """Trains `model` in place on the run's training images, for `epochs` at most at `learning_rate`."""

    def __call__(
        self,
        model: nn.Module,
        *,
        epochs: int,
        learning_rate: float,
        label: str,
        teacher: Teacher | None = None,
    ) -> None:
        """`label` is what the progress bar says; a `teacher` is left as it is."""


@dataclass(frozen=True)
class Workbench:
    """What a technique may use: calibration batches (float32, NCHW) and the run's own training loop.

    `baseline` is the run's float model as it was before any technique; it must not be changed.
    """

    calibration: Sequence[Batch]
    fine_tune: FineTune
    baseline: nn.Module | None = None


class Technique(Protocol):
    """Changes the float model or adds to the QuantSpec. It knows nothing of runtimes.

    An instance is a frozen dataclass whose fields are the technique's parameters.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    trains: ClassVar[bool]

    def versions(self) -> dict[str, str]:
        """Return the versions of the libraries beside PyTorch that decide what `apply` makes.

        They are part of the digests of trained weights and of artifacts, which others make again.
        """

    def unsupported(self, candidate: Candidate) -> str | None:
        """Return why this candidate cannot be treated, in words a person can act on, or None."""

    def apply(self, candidate: Candidate, workbench: Workbench) -> Candidate:
        """Return a new candidate; the model given is left untouched."""


class Session(Protocol):
    """An opened artifact. Takes and returns NumPy arrays."""

    def run(self, batch: Batch) -> Batch:
        """Map images (n, channels, height, width) to logits (n, classes)."""

    def executed(self, batch: Batch) -> Executed:
        """Run `batch` once and report what precision its multiply-accumulates were executed in."""


class Metric(Protocol):
    """A figure of an opened artifact, found in the worker process. Knows no technique and no runtime.

    It is sent to the worker by pickle, so an instance is a frozen dataclass at the top of its module. The
    report shows the median of the values with its interval, in a column named by `name` and `unit`.
    """

    name: ClassVar[str]
    unit: ClassVar[str]

    def observe(self, session: Session, folder: Path, batch: Batch) -> Sequence[float]:
        """Return values in `unit`, one a repetition: what was observed, without statistics.

        `folder` holds the artifact's files, `batch` is one real image (1, channels, height, width), on which
        the session has run. Raises UnsupportedError with the reason where there is nothing to observe.
        """


@runtime_checkable
class OutputMetric(Protocol):
    """A figure of what a variant answers: of its logits over the report split, and the labels.

    It is found in the process of the command. The report shows it in a column named by `name` and `unit`.
    """

    name: ClassVar[str]
    unit: ClassVar[str]

    def evaluate(self, logits: Batch, labels: NDArray[np.int64]) -> float:
        """Return the figure in `unit`, of finite logits (n, classes) and the classes (n,) of these images.

        Raises UnsupportedError with the reason where there is none. It is not asked of a model that was not
        trained on the classes of the data.
        """


@dataclass(frozen=True)
class Lowering:
    """What a runtime says of the files it wrote.

    `notes` are for the report, `options` those that the files are opened with, `needs` the CPU features
    without which the files compute something else or do not run; empty for any CPU of this architecture.
    `grid` is that of INT8, which the files are checked against.
    """

    notes: tuple[str, ...]
    options: tuple[tuple[str, ParameterValue], ...]
    needs: tuple[str, ...] = ()
    grid: Grid = FULL_RANGE


class Runtime(Protocol):
    """Lowers a float model and a QuantSpec to files, and opens such files. Knows no technique.

    `version` is raised when what `lower` writes for the same input changes: it is part of every digest.
    """

    name: ClassVar[str]
    version: ClassVar[int]

    def unavailable(self) -> str | None:
        """Return why the runtime cannot be used here (a missing library), or None."""

    def unsupported(self, candidate: Candidate) -> str | None:
        """Return why the candidate cannot be lowered, in words a person can act on, or None."""

    def kept_in_float(self, candidate: Candidate) -> dict[str, str]:
        """Return the convolutions and linear layers that INT8 leaves in float, by qualified name, and why.

        Nothing is lowered for it. Layers that the spec names are not in it. What only the vendor's quantizer
        decides, of other kinds of layers for instance, shows in the files.
        """

    def cpu_features(self) -> tuple[str, ...]:
        """Return the features of this CPU that `lower` chooses by, for instance ("VNNI",).

        They are found by running the library's own kernels or by asking it, so that what limits the library
        limits them too. They are part of every digest: files from another CPU are lowered again.
        """

    def versions(self) -> dict[str, str]:
        """Return the versions of the libraries that decide an artifact's bytes or its speed."""

    def lower(self, candidate: Candidate, calibration: Sequence[Batch], folder: Path) -> Lowering:
        """Write the artifact's files to `folder`; the model given is left untouched."""

    def load_libraries(self, threads: int) -> None:
        """Import what `open` needs and set the runtime's own thread count, spinning off.

        Called before the options of a `Lowering` are known, which are those of `open`.
        """

    def open(self, folder: Path) -> Session:
        """Open the files of an artifact; called after `load_libraries`, in a fresh process."""


@dataclass(frozen=True)
class Deployment:
    """How the files of a runtime are run without this package.

    `packages` are the distributions that it takes beside NumPy and Pillow. `template` is a Jinja2 template of
    Python that defines `open_model(folder)`, which returns a function of images to logits as `Session.run` is
    one; it is given `options`, those that the files are opened with, and `THREADS` is defined before it.
    """

    packages: tuple[str, ...]
    template: Path


@runtime_checkable
class Deployable(Protocol):
    """A runtime whose variants can be exported."""

    deployment: ClassVar[Deployment]

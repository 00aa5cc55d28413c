"""For the tests of this room: a toy subject in a run folder, and variants of it on the fake runtime."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from quant_explorer.core.contracts import Batch, Candidate, Lowering, Runtime
from quant_explorer.core.data.dataset import Dataset
from quant_explorer.core.host.environment import Environment
from quant_explorer.core.progress import Progress, Silent, Task
from quant_explorer.core.recipe import ParameterValue, Recipe, Step
from quant_explorer.core.settings.groups import MeasurementProtocol, Settings
from quant_explorer.core.study import StudyFile
from quant_explorer.datasets import input_spec
from quant_explorer.models import parameter_digest
from quant_explorer.pipeline.experiment import Experiment
from quant_explorer.pipeline.explore import Exploration
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.pipeline.subject import Subject
from quant_explorer.pipeline.worker.messages import Loading, Opened
from quant_explorer.pipeline.worker.process import Worker
from quant_explorer.runtimes.eager.runtime import Eager
from quant_explorer.techniques import create_step
from quant_explorer.testing.fake_runtime import FakeRuntime
from quant_explorer.testing.toys import TOY_SHAPE, toy_dataset, toy_linear_model

RUNTIMES: Mapping[str, type[Runtime]] = {"fake": FakeRuntime, "eager": Eager}
ENVIRONMENT = Environment("here", "a cpu", (), 2, 8_000_000_000, 1, "Linux", "3.11", {})
# No timing of these tests ends by its precision, so that the number of rounds is known.
PROTOCOL = MeasurementProtocol(
    batch_sizes=(1, 4), rounds=2, precision=1e-9, time_limit_s=1e-9, answer_timeout_s=600
)
INT8 = create_step("static_int8", granularity="per_tensor")


def toy_subject(
    *,
    dataset: Dataset | None = None,
    seed: int = 0,
    model_seed: int = 0,
    progress: Progress | None = None,
    trained: bool = True,
    model: nn.Module | None = None,
) -> Subject:
    """Return the toy data with `model`: by default a linear layer, of which the fake runtime is exact."""
    data = dataset or toy_dataset(train=64, search=8, report=40)
    model = model or toy_linear_model(seed=model_seed, shape=TOY_SHAPE)
    return Subject(
        model_name="toy",
        model=model,
        spec=input_spec(data, data.image_shape),
        dataset=data,
        trained=trained,
        weights_digest=parameter_digest(model),
        settings=Settings(data="toy", model="toy", data_dir=Path("data"), seed=seed),
        progress=progress or Silent(),
    )


def fake(config: str, *steps: Step, **options: ParameterValue) -> Recipe:
    """Return a recipe for the fake runtime."""
    return Recipe(config, steps, "fake", tuple(sorted(options.items())))


def toy_experiment(
    run: RunFolder, subject: Subject | None = None, protocol: MeasurementProtocol = PROTOCOL
) -> Experiment:
    """Return the toy subject, or another, in a run folder."""
    return Experiment(subject or toy_subject(), run, protocol)


def exploration(
    run: RunFolder, *, subject: Subject | None = None, protocol: MeasurementProtocol = PROTOCOL
) -> Exploration:
    """Return an exploration that goes on from what the run folder holds."""
    run.path.mkdir(exist_ok=True)
    return Exploration(
        toy_experiment(run, subject, protocol),
        study=StudyFile.load(run.study),
        environment=ENVIRONMENT,
        runtimes=RUNTIMES,
    )


def scaled(factor: float) -> Callable[..., Lowering]:
    """Return a `FakeRuntime.lower` that writes the model with its logits multiplied by `factor`."""
    lower = FakeRuntime.lower

    def lower_scaled(
        self: FakeRuntime, candidate: Candidate, calibration: Sequence[Batch], folder: Path
    ) -> Lowering:
        model = copy.deepcopy(candidate.model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(factor)
        return lower(self, Candidate(model, candidate.spec), calibration, folder)

    return lower_scaled


@dataclass
class Watching:
    """A Progress that tells `seen` of every step of a bar: its label, how far it is, its note."""

    seen: Callable[[str, int, str], None]
    messages: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)

    @contextmanager
    def task(self, label: str, total: int | None) -> Iterator[Task]:
        """Open a bar that only tells."""
        self.labels.append(label)
        yield _WatchedTask(self, label)

    def say(self, message: str) -> None:
        """Keep the message."""
        self.messages.append(message)


@dataclass
class _WatchedTask:
    watching: Watching
    label: str
    done: int = 0

    def advance(self, amount: int = 1, note: str = "") -> None:
        self.done += amount
        self.watching.seen(self.label, self.done, note)


class ImpatientWithHanging(Worker):
    """Waits only a moment for what is known to hang, once it is open, however slow the machine is."""

    def __init__(self, loading: Loading, *, log: Path, timeout_s: float) -> None:
        super().__init__(loading, log=log, timeout_s=timeout_s)
        self._hangs = ("fault", "hang") in loading.options

    def open(self, batch: Batch) -> Opened:
        """Open the artifact with all the patience there is."""
        opened = super().open(batch)
        if self._hangs:
            self._timeout_s = 0.2
        return opened

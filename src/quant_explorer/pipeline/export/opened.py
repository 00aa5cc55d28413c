"""An export opened by a worker, on data that is there or on noise: what checking and verifying share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from quant_explorer.analysis.statement import Statement
from quant_explorer.core.artifact import Artifact
from quant_explorer.core.contracts import Runtime
from quant_explorer.core.data.dataset import Dataset, Images, InputSpec
from quant_explorer.core.errors import require_supported
from quant_explorer.core.export import MODEL_FOLDER, STATEMENT
from quant_explorer.core.progress import Progress
from quant_explorer.core.settings.groups import MeasurementProtocol, Settings
from quant_explorer.datasets import DataOptions, find_dataset
from quant_explorer.pipeline.experiment import Experiment
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.pipeline.subject import Subject
from quant_explorer.runtimes import RUNTIMES

_NOISE_IMAGES = 32


@dataclass(frozen=True)
class OpenedExport:
    """What an export states, its files, and what opens them."""

    folder: Path
    statement: Statement
    artifact: Artifact
    runtime: Runtime

    @classmethod
    def load(cls, folder: Path) -> OpenedExport:
        """Read an export; raises StudyError, or UnsupportedError where its runtime is missing."""
        statement = Statement.load(folder / STATEMENT)
        artifact = Artifact.load(folder / MODEL_FOLDER)
        runtime = RUNTIMES[artifact.manifest.recipe.runtime](**dict(artifact.manifest.options))
        require_supported(runtime.unavailable())
        return cls(folder, statement, artifact, runtime)

    def experiment(
        self, dataset: Dataset, protocol: MeasurementProtocol, scratch: Path, progress: Progress
    ) -> Experiment:
        """Return what measures the files on `dataset`; `scratch` holds the log and what is recorded."""
        from torch import nn

        statement, manifest = self.statement, self.artifact.manifest
        predictions = statement.measurement.predictions
        subject = Subject(
            model_name=statement.variant.model,
            # Nothing is built of it: the files are there.
            model=nn.Identity(),
            spec=manifest.input,
            dataset=dataset,
            trained=predictions is None or predictions.trained,
            weights_digest=manifest.provenance.weights,
            settings=statement.run.settings,
            progress=progress,
        )
        return Experiment(subject, RunFolder(scratch), protocol)


def load_stated_data(
    settings: Settings, spec: InputSpec, classes: tuple[str, ...], progress: Progress
) -> Dataset:
    """Return the data set that figures are of, split and framed as it was for them; raises as `find_dataset`.

    The classes are those of the artifact by name, whatever their order in the files.
    """
    options = DataOptions.of(settings, classes)
    channels = spec.shape[0]
    # As when the model was loaded, before mean and std were known: the decoded images are kept by it.
    unscaled = replace(spec, mean=(0.0,) * channels, std=(1.0,) * channels)
    return find_dataset(settings.data, options, progress).load(unscaled)


def noise(spec: InputSpec, classes: tuple[str, ...]) -> Dataset:
    """Return seeded uniform noise of the size that a model takes, to time with where there is no data."""
    channels, height, width = spec.shape
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (_NOISE_IMAGES, height, width, channels), dtype=np.uint8)
    indices = np.arange(_NOISE_IMAGES, dtype=np.int64)
    images = Images(pixels, indices, np.zeros_like(indices))
    return Dataset(
        name="noise",
        classes=classes,
        train=images,
        calibrate=images,
        search=images,
        report=images,
        mean=spec.mean,
        std=spec.std,
        flip=False,
        digest="",
        framed=True,
    )

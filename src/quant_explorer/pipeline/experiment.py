"""What every step from recipe to figures works with: a subject, its run folder, and how figures are taken."""

from __future__ import annotations

from dataclasses import dataclass

from quant_explorer.core.artifact import Artifact
from quant_explorer.core.contracts import Runtime
from quant_explorer.core.recipe import ParameterValue
from quant_explorer.core.settings.groups import MeasurementProtocol
from quant_explorer.machine.topology import measuring_cores
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.pipeline.subject import Subject
from quant_explorer.pipeline.worker.messages import Loading, Opening
from quant_explorer.pipeline.worker.process import Worker, runtime_path


@dataclass(frozen=True)
class Experiment:
    """One subject in its run folder, and how its variants are measured."""

    subject: Subject
    run: RunFolder
    protocol: MeasurementProtocol

    def start_worker(
        self,
        runtime: Runtime,
        options: tuple[tuple[str, ParameterValue], ...],
        cores: tuple[int, ...] | None = None,
    ) -> Worker:
        """Start a fresh process that loads a runtime, pinned to `cores`; the measuring cores without any.

        `Worker.assign` says later what it opens.
        """
        cores = cores or measuring_cores(self.protocol.threads)
        loading = Loading(runtime_path(type(runtime)), options, cores)
        return Worker(loading, log=self.run.log, timeout_s=self.protocol.answer_timeout_s)

    def open_worker(
        self, artifact: Artifact, runtime: Runtime, cores: tuple[int, ...] | None = None
    ) -> Worker:
        """Start a fresh process for an artifact; `cores` as in `start_worker`."""
        options = artifact.manifest.options
        worker = self.start_worker(runtime, options, cores)
        worker.assign(Opening(options, str(artifact.folder)))
        return worker

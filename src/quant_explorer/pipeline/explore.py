"""The one loop over build and measure. Commands differ only in the recipes they give it."""

from __future__ import annotations

import errno
import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cache, cached_property, partial
from pathlib import Path

import numpy as np

from quant_explorer.core.artifact import write_atomically
from quant_explorer.core.contracts import Runtime
from quant_explorer.core.data.preprocessing import describe_preprocessing
from quant_explorer.core.errors import (
    QuantExplorerError,
    StorageError,
    UnsupportedError,
    WorkerError,
    explain,
)
from quant_explorer.core.host.environment import Environment
from quant_explorer.core.measurement import Measurement, Status, Variant
from quant_explorer.core.recipe import Recipe
from quant_explorer.core.settings.groups import MeasurementProtocol
from quant_explorer.core.study import StudyFile
from quant_explorer.metrics.accuracy import Scored
from quant_explorer.pipeline.building.build import build, create_runtime, provenance_of
from quant_explorer.pipeline.building.prepare import Preparation
from quant_explorer.pipeline.building.rebuilding import (
    explain_rebuilding,
    explain_remeasuring,
    explain_retraining,
)
from quant_explorer.pipeline.damage import explain_damage
from quant_explorer.pipeline.experiment import Experiment
from quant_explorer.pipeline.measure import find_missing, measure, status_of
from quant_explorer.pipeline.plan.space import stand_in_recipes
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.pipeline.subject import Subject
from quant_explorer.pipeline.timing.contender import Contender
from quant_explorer.pipeline.timing.rounds import time_variants

logger = logging.getLogger(__name__)

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)


class Until(IntEnum):
    """How far an exploration goes: files, what one worker finds, or latency as well."""

    BUILT = 1
    MEASURED = 2
    TIMED = 3


@dataclass(frozen=True)
class Outcome:
    """What became of the recipes, and what went wrong while timing."""

    contenders: tuple[Contender, ...]
    failures: tuple[Measurement, ...]
    problems: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether anything went wrong; what cannot be done at all (unsupported) did not go wrong."""
        return bool(self.problems) or any(
            failure.status is not Status.UNSUPPORTED for failure in self.failures
        )


@dataclass(frozen=True)
class Exploration:
    """Builds, measures and times variants of one experiment, recording as it goes.

    What the study holds is not done again; a failure is tried again. A variant that fails becomes a
    record with a status and a reason, and the others go on.
    """

    experiment: Experiment
    study: StudyFile
    environment: Environment
    runtimes: Mapping[str, type[Runtime]]

    @property
    def subject(self) -> Subject:
        """What the variants are made of."""
        return self.experiment.subject

    @property
    def run(self) -> RunFolder:
        """Where everything is kept."""
        return self.experiment.run

    @cached_property
    def preparation(self) -> Preparation:
        """What turns the subject's model into candidates."""
        return Preparation(self.experiment)

    def explore(self, recipes: Sequence[Recipe], *, until: Until = Until.TIMED) -> Outcome:
        """Take every recipe as far as `until`; the first is the baseline of the others.

        Where its runtime cannot have the model, FP32 of the next runtime that has it is. The next recipe is
        built while the images of the one before are scored.
        """
        self._begin()
        for line in self._explain_repetitions(recipes, until):
            self.subject.progress.say(line)
        contenders: list[Contender] = []
        failures: list[Measurement] = []
        order = list(recipes)
        references = {order[0]}
        baseline: Contender | None = None
        built = cache(lambda recipe: self._build(recipe))
        with self.subject.progress.task("variants", len(order)) as bar:
            for position, recipe in enumerate(order):
                bar.advance(0, recipe.name)
                result = built(recipe)
                if isinstance(result, Measurement):
                    self._record(result)
                elif until > Until.BUILT:
                    build_next = partial(built, order[min(position + 1, len(order) - 1)])
                    reference = baseline.digest if baseline else None
                    result = self._measure(result, reference, meanwhile=build_next)
                if isinstance(result, Contender):
                    contenders.append(result)
                    if baseline is None and recipe in references:
                        baseline = result
                else:
                    failures.append(result)
                    if position == 0 and until > Until.BUILT and result.status.lasts:
                        references |= set(stand_ins := stand_in_recipes(order))
                        order[1:] = [*stand_ins, *(other for other in order[1:] if other not in references)]
                bar.advance()
        problems = self._explain_nothing(contenders, baseline, until)
        if until is Until.TIMED and baseline is not None:
            others = [contender for contender in contenders if contender is not baseline]
            problems = time_variants(baseline, others, self.experiment, self.study)
        return Outcome(tuple(contenders), tuple(failures), problems)

    def _explain_nothing(
        self, contenders: Sequence[Contender], baseline: Contender | None, until: Until
    ) -> tuple[str, ...]:
        """Say that there is nothing to show, which is never a success."""
        model = self.subject.model_name
        if not contenders:
            return (f"Nothing was made of {model}: no variant that was asked for is possible.",)
        if until > Until.BUILT and baseline is None:
            return (f"Nothing of {model} is compared or ranked: no runtime that was asked for has its FP32.",)
        return ()

    def _begin(self) -> None:
        """Record where this happens: a report shows first what was begun last."""
        alike = [visit for visit in self.study.visits if visit.threads == self.environment.threads]
        if not alike or alike[-1] != self.environment:
            self.study.append(self.environment)
        if self.subject.split not in self.study.records:
            self.study.append(self.subject.split)

    def _explain_repetitions(self, recipes: Sequence[Recipe], until: Until) -> Iterator[str]:
        """Say what an earlier version has done here already and is done again, and why."""
        wanted = {
            recipe: provenance_of(recipe, self.subject, create_runtime(recipe, self.runtimes))
            for recipe in recipes
        }
        yield from explain_retraining(wanted, self.preparation)
        yield from explain_rebuilding(wanted, self.run.artifacts)
        if until > Until.BUILT:
            variants = [self._blank(recipe).variant for recipe in recipes]
            yield from explain_remeasuring(variants, self.study, self.environment)

    def _measure(
        self, contender: Contender, baseline: str | None, *, meanwhile: Callable[[], object]
    ) -> Contender | Measurement:
        digest = contender.digest
        found = self.study.measurements(self.environment.digest).get(digest)
        ok = found is not None and found.status is Status.OK
        missing = find_missing(found, self.experiment) if found and ok else None
        if missing:
            self.subject.progress.say(f"Measuring {contender.measurement.variant.name} again for {missing}.")
        if found is None or not ok or missing:
            reference = self._read_outputs(baseline) if baseline else None
            experiment = replace(self.experiment, protocol=self._no_shorter_than(found))
            found, scored = measure(contender, experiment, reference, meanwhile=meanwhile)
            if scored is not None:
                self._write_outputs(digest, scored)
            self._record(found)
        elif self._is_superseded(found):
            # An artifact of another version was measured since. A table shows the latest of each name.
            self.study.append(found)
        return replace(contender, measurement=found) if found.status is Status.OK else found

    def _no_shorter_than(self, found: Measurement | None) -> MeasurementProtocol:
        """Return the protocol with at least the time that an earlier measurement had for its images."""
        predictions = found.predictions if found else None
        earlier = predictions.time_limit_s if predictions else None
        return replace(
            self.experiment.protocol, time_limit_s=max(self.experiment.protocol.time_limit_s, earlier or 0.0)
        )

    def _record(self, measurement: Measurement) -> None:
        earlier = self.study.measurements(self.environment.digest)
        if earlier.get(measurement.variant.digest) != measurement or self._is_superseded(measurement):
            self.study.append(measurement)

    def _is_superseded(self, measurement: Measurement) -> bool:
        """Whether something else of the same name was recorded here after it."""
        variant = measurement.variant
        latest = [
            record.variant
            for record in self.study.records
            if isinstance(record, Measurement)
            and record.environment == self.environment.digest
            and (record.variant.model, record.variant.name) == (variant.model, variant.name)
        ]
        return bool(latest) and latest[-1] != variant

    def _blank(self, recipe: Recipe) -> Measurement:
        runtime = create_runtime(recipe, self.runtimes)
        digest = recipe.digest(provenance_of(recipe, self.subject, runtime))
        return Measurement(
            variant=Variant(recipe.name, recipe.config, recipe.runtime, self.subject.model_name, digest),
            environment=self.environment.digest,
            split=self.subject.split.digest,
            status=Status.OK,
            steps=tuple(step.describe() for step in recipe.steps),
            preprocessing=describe_preprocessing(self.subject.spec),
        )

    def _build(self, recipe: Recipe) -> Contender | Measurement:
        blank, runtime = self._blank(recipe), create_runtime(recipe, self.runtimes)
        try:
            return Contender(build(recipe, self.preparation, runtime), runtime, blank)
        except UnsupportedError as error:
            return replace(blank, status=Status.UNSUPPORTED, reason=explain(error))
        except StorageError:
            raise
        except WorkerError as error:
            return replace(
                blank, status=status_of(error), reason=f"when its files were checked: {explain(error)}"
            )
        except QuantExplorerError as error:
            return replace(blank, status=Status.BUILD_FAILED, reason=explain(error))
        except Exception as error:
            if isinstance(error, OSError) and self._is_of_storage(error):
                raise StorageError(f"{self.run.path}: cannot be written ({explain(error)})") from error
            logger.exception("building %s failed", recipe.name)
            return replace(blank, status=Status.BUILD_FAILED, reason=explain(error))

    def _is_of_storage(self, error: OSError) -> bool:
        """Whether no variant could be written; otherwise a library or a user's model met the error."""
        if error.errno in _DISK_ERRORS:
            return True
        name = error.filename
        return isinstance(name, str) and Path(name).resolve().is_relative_to(self.run.path.resolve())

    def _outputs_path(self, digest: str) -> Path:
        return self.run.outputs / f"{digest}.npz"

    def _write_outputs(self, digest: str, scored: Scored) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, positions=scored.positions, logits=scored.logits)
        write_atomically(self._outputs_path(digest), buffer.getvalue())

    def _read_outputs(self, digest: str) -> Scored | None:
        path = self._outputs_path(digest)
        if not path.exists():
            return None
        with explain_damage(path), np.load(path) as stored:
            return Scored(stored["positions"], stored["logits"])

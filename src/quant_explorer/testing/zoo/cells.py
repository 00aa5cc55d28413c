"""One cell of the zoo: technique, lowering, a worker that opens the files, and the verdict on its outputs."""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from quant_explorer.core.contracts import Batch, Candidate, Lowering, Runtime, Workbench
from quant_explorer.core.errors import (
    BuildError,
    FidelityError,
    QuantExplorerError,
    UnsupportedError,
    WorkerError,
    require_supported,
)
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.core.recipe import Step
from quant_explorer.machine.topology import measuring_cores
from quant_explorer.metrics.fidelity import UNIFORM, Fidelity, check_fp32, compare_with_simulation, sqnr_db
from quant_explorer.pipeline.building.expectation import Expectation
from quant_explorer.pipeline.measure import check_precision
from quant_explorer.pipeline.worker.messages import Loading, Opening
from quant_explorer.pipeline.worker.process import Worker, runtime_path
from quant_explorer.runtimes import RUNTIMES
from quant_explorer.runtimes.torch_graph.macs import count_macs
from quant_explorer.techniques import create_step, create_technique
from quant_explorer.testing.toys import ToyTraining
from quant_explorer.testing.zoo import Specimen
from quant_explorer.tracing.plain import make_plain
from quant_explorer.tracing.reasons import is_dump

CONFIGS: Final[Mapping[str, tuple[Step, ...]]] = {
    "fp32": (),
    "static_int8_per_channel": (create_step("static_int8"),),
    "static_int8_per_tensor": (create_step("static_int8", granularity="per_tensor"),),
    "dynamic_int8": (create_step("dynamic_int8"),),
    "fp16": (create_step("half_precision", precision="fp16"),),
    "bf16": (create_step("half_precision", precision="bf16"),),
    "qat_int8": (create_step("static_int8"), create_step("qat")),
}
# A method for each size costs the time of a lowering.
OPTIONS: Final = {"executorch": {"batch_sizes": "1"}}
TIMEOUT_S: Final = 120.0
IMAGES: Final = 16
CALIBRATION: Final = tuple(range(4, 8))
# Images that the check of a lowering does not see.
OTHERS: Final = "images that are not calibrated on"
MACS_TOLERANCE: Final = 0.05
LONGEST_REASON: Final = 400


class Verdict(StrEnum):
    """`wrong` computes something else; `crash` is an error, or a reason, that is no sentence of ours."""

    RIGHT = "right"
    REFUSED = "refused"
    WRONG = "wrong"
    CRASH = "crash"


@dataclass(frozen=True)
class SpecimenResult:
    """What came of one specimen on one runtime: decibels against the float model, beside the simulation's."""

    specimen: str
    runtime: str
    config: str
    verdict: Verdict
    db: float | None = None
    simulated_db: float | None = None
    macs: dict[str, int] = field(default_factory=dict)
    float_macs: int = 0
    reason: str = ""
    seconds: float = 0.0

    @property
    def key(self) -> tuple[str, str, str]:
        """What the cell is of."""
        return self.specimen, self.runtime, self.config

    def line(self) -> str:
        """Return the cell as one line of progress."""
        figures = "" if self.db is None else f"{self.db:.1f} dB"
        beside = "" if self.simulated_db is None else f" (simulated {self.simulated_db:.1f})"
        reason = self.reason[:300].replace("\n", " | ")
        where = f"{self.runtime} {self.config} {self.specimen}"
        return f"{where}: {self.verdict} {figures}{beside} {reason} [{self.seconds:.1f} s]"


def examine_all(
    runtime: str, keys: Sequence[tuple[str, str, str]], specimens: Mapping[str, Specimen], logs: Path
) -> Iterator[SpecimenResult]:
    """Yield the cells `keys` of one runtime, all opened by one worker process; a new one where it died.

    What libraries print goes to a file in `logs`. Raises UnsupportedError when the runtime is not available.
    """
    kind = RUNTIMES[runtime](**OPTIONS.get(runtime, {}))
    require_supported(kind.unavailable())
    subject: SpecimenSubject | None = None
    with Openers(kind, logs / f"{runtime}.log") as openers:
        for specimen, _, config in keys:
            if subject is None or subject.specimen.name != specimen:
                subject = SpecimenSubject(specimens[specimen])
            yield judge_specimen(subject, config, openers)


class SpecimenSubject:
    """A specimen's model and images, which all its cells share."""

    def __init__(self, specimen: Specimen) -> None:
        """Build the model, and count what it multiplies."""
        self.specimen = specimen
        self.model = specimen.model()
        self._plain = make_plain(self.model)
        self.calibration = tuple(specimen.images(8, seed=seed) for seed in CALIBRATION)
        self.images = specimen.images(IMAGES, seed=3)
        self.macs = sum(count_macs(self.model, self.images[:1]).macs.values())

    def candidate(self, config: str) -> Candidate:
        """Apply the configuration's techniques; quantization-aware training takes no step."""
        workbench = Workbench(self.calibration, ToyTraining(batches=()), self.model)
        candidate = Candidate(self._plain, QuantSpec())
        for step in CONFIGS[config]:
            technique = create_technique(step)
            require_supported(technique.unsupported(candidate))
            candidate = technique.apply(candidate, workbench)
        return candidate


class Openers:
    """The worker process that opens a runtime's files, started again where one died."""

    def __init__(self, runtime: Runtime, log: Path) -> None:
        """Open no process yet: the first cell starts it."""
        self.runtime = runtime
        self.log = log
        self._stack = ExitStack()
        self._worker: Worker | None = None

    def __enter__(self) -> Openers:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def open(self, opening: Opening, image: Batch) -> Iterator[Worker]:
        """Open files; a worker that fails with them is ended."""
        worker = self._worker or self._start()
        worker.assign(opening)
        try:
            worker.open(image)
            yield worker
        except WorkerError:
            self._stack.close()
            self._worker = None
            raise

    def _start(self) -> Worker:
        loading = Loading(runtime_path(type(self.runtime)), (), measuring_cores(1))
        self._worker = self._stack.enter_context(Worker(loading, log=self.log, timeout_s=TIMEOUT_S))
        return self._worker


def judge_specimen(subject: SpecimenSubject, config: str, openers: Openers) -> SpecimenResult:
    """Lower one configuration, run it, and judge."""
    start = time.monotonic()
    blank = SpecimenResult(subject.specimen.name, openers.runtime.name, config, Verdict.CRASH)
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        try:
            cell = _lower_and_judge(blank, subject, openers, Path(folder))
        except UnsupportedError as error:
            cell = replace(blank, verdict=_refusal(error), reason=str(error))
        except QuantExplorerError as error:
            cell = replace(blank, reason=f"{type(error).__name__}: {error}")
        except Exception as error:  # noqa: BLE001 - one that escapes is what is looked for
            with openers.log.open("a") as log:
                traceback.print_exc(file=log)
            cell = replace(blank, reason=f"escaped: {type(error).__name__}: {error}")
    # A name that differs from run to run.
    reason = cell.reason.replace(f"{folder}/", "")
    return replace(cell, reason=reason, seconds=round(time.monotonic() - start, 1))


def _lower_and_judge(
    cell: SpecimenResult, subject: SpecimenSubject, openers: Openers, folder: Path
) -> SpecimenResult:
    runtime = openers.runtime
    candidate = subject.candidate(cell.config)
    require_supported(runtime.unsupported(candidate))
    lowering = runtime.lower(candidate, subject.calibration, folder)
    expectation = Expectation(candidate, subject.calibration)
    with openers.open(Opening(lowering.options, str(folder)), subject.images[:1]) as worker:
        try:
            expectation.check(worker.run, lowering.grid)
            found = _check_others(
                worker.run(subject.images), subject.images, expectation, candidate, lowering
            )
        except FidelityError as error:
            return replace(cell, verdict=Verdict.WRONG, reason=str(error))
        executed = worker.executed(subject.images[:1])
    measured = replace(
        cell,
        verdict=Verdict.RIGHT,
        db=found.files_db,
        simulated_db=found.simulated_db if candidate.spec.precision != "fp32" else None,
        macs=executed.macs,
        float_macs=subject.macs,
    )
    try:
        check_precision(candidate.spec, executed)
    except BuildError as error:
        return replace(measured, verdict=_refusal(error), reason=str(error))
    counted = sum(executed.macs.values())
    if abs(counted - subject.macs) > MACS_TOLERANCE * subject.macs:
        reason = f"{counted} multiply-accumulates are counted, the float model has {subject.macs}"
        return replace(measured, verdict=Verdict.WRONG, reason=reason)
    return measured


def _check_others(
    logits: Batch, images: Batch, expectation: Expectation, candidate: Candidate, lowering: Lowering
) -> Fidelity:
    """Compare logits for images that the product's check has not seen, with the product's own figures.

    Raises FidelityError when they are wrong, and the check has let them pass.
    """
    expected = expectation.float_logits(images)
    try:
        if candidate.spec.precision == "fp32":
            check_fp32(logits, expected)
            return Fidelity(OTHERS, sqnr_db(logits, expected), None)
        simulated = expectation.simulate(images, lowering.grid)
        return compare_with_simulation(logits, expected, simulated, OTHERS, UNIFORM)
    except FidelityError as error:
        raise FidelityError(f"the check of the lowering lets it pass, but {error}") from error


def _refusal(error: QuantExplorerError) -> Verdict:
    reason = str(error)
    return Verdict.CRASH if len(reason) > LONGEST_REASON or is_dump(reason) else Verdict.REFUSED

"""What every command that works on a run does first and last: open the run, explore, show the table."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from quant_explorer.cli.console import EXIT_FAILED, ConsoleProgress, divert_libraries, output
from quant_explorer.cli.options import MULTI, resolve
from quant_explorer.core.host.environment import Environment
from quant_explorer.core.settings.declaration import Value, merge
from quant_explorer.core.settings.groups import DecisionRules, Settings
from quant_explorer.core.study import StudyFile
from quant_explorer.core.units import list_some, show_controls
from quant_explorer.pipeline.run import RunDescription, RunFolder, open_run

if TYPE_CHECKING:
    from quant_explorer.analysis.results import Results, RunInfo
    from quant_explorer.core.recipe import Recipe
    from quant_explorer.pipeline.explore import Exploration, Outcome, Until

# The rest is in the report.
MOST_DISTRUST = 3
# Whose versions decide a figure, beside those that the runtimes name.
_PACKAGES = ("numpy", "torch", "torchvision")


@dataclass(frozen=True)
class Job:
    """An opened run folder with what it is asked to do."""

    run: RunFolder
    wanted: RunDescription
    progress: ConsoleProgress
    study: StudyFile

    def explore(
        self,
        configs: Iterable[str],
        runtimes: Sequence[str],
        *,
        until: Until,
        model: str | None = None,
        train: bool = True,
    ) -> Outcome:
        """Take the configurations on `runtimes` as far as `until`; the FP32 baseline always comes along."""
        from quant_explorer.pipeline.plan.space import choose_runtimes, recipes
        from quant_explorer.runtimes import RUNTIMES

        settings = self.wanted.settings if model is None else replace(self.wanted.settings, model=model)
        wanted = recipes(configs, choose_runtimes(runtimes, RUNTIMES), settings, self.wanted.protocol)
        return self.take(self.begin(settings, train=train), wanted, until=until)

    def begin(self, settings: Settings, *, train: bool = True) -> Exploration:
        """Load the data and the model, train it if need be, and return what explores it."""
        from quant_explorer.pipeline.experiment import Experiment
        from quant_explorer.pipeline.explore import Exploration
        from quant_explorer.pipeline.subject import load_subject
        from quant_explorer.runtimes import RUNTIMES

        return Exploration(
            Experiment(
                load_subject(settings, self.run, self.progress, train=train), self.run, self.wanted.protocol
            ),
            study=self.study,
            environment=self.environment,
            runtimes=RUNTIMES,
        )

    def take(self, exploration: Exploration, wanted: Sequence[Recipe], *, until: Until) -> Outcome:
        """Take recipes as far as `until`, and say what was not possible."""
        outcome = exploration.explore(wanted, until=until)
        reasons: dict[str, list[str]] = {}
        for failure in outcome.failures:
            reasons.setdefault(failure.status.explain(failure.reason), []).append(failure.variant.name)
        for reason, names in reasons.items():
            failed = names[0] if len(names) == 1 else f"Each of {list_some(names)}"
            self.progress.say(f"{failed} {reason}")
        for problem in outcome.problems:
            self.progress.say(problem)
        return outcome

    @property
    def environment(self) -> Environment:
        """This machine, with the settings of the protocol."""
        from quant_explorer.core.settings.groups import PROTOCOL_VERSION
        from quant_explorer.machine.environment import describe_environment
        from quant_explorer.runtimes import RUNTIMES

        packages = {package for runtime in RUNTIMES.values() for package in runtime().versions()}
        return describe_environment(
            threads=self.wanted.protocol.threads,
            packages=packages.union(_PACKAGES),
            protocol=PROTOCOL_VERSION,
        )


@contextlib.contextmanager
def open_job(run_dir: Path | None, given: Mapping[str, Value], *, suffix: str = "") -> Iterator[Job]:
    """Lock the run folder, check that it was made with the same settings, and yield the job.

    Raises UnknownNameError or SettingsError for a wrong name before anything is written.
    """
    path, wanted = resolve(run_dir, given, suffix=suffix)
    with open_described(path, wanted) as job:
        yield job


@contextlib.contextmanager
def open_described(path: Path, wanted: RunDescription) -> Iterator[Job]:
    """As open_job, for a run that is described already."""
    from quant_explorer.machine.topology import explain_quota

    _check(wanted)
    with open_run(path) as run, divert_libraries(run.log):
        run.claim(wanted)
        progress = ConsoleProgress()
        if quota := explain_quota():
            progress.say(quota)
        yield Job(run, wanted, progress, run.load_study())


def _check(wanted: RunDescription) -> None:
    from quant_explorer.datasets import SOURCES
    from quant_explorer.machine.topology import measuring_cores
    from quant_explorer.models import find_architecture

    settings = wanted.settings
    measuring_cores(wanted.protocol.threads)
    SOURCES[settings.data.partition(":")[0]]
    if settings.model != MULTI:
        find_architecture(settings.model, settings.weights)
    # Raises for a value that does not fit the others.
    settings.preprocessing  # noqa: B018
    if settings.engine:
        from quant_explorer.runtimes.eager.runtime import select_engine

        select_engine(settings.engine)


@dataclass(frozen=True)
class Shown:
    """What is printed of a report: its figures `as_json`, or a table of `everything` or of the choices."""

    as_json: bool
    everything: bool


def recall(path: Path | None) -> tuple[StudyFile, RunInfo]:
    """Read what a run folder recorded; without a path, that of the default data set and model.

    Raises StudyError for a folder without a study.
    """
    from quant_explorer.recorded import Study

    found = Study.load(path or resolve(None, {})[0])
    return found.records, found.run


def write_and_show(
    run: RunFolder,
    study: StudyFile,
    wanted: RunDescription,
    given: Mapping[str, Value],
    shown: Shown,
    *,
    multi: bool,
) -> Results:
    """Write the report of a run and print it, or its figures as JSON; `given` may hold decision rules."""
    from quant_explorer.analysis.rank import summarize
    from quant_explorer.recorded import run_info
    from quant_explorer.report.page.sheet import make_sheets
    from quant_explorer.report.render import encode_results, write_page, write_report

    results = summarize(study, run_info(study, wanted, merge(DecisionRules(), given)))
    write_report(results, run.report, multi=multi)
    page = write_page(results, make_sheets(study, results), run.report)
    if shown.as_json:
        output.file.write(encode_results(results).decode())
    else:
        show(results, everything=shown.everything)
        conclude(results, page, describe_answers(results), export_answers(results, run))
    return results


def describe_answers(results: Results) -> tuple[str, ...]:
    """Return the answer of each model, with its name where there are several."""
    from quant_explorer.report.answer import describe_answer

    several = len(results.models) > 1
    return tuple(
        (f"{model}: " if several else "") + describe_answer(results, model) for model in results.models
    )


def export_answers(results: Results, run: RunFolder) -> tuple[str, ...]:
    """Return the commands that export the answers."""
    from quant_explorer.report.answer import export_answer

    found = (export_answer(results, model, run.path) for model in results.models)
    return tuple(command for command in found if command is not None)


def show(results: Results, *, everything: bool) -> None:
    """Print each model's Pareto table: of `everything` that was measured, or of the choices there are."""
    from quant_explorer.report.markdown import describe_groups, describe_picks
    from quant_explorer.report.terminal import terminal_table

    for model in results.models:
        table = terminal_table(results, model, output.width, everything=everything)
        output.print(table.drawn)
        if table.left_out:
            say(f"No room for {', '.join(table.left_out)}: they are in the report.")
        if table.hidden_rows:
            say(f"More measured: {table.hidden_rows} (--all shows them).")
        sentences = describe_picks if everything else describe_groups
        for sentence in sentences(results, model):
            say(f"- {sentence}")


def conclude(results: Results, report: Path, answers: Sequence[str], exports: Sequence[str]) -> None:
    """Print what everything above comes to: answers, exporting them, the report, the worst to distrust."""
    output.print()
    for answer in answers:
        say(answer)
    for command in exports:
        say(f"Export: {command}")
    say(f"Report: {report}")
    for sentence in results.distrust[:MOST_DISTRUST]:
        say(f"Distrust: {sentence}")
    if len(results.distrust) > MOST_DISTRUST:
        more = len(results.distrust) - MOST_DISTRUST
        say(f"More to distrust: {more} (in the report).")


def say(sentence: str) -> None:
    """Print a line as it is."""
    output.print(sentence, highlight=False, markup=False, soft_wrap=True)


def print_figures(rows: Sequence[Mapping[str, object]], *, as_json: bool, title: str) -> None:
    """Print rows of the same keys as a table, or as JSON."""
    if as_json:
        output.file.write(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode() + "\n")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title)
    for name in rows[0] if rows else ():
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if value is None else show_controls(str(value))) for value in row.values()))
    output.print(table)


def exit_code(outcome: Outcome) -> int:
    """Return 1 when a variant failed or a comparison broke off, 0 otherwise."""
    return EXIT_FAILED if outcome.failed else 0

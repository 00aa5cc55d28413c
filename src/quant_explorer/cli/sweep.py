"""`quant-explorer sweep`: pruning x precision x runtimes under budgets, from a YAML file."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quant_explorer.cli.options import all_option, json_option, sweep_options
from quant_explorer.core.recipe import BASELINE
from quant_explorer.core.settings.declaration import Value

if TYPE_CHECKING:
    from quant_explorer.analysis.sweep.findings import SeedFindings
    from quant_explorer.cli.job import Job
    from quant_explorer.core.study import StudyFile
    from quant_explorer.pipeline.explore import Outcome
    from quant_explorer.pipeline.plan.sweep_file import SweepConfig
    from quant_explorer.pipeline.run import RunDescription, RunFolder
    from quant_explorer.report.page.content import Sheet

DEFAULT_CONFIG = Path("configs/default.yaml")


class _SeveralSeeds(click.Command):
    """Takes `--seeds 1 2 3`, which click by itself wants as `--seeds 1 --seeds 2 --seeds 3`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spread: list[str] = []
        inside = False
        for argument, following in itertools.pairwise([*args, "-"]):
            if inside and not argument.startswith("-"):
                spread += ["--seeds", argument]
                continue
            # One without a number is left for click to refuse.
            inside = argument == "--seeds" and not following.startswith("-")
            spread += [] if inside else [argument]
        return super().parse_args(ctx, spread)


@click.command(cls=_SeveralSeeds)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=DEFAULT_CONFIG,
    show_default=True,
    help="What to sweep, and under which budgets.",
)
@click.option("--report-only", is_flag=True, help="Write the outputs of what was recorded, nothing else.")
@sweep_options
@all_option
@json_option
def command(config_file: Path, report_only: bool, everything: bool, as_json: bool, **given: Value) -> int:
    """Prune, fine-tune, lower the precision, measure every pair, and hold all against the budgets.

    What is given here wins over the file. Each seed has a run folder of its own in --run-dir; a sweep that
    was stopped goes on where it was.
    """
    from quant_explorer.cli.job import exit_code
    from quant_explorer.pipeline.plan.sweep_file import SweepConfig, read_sweep_file

    values = read_sweep_file(config_file)
    if given["seed"] is not None:
        # Otherwise the seeds of the file would win over the one of the command line.
        values.pop("seeds", None)
    sweep = _Sweep(
        SweepConfig.of(values | {name: value for name, value in given.items() if value is not None})
    )
    if report_only:
        sweep.recall()
        sweep.write_and_show(as_json=as_json, everything=everything, measured=False)
        return 0
    outcomes = [sweep.run(seed) for seed in sweep.seeds]
    sweep.serve_on_more_threads()
    sweep.write_and_show(as_json=as_json, everything=everything, measured=True)
    return max(exit_code(outcome) for outcome in outcomes)


class _Sweep:
    """One configuration over its seeds, each an ordinary run in a folder of its own."""

    def __init__(self, config: SweepConfig) -> None:
        from quant_explorer.pipeline.plan.space import choose_runtimes, sweep_recipes
        from quant_explorer.runtimes import RUNTIMES

        self.config, self.seeds, self.plan = config, config.seeds, config.plan
        self.recipes = sweep_recipes(
            self.plan.cells,
            choose_runtimes(config.grid.runtimes, RUNTIMES),
            config.settings,
            config.protocol,
            importance=config.grid.importance,
            round_to=config.grid.round_to,
            fine_tune=config.fine_tune,
        )
        self.findings: dict[int, SeedFindings] = {}
        self.sheets: dict[int, tuple[Sheet, ...]] = {}

    def run(self, seed: int) -> Outcome:
        """Take one seed to its end."""
        from quant_explorer.pipeline.explore import Until
        from quant_explorer.pipeline.inspect import inspect_machine, inspect_models

        with self._opened(seed) as job:
            if len(self.seeds) > 1:
                job.progress.say(f"seed {seed}:")
            exploration = job.begin(job.wanted.settings)
            inspect_machine(job.study, job.environment, job.progress)
            inspect_models(self.recipes, exploration.preparation, job.study)
            outcome = job.take(exploration, self.recipes, until=Until.TIMED)
            self._examine(seed, job.run, job.study, job.wanted)
        return outcome

    def recall(self) -> None:
        """Derive everything from the studies that are there; raises StudyError for a seed without one."""
        from quant_explorer.core.errors import StudyError
        from quant_explorer.pipeline.run import RunFolder

        for seed in self.seeds:
            run = RunFolder(self._folder(seed))
            if not run.study.exists():
                raise StudyError(f"{run.study}: there is no study of seed {seed} yet")
            # What it was measured with, whatever the file says now.
            described = run.describe() or self._wanted(seed)
            self._examine(seed, run, run.load_study(), described)

    def serve_on_more_threads(self) -> None:
        """Measure what the budgets pick on 2, 4, ... cores too, in the run folder of the first seed."""
        from quant_explorer.analysis.sweep.summary import decide_all
        from quant_explorer.machine.topology import available_cores
        from quant_explorer.pipeline.explore import Until

        decisions = decide_all(list(self.findings.values()), self.plan)
        names = {BASELINE, *(decision.chosen for decision in decisions)}
        wanted = [recipe for recipe in self.recipes if recipe.name in names]
        counts = [2**power for power in range(1, available_cores().bit_length())]
        if not any(decision.chosen for decision in decisions) or not counts:
            return
        with self._opened(self.seeds[0]) as job:
            for threads in counts:
                job.progress.say(f"{', '.join(recipe.name for recipe in wanted)} on {threads} cores:")
                protocol = dataclasses.replace(job.wanted.protocol, threads=threads)
                wider = dataclasses.replace(job, wanted=dataclasses.replace(job.wanted, protocol=protocol))
                wider.take(wider.begin(job.wanted.settings), wanted, until=Until.TIMED)
            self._examine(self.seeds[0], job.run, job.study, job.wanted)

    def write_and_show(self, *, as_json: bool, everything: bool, measured: bool) -> None:
        """Write every output, and print the table of each seed and what the budgets pick.

        What describes how it was `measured` is written by the command that did so.
        """
        from quant_explorer.analysis.sweep.tables import tabulate_sweep
        from quant_explorer.cli.console import ConsoleProgress, output
        from quant_explorer.cli.job import conclude, say, show
        from quant_explorer.pipeline.reproducibility import describe_reproducibility
        from quant_explorer.report.answer import export_command
        from quant_explorer.report.render import write_page
        from quant_explorer.report.sweep.files import write_sweep
        from quant_explorer.report.sweep.text import describe_choices, describe_sweep

        findings = list(self.findings.values())
        digests = [findings_of_seed.results.run.data_digest for findings_of_seed in findings]
        reproducibility = (
            describe_reproducibility(sys.argv, findings[0].results.environment, digests, self.plan)
            if measured
            else None
        )
        with ConsoleProgress().task("writing tables and plots", None):
            tables = tabulate_sweep(findings, self.plan)
            write_sweep(tables, reproducibility, self.config.run_dir)
            results = findings[0].results
            choices = describe_choices(tables.summary, results)
            sheets = [sheet for some in self.sheets.values() for sheet in _with_choices(some, choices)]
            page = write_page(results, sheets, self.config.run_dir)
        if as_json:
            output.file.write((self.config.run_dir / "summary.json").read_text())
            return
        for findings_of_seed in findings:
            show(findings_of_seed.results, everything=everything)
        for sentence in describe_sweep(tables):
            say(f"- {sentence}")
        chosen = dict.fromkeys(
            decision.chosen for decision in tables.summary.decisions if decision.chosen is not None
        )
        exports = [export_command(name, self._folder(self.seeds[0])) for name in chosen]
        conclude(results, page, choices, exports)

    @contextlib.contextmanager
    def _opened(self, seed: int) -> Iterator[Job]:
        from quant_explorer.cli.job import open_described

        with open_described(self._folder(seed), self._wanted(seed)) as job:
            yield job

    def _folder(self, seed: int) -> Path:
        return self.config.run_dir / f"seed-{seed}"

    def _wanted(self, seed: int) -> RunDescription:
        from quant_explorer.pipeline.run import RunDescription

        return RunDescription(self.config.settings_of_seed(seed), self.config.protocol)

    def _examine(self, seed: int, run: RunFolder, study: StudyFile, described: RunDescription) -> None:
        from quant_explorer.analysis.rank import summarize
        from quant_explorer.analysis.sweep.findings import examine_seed
        from quant_explorer.recorded import run_info
        from quant_explorer.report.page.sheet import make_sheets
        from quant_explorer.report.render import write_report

        results = summarize(study, run_info(study, described, self.plan.rules))
        write_report(results, run.report, multi=False)
        self.findings[seed] = examine_seed(seed, study, results, self.plan)
        self.sheets[seed] = make_sheets(study, results, f"seed {seed}" if len(self.seeds) > 1 else "")


def _with_choices(sheets: tuple[Sheet, ...], choices: Sequence[str]) -> tuple[Sheet, ...]:
    """Put what the budgets pick on the sheet of the environment that they were held in, the first."""
    first, *others = sheets
    return dataclasses.replace(first, choices=tuple(choices)), *others

"""A recorded run for Python programs: its results as dataclasses, as a data frame, and as the page's plot."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from quant_explorer import __version__
from quant_explorer.analysis.rank import summarize
from quant_explorer.analysis.results import Results, RunInfo
from quant_explorer.core.errors import StudyError, require_supported
from quant_explorer.core.host.packages import explain_missing
from quant_explorer.core.settings.groups import DecisionRules, MeasurementProtocol, Settings
from quant_explorer.core.study import StudyFile
from quant_explorer.pipeline.run import RunDescription, RunFolder
from quant_explorer.report.flat import flatten
from quant_explorer.report.page.render import render_page
from quant_explorer.report.page.sheet import make_sheets

if TYPE_CHECKING:
    from pandas import DataFrame

HEIGHT_PX = 760


@dataclass(frozen=True)
class Inline:
    """A page that a notebook shows in a frame of its own; it makes no request."""

    html: str

    def _repr_html_(self) -> str:
        """Return what Jupyter shows."""
        return (
            f'<iframe srcdoc="{escape(self.html)}" sandbox="allow-scripts" title="Frontier" '
            f'style="width: 100%; height: {HEIGHT_PX}px; border: 0"></iframe>'
        )


@dataclass(frozen=True)
class Study:
    """What a run recorded: raw `records`, what the `run` was asked to do, and what follows from both."""

    records: StudyFile
    run: RunInfo

    @classmethod
    def load(cls, path: str | Path, rules: DecisionRules | None = None) -> Study:
        """Read a run folder, or the `study.jsonl` in one; `rules` are those of `quant-explorer report`.

        Raises StudyError for a folder without a study, and for a study that cannot be read.
        """
        given = Path(path)
        run = RunFolder(given.parent if given.name == RunFolder(given.parent).study.name else given)
        if not run.study.exists():
            raise StudyError(f"{run.study}: there is no study here; `quant-explorer pipeline` makes one")
        records = run.load_study()
        described = run.describe() or RunDescription(Settings(), MeasurementProtocol())
        return cls(records, run_info(records, described, rules or DecisionRules()))

    @cached_property
    def results(self) -> Results:
        """Every figure of the report, with intervals, picks and answers; derived once.

        Those of the environment that was measured last; `others` holds the rest. Raises StudyError for a
        study without measurements.
        """
        return summarize(self.records, self.run)

    def to_dataframe(self) -> DataFrame:
        """Return a pandas DataFrame with a row a variant, as `report/flat.py:flatten` names the columns.

        Raises UnsupportedError with the command that installs pandas when it is missing.
        """
        require_supported(explain_missing("dataframe", "pandas"))
        from pandas import DataFrame

        return DataFrame([flatten(variant) for variant in self.results.variants])

    def frontier(self) -> Inline:
        """Return the plot of the page, as interactive as there, for the last line of a notebook's cell."""
        sheets = make_sheets(self.records, self.results)
        return Inline(render_page(self.results, sheets, plot_only=True).decode())


def run_info(records: StudyFile, wanted: RunDescription, rules: DecisionRules) -> RunInfo:
    """Return what a report says of the run."""
    return RunInfo(
        wanted.settings,
        wanted.protocol,
        data_digest=", ".join(sorted(records.splits)),
        version=__version__,
        rules=rules,
    )

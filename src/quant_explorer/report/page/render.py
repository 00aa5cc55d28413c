"""Page -> HTML: one file without a request to anywhere, by Jinja2 with autoescape and Plotly's own script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from quant_explorer import __version__
from quant_explorer.analysis.results import Results
from quant_explorer.report.page.content import Figure, Page, Row, Sheet

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).parent
SCRIPTS = ("rules.js", "plots.js", "page.js")
# The strongest colour of the heat map, in percentage points.
FULL_COLOUR_PP = 5.0
# Of variants in a plot of bars, as in plots.js; more cannot be read.
MOST_BARS = 60
PERCENT = ("accuracy", "int8")


def render_page(results: Results, sheets: Sequence[Sheet], *, plot_only: bool = False) -> bytes:
    """Return the page of a run or, with the first seed's results, of a sweep: a tab for each sheet.

    With `plot_only` nothing but the frontier is shown, for a frame in a notebook.
    """
    from markupsafe import Markup

    models = ", ".join(dict.fromkeys(sheet.model for sheet in sheets))
    page = Page(
        f"Which version of {models} to ship, by {results.run.settings.data}", __version__, tuple(sheets)
    )
    scripts = [_plotly(), *((FOLDER / name).read_text() for name in SCRIPTS)]
    html = (
        _environment()
        .get_template("page.html.jinja")
        .render(
            page=page,
            plot_only=plot_only,
            most_bars=MOST_BARS,
            # `<` ends no script when it is written as an escape; JSON reads both alike.
            data=Markup(msgspec.json.encode(page).decode().replace("<", "\\u003c")),
            style=Markup((FOLDER / "page.css").read_text()),
            scripts=[Markup(script) for script in scripts],
            policy=_policy(scripts),
        )
    )
    return html.encode()


def _policy(scripts: Sequence[str]) -> str:
    """Forbid every request and every script but those of the page itself, which are named by their hashes."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "figure": figure, "shade": shade, "signed": signed}
    return environment


def number(value: float) -> str:
    """Format with three significant digits, and all digits of a whole number."""
    return f"{value:,.0f}" if abs(value) >= 99.95 or value == 0 else f"{value:#.3g}"


def figure(row: Row, key: str) -> str:
    """Return a row's figure on an axis with its interval, or that it has none."""
    found: Figure | None = row.figures.get(key)
    if found is None:
        return "n/a"
    form = signed if key == "change" else "{:.2f}".format if key in PERCENT else number
    if found.low is None or found.high is None:
        return form(found.point)
    return f"{form(found.point)} [{form(found.low)}, {form(found.high)}]"


def signed(value: float) -> str:
    """Format percentage points with their sign."""
    return f"{value:+.2f}" if value else "0.00"


def shade(diff_pp: float) -> str:
    """Return the class of a cell of the heat map: `loss-1` to `loss-4`, `gain-1` to `gain-4`, or none."""
    step = min(round(4 * abs(diff_pp) / FULL_COLOUR_PP), 4)
    return f"{'gain' if diff_pp > 0 else 'loss'}-{step}" if step else "even"

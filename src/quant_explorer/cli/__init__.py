"""The command line: one thin file a command. Only this room prints, draws bars and exits."""

from __future__ import annotations

import sys

from quant_explorer.cli.app import app
from quant_explorer.cli.console import run_command


def main() -> None:
    """Entry point of `quant-explorer`."""
    sys.exit(run_command(app, sys.argv[1:]))

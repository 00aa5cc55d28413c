"""The group that all commands hang on."""

from __future__ import annotations

import importlib

import click

from quant_explorer import __version__

# Name on the command line -> module of this package. A command is imported when it is asked for.
COMMANDS = {
    "pipeline": "pipeline",
    "multi-bench": "multi_bench",
    "sweep": "sweep",
    "train": "train",
    "quantize": "quantize",
    "qat-finetune": "qat_finetune",
    "evaluate": "evaluate",
    "bench": "bench",
    "inspect": "inspect",
    "report": "report",
    "pick": "pick",
    "compare": "compare",
    "gate": "gate",
    "gate-size": "gate_size",
    "track": "track",
    "export": "export",
    "verify": "verify",
    "list": "listing",
    "doctor": "doctor",
    "clean": "clean",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"quant_explorer.cli.{COMMANDS[cmd_name]}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from quant_explorer.core.registry import unknown_name_message

        if args[0] not in COMMANDS:
            raise click.UsageError(unknown_name_message("command", args[0], COMMANDS))
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def app() -> None:
    """Which compressed version of my vision model should I ship?

    Exit codes: 0 done; 1 a variant failed, a gate was not passed or an export does not hold; 2 wrong use or
    input; 3 the run folder is in use by another process; 4 no variant is within the limits of `pick`;
    130 interrupted.
    """

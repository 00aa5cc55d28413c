"""What the workflows and the action call exists, with the options and inputs that they give."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from quant_explorer.cli.app import app
from quant_explorer.core.settings.declaration import declared_of
from quant_explorer.core.settings.limits import GateLimits
from tests.docs.documents import ROOT

ACTION = ROOT / "action.yml"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def steps(path: Path) -> list[dict[str, object]]:
    read = yaml.safe_load(path.read_text())
    jobs = [read["runs"]] if path == ACTION else list(read["jobs"].values())
    return [step for job in jobs for step in job["steps"]]


def calls(path: Path) -> Iterator[list[str]]:
    """Yield the arguments of each call of the command line."""
    for step in steps(path):
        for line in str(step.get("run", "")).splitlines():
            found = re.match(r"\S*\bquant-explorer (.*?)( \|\| .*)?$", line)
            if found:
                yield shlex.split(found[1])


@pytest.mark.parametrize("path", [ACTION, *WORKFLOWS], ids=lambda path: path.name)
def test_commands_and_options_exist(path: Path) -> None:
    context = click.Context(app)
    called = list(calls(path))
    assert called
    for name, *arguments in called:
        command = app.get_command(context, name)
        assert command is not None, name
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in arguments if word.startswith("--")} <= known


def test_the_inputs_of_the_action_are_options_with_the_same_defaults() -> None:
    inputs = yaml.safe_load(ACTION.read_text())["inputs"]
    defaults = {
        declared.option.removeprefix("--"): declared.default_text for declared in declared_of(GateLimits())
    }
    limits = {name: value["default"] for name, value in inputs.items() if name.startswith("max-")}
    assert limits
    assert limits == {name: defaults[name] for name in limits}
    gating = steps(ACTION)[-1]
    variables = gating["env"]
    assert isinstance(variables, dict)
    # Every input is a variable, every variable is used, and none is pasted into the script.
    assert {f"${{{{ inputs.{name} }}}}" for name in inputs.keys() - {"python-version"}} == set(
        variables.values()
    )
    assert all(f'"${name}"' in str(gating["run"]) for name in variables)
    assert "${{" not in str(gating["run"])


def test_the_workflow_gives_the_action_its_inputs() -> None:
    (use,) = (
        step for step in steps(ROOT / ".github" / "workflows" / "gate.yml") if step.get("uses") == "./after"
    )
    inputs = yaml.safe_load(ACTION.read_text())["inputs"]
    required = {name for name, value in inputs.items() if value.get("required")}
    given = use["with"]
    assert isinstance(given, dict)
    assert required <= given.keys() <= inputs.keys()

"""What the documents name exists (links, commands, options, functions), and what exists is mentioned."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from quant_explorer.cli import console
from quant_explorer.cli.app import COMMANDS, app
from quant_explorer.core.errors import QuantExplorerError, RunBusyError
from quant_explorer.core.measurement import Status
from quant_explorer.datasets import SOURCES
from quant_explorer.models import MODELS
from quant_explorer.pipeline.plan.space import CONFIGURATIONS
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.runtimes import RUNTIMES
from quant_explorer.techniques import TECHNIQUES
from tests.docs.documents import (
    PACKAGE,
    ROOT,
    anchors,
    code_words,
    command_lines,
    defines,
    documents,
    links,
    prose,
    source_file,
)

ARCHITECTURE = ROOT / "ARCHITECTURE.md"
REQUIRED = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "docs/README.md")
METHOD = ("docs/quantization.md", "docs/methodology.md")
# Of an artifact, of an export, of a report, PyTorch's, a user's own: none is of the repository.
NOT_OURS = re.compile(
    r"(model|predict)\.py|MODEL_CARD\.md|(multi_)?pareto\.md|fake_quantize\.py|path/to/.*|torch/.*|.*[<*].*"
)


@pytest.fixture(autouse=True)
def _verbosity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.verbosity, "level", 0)


def each(paths: list[Path]) -> list[object]:
    return [pytest.param(path, id=path.relative_to(ROOT).as_posix()) for path in paths]


@pytest.mark.parametrize("name", [*REQUIRED, *METHOD])
def test_the_documents_are_there(name: str) -> None:
    assert (ROOT / name) in documents()


@pytest.mark.parametrize("document", each(documents()))
def test_relative_links_resolve(document: Path) -> None:
    broken = []
    for link in links(document):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("document", each(documents()))
def test_command_lines_parse(document: Path) -> None:
    for arguments in command_lines(document, "quant-explorer"):
        check_command(arguments)


@pytest.mark.parametrize("document", each(documents()))
def test_commands_named_in_the_text_exist(document: Path) -> None:
    for words in code_words(document):
        program, _, rest = words.partition(" ")
        if program == "quant-explorer" and rest:
            assert rest.split()[0] in COMMANDS, words


@pytest.mark.parametrize("document", each(documents()))
def test_options_named_in_the_text_exist(document: Path) -> None:
    known = {option for name in COMMANDS for option in options_of(name)} | {"--help", "--strict", "--logits"}
    for words in code_words(document):
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", words):
            assert option in known, words


@pytest.mark.parametrize("document", each(documents()))
def test_make_targets_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    used = [words[0] for words in command_lines(document, "make") if words]
    used += [words.split()[1] for words in code_words(document) if words.startswith("make ")]
    assert set(used) <= targets


@pytest.mark.parametrize("document", each(documents()))
def test_references_to_the_sources_hold(document: Path) -> None:
    for file, name in references(document):
        path = source_file(file)
        assert path is not None, f"{file} does not exist"
        assert not name or defines(path, name), f"{file} defines no {name}"


def test_architecture_refers_to_every_room_and_many_functions() -> None:
    assert len({name for _, name in references(ARCHITECTURE) if name}) > 40
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms <= set(code_words(ARCHITECTURE))


def test_architecture_shows_the_layers_that_are_enforced() -> None:
    contract = re.search(r"layers = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), flags=re.DOTALL)
    assert contract is not None
    layers = re.findall(r'"([^"]+)"', contract[1])
    shown = "\n".join(f"    {layer.replace('quant_explorer.', '')}" for layer in layers)
    assert shown in ARCHITECTURE.read_text()


def test_architecture_names_what_a_run_folder_holds() -> None:
    run = RunFolder(Path("run"))
    paths = [run.study, run.description, run.weights, run.artifacts, run.outputs, run.report, run.log]
    text = prose(ARCHITECTURE)
    assert [path.name for path in paths if f"`{path.name}" not in text] == []


def test_architecture_names_every_status_and_exit_code() -> None:
    assert {status.value for status in Status} <= set(code_words(ARCHITECTURE))
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", prose(ARCHITECTURE), flags=re.MULTILINE)}
    errors = {QuantExplorerError.exit_code, RunBusyError.exit_code}
    assert listed == {0, console.EXIT_FAILED, console.EXIT_NOTHING_WITHIN, console.EXIT_INTERRUPTED} | errors


@pytest.mark.parametrize(
    "name", [*CONFIGURATIONS, *TECHNIQUES, *RUNTIMES, *COMMANDS, *MODELS, *SOURCES], ids=str
)
def test_everything_that_can_be_named_is_mentioned(name: str) -> None:
    written = [path for path in documents() if "results" not in path.parts]
    words = "\n".join(word for path in written for word in code_words(path))
    assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", words)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_configuration_has_its_numerics(name: str) -> None:
    assert name in code_words(ROOT / "docs" / "quantization.md")


def test_the_checks_can_fail(tmp_path: Path) -> None:
    document = tmp_path / "wrong.md"
    document.write_text(
        "```sh\nquant-explorer pipelin\n```\n[x](no.md) `pipeline/building/build.py:no_such`\n"
    )
    with pytest.raises(AssertionError):
        test_command_lines_parse(document)
    with pytest.raises(AssertionError):
        test_relative_links_resolve(document)
    with pytest.raises(AssertionError):
        test_references_to_the_sources_hold(document)


def check_command(arguments: list[str]) -> None:
    """Parse a command line as click does, without running it; names must be known."""
    name, *rest = arguments
    assert name in COMMANDS, f"no command {name!r}"
    command = command_of(name)
    try:
        context = command.make_context(name, rest)
    except click.exceptions.Exit:
        return
    except click.ClickException as error:
        pytest.fail(f"quant-explorer {' '.join(arguments)}: {error.format_message()}")
    for config in context.params.get("configs") or ():
        assert config in CONFIGURATIONS or config.isupper(), config
    data = context.params.get("data")
    assert data is None or data.partition(":")[0] in SOURCES, data
    models = context.params.get("models") or [context.params.get("model")]
    assert all(model is None or model in MODELS or ".py:" in model for model in models), models


def command_of(name: str) -> click.Command:
    command = app.get_command(click.Context(app), name)
    assert command is not None
    return command


def options_of(name: str) -> set[str]:
    return {
        option
        for parameter in command_of(name).params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }


def references(document: Path) -> Iterator[tuple[str, str]]:
    """Yield every `file` and `file:name` between backticks."""
    for word in code_words(document):
        found = re.fullmatch(r"([\w./<>*-]+\.(?:py|md|toml|yml))(?::([\w.]+))?", word)
        if found and not NOT_OURS.fullmatch(found[1]):
            yield found[1], found[2] or ""

import subprocess
import sys
from collections.abc import Callable

import pytest

from quant_explorer import __version__
from quant_explorer.cli.app import COMMANDS
from tests.cli.invoking import Place

Invoke = Callable[..., tuple[int, str]]
SLOW_TO_IMPORT = ("torch", "torchvision", "scipy", "matplotlib", "moocore", "PIL")


def test_the_installed_script_lists_every_command_and_the_exit_codes(place: Place) -> None:
    done = place.call("--help")
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert f"  {command} " in done.stdout
    assert "130 interrupted" in " ".join(done.stdout.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(invoke: Invoke, command: str) -> None:
    code, printed = invoke(command, "--help")
    assert code == 0
    assert printed.startswith(f"Usage: quant-explorer {command} ")
    assert "--verbose" in printed
    assert "--quiet" in printed


@pytest.mark.parametrize(
    "command", ["train", "quantize", "qat-finetune", "bench", "evaluate", "pipeline", "sweep"]
)
def test_options_are_the_same_words_everywhere(invoke: Invoke, command: str) -> None:
    _, printed = invoke(command, "--help")
    for option in (
        "--data",
        "--data-dir",
        "--model",
        "--weights",
        "--run-dir",
        "--seed",
        "--epochs",
        "--train-subset",
    ):
        assert f"{option} " in printed
    assert ("--rounds " in printed) == (command in ("bench", "evaluate", "pipeline", "sweep"))


@pytest.mark.parametrize(
    ("command", "default"),
    [
        *((command, "eager") for command in ("quantize", "qat-finetune", "bench", "evaluate", "multi-bench")),
        *((command, "all") for command in ("pipeline", "sweep")),
    ],
)
def test_a_runtime_is_chosen_in_the_same_words(invoke: Invoke, command: str, default: str) -> None:
    _, printed = invoke(command, "--help")
    sentences = " ".join(printed.split())
    assert f"--runtime NAME[,NAME...] Runtimes (see `list`), or all. [default: {default}]" in sentences


def test_the_version_is_the_packages(invoke: Invoke) -> None:
    code, printed = invoke("--version")
    assert (code, __version__ in printed) == (0, True)


def test_an_unknown_command_suggests_the_nearest(invoke: Invoke) -> None:
    code, printed = invoke("pipelin")
    assert code == 2
    assert "unknown command 'pipelin'. Did you mean 'pipeline'?" in printed
    assert "multi-bench" in printed


def test_an_unknown_option_is_wrong_use(invoke: Invoke) -> None:
    code, printed = invoke("pipeline", "--epoch", "3")
    assert code == 2
    assert "--epochs" in printed


@pytest.mark.parametrize(
    "program",
    [
        "import quant_explorer",
        "import quant_explorer.cli.app",
        "from quant_explorer.cli import app, run_command; run_command(app, ['--help'])",
        "from quant_explorer.cli import app, run_command; run_command(app, ['pipeline', '--help'])",
        "from quant_explorer.cli import app, run_command; assert run_command(app, ['list', '--json']) == 0",
    ],
)
def test_what_needs_no_library_imports_none(program: str) -> None:
    check = f"{program}\nimport sys\nprint('imported:', *sorted(set({SLOW_TO_IMPORT!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].strip() == "imported:"

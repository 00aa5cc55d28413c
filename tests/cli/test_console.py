import click
import pytest

from quant_explorer.cli.console import ConsoleProgress, run_command, verbosity
from quant_explorer.core.errors import RunBusyError, UnknownNameError

NASTY = "conv[/usr/lib] [enforce fail at file.cc:5] [red]"


def raising(error: BaseException) -> click.Command:
    @click.command()
    def command() -> None:
        raise error

    return command


def test_what_a_library_says_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    progress = ConsoleProgress()
    progress.say(NASTY)
    with progress.task(NASTY, 2) as bar:
        bar.advance(1, "loss [0.5]")
    assert capsys.readouterr().err.splitlines() == [NASTY, f"{NASTY}: done loss [0.5]"]


def test_a_task_that_fails_is_not_called_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), ConsoleProgress().task("training", 2):
        raise ZeroDivisionError
    assert capsys.readouterr().err == ""


def test_quiet_is_silent(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbosity, "level", -1)
    progress = ConsoleProgress()
    progress.say("something")
    with progress.task("training", 2) as bar:
        bar.advance()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnknownNameError(NASTY), 2),
        (RunBusyError(NASTY), 3),
    ],
)
def test_an_error_is_one_message_and_an_exit_code(
    capsys: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    assert run_command(raising(error), []) == code
    assert capsys.readouterr().err == f"error: {NASTY}\n"


def test_verbose_adds_the_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbosity, "level", 1)
    assert run_command(raising(UnknownNameError("no such thing")), []) == 2
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert told.endswith("error: no such thing\n")


def test_ctrl_c_has_its_own_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(raising(KeyboardInterrupt()), []) == 130
    told = capsys.readouterr().err
    assert "interrupted" in told
    assert "Traceback" not in told


def test_a_bug_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(raising(ZeroDivisionError()), [])

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from quant_explorer.cli.console import ConsoleProgress, divert_libraries, run_command, verbosity
from quant_explorer.cli.job import print_figures
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


def test_without_a_terminal_long_work_says_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    progress = ConsoleProgress(every_s=0.01)
    with progress.task("variants", 4) as outer, progress.task("time batch 1", None) as inner:
        outer.advance(1)
        inner.advance(note="round 3")
        written = ""
        while "left" not in written:
            written += capsys.readouterr().err
    line = next(line for line in written.splitlines() if "left" in line)
    assert re.fullmatch(r"variants: 1 of 4, about \d+ s left; time batch 1 round 3", line)
    capsys.readouterr()
    time.sleep(0.1)
    assert capsys.readouterr().err == ""


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


def test_a_terminal_obeys_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    name = "cat\x1b[2J\x9b\u202egpj.exe"
    shown = r"cat\x1b[2J\x9b\u202egpj.exe"
    ConsoleProgress().say(f"{name}: not a readable image")
    assert run_command(raising(UnknownNameError(name)), []) == 2
    assert capsys.readouterr().err == f"{shown}: not a readable image\nerror: {shown}\n"
    print_figures([{"class": name}], as_json=False, title="")
    assert shown in capsys.readouterr().out


def test_verbose_adds_the_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbosity, "level", 1)
    assert run_command(raising(UnknownNameError("no such thing")), []) == 2
    sentences = capsys.readouterr().err
    assert "Traceback" in sentences
    assert sentences.endswith("error: no such thing\n")


def test_ctrl_c_has_its_own_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(raising(KeyboardInterrupt()), []) == 130
    sentences = capsys.readouterr().err
    assert "interrupted" in sentences
    assert "Traceback" not in sentences


def test_a_bug_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(raising(ZeroDivisionError()), [])


DEPRECATED = """
import pathlib, sys, warnings
import click
from quant_explorer.cli.console import run_command
from quant_explorer.pipeline.run import log_to

@click.command()
def command():
    def warn():
        warnings.warn_explicit("goes away", DeprecationWarning, "library.py", 7, module="library")
    warn()
    with log_to(pathlib.Path(sys.argv[1])):
        warn()

sys.exit(run_command(command, []))
"""


def test_deprecations_of_libraries_are_for_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    done = subprocess.run([sys.executable, "-c", DEPRECATED, str(log)], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert log.read_text().count("library.py:7: DeprecationWarning: goes away") == 1


# What a library does to the terminal, and we; its arguments are the log, and whether it is verbose.
PRINTING = """
import ctypes, os, pathlib, subprocess, sys
from quant_explorer.cli.console import ConsoleProgress, divert_libraries, messages, output, verbosity

def print_everywhere(when):
    print(f"python {when}")
    print(f"python error {when}", file=sys.stderr)
    # Neither of them is flushed by anyone.
    ctypes.CDLL(None).printf(f"c {when}\\n".encode())
    os.write(1, f"descriptor {when}\\n".encode())
    os.write(2, f"descriptor error {when}\\n".encode())
    subprocess.run(["echo", f"child {when}"])

verbosity.level = int(sys.argv[2])
with divert_libraries(pathlib.Path(sys.argv[1])):
    print_everywhere("inside")
    output.print("our table")
    output.file.write('{"ours": 1}\\n')
    messages.print("our message")
    ConsoleProgress().say("our progress")
    output.file.write("our end, without a newline")
print_everywhere("outside")
output.print("our last table")
raise ZeroDivisionError("our bug")
"""
NOISE = {
    f"{kind} {where}" for kind in ("python", "c", "descriptor", "child") for where in ("inside", "outside")
}
NOISE_ON_STDERR = {
    f"{kind} error {where}" for kind in ("python", "descriptor") for where in ("inside", "outside")
}


def printed(log: Path, level: int) -> tuple[str, str, set[str]]:
    """Run it in a process with the buffers that a user's has: both streams, and the lines of the log."""
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, "-c", PRINTING, str(log), str(level)],
        capture_output=True,
        text=True,
        env=buffered,
        check=False,
    )
    assert done.returncode == 1
    return done.stdout, done.stderr, set(log.read_text().splitlines()) if log.exists() else set()


@pytest.mark.parametrize("level", [0, -1])
def test_what_libraries_print_goes_to_the_log_while_it_is_diverted(tmp_path: Path, level: int) -> None:
    out, err, logged = printed(tmp_path / "log.txt", level)
    assert logged == {line for line in NOISE | NOISE_ON_STDERR if line.endswith("inside")}
    assert "inside" not in out + err
    # Ours arrives whole, in its order and before what comes after.
    assert out.startswith('our table\n{"ours": 1}\nour end, without a newline')
    assert err.startswith("our message\n" + ("our progress\n" if level == 0 else ""))
    assert all(line in out for line in NOISE if line.endswith("outside"))
    assert "our last table\n" in out
    assert "ZeroDivisionError: our bug" in err


def test_verbose_diverts_nothing(tmp_path: Path) -> None:
    out, err, logged = printed(tmp_path / "log.txt", 1)
    assert logged == set()
    assert all(line in out for line in NOISE)
    assert all(line in err for line in NOISE_ON_STDERR)


GONE = """
import pathlib, sys
from quant_explorer.cli.console import divert_libraries, output
with divert_libraries(pathlib.Path(sys.argv[1])):
    output.print("something")
"""


def test_a_reader_that_is_gone_is_no_traceback(tmp_path: Path) -> None:
    """As in `quant-explorer report | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", GONE, str(tmp_path / "log.txt")],
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_stream_that_is_no_file_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with divert_libraries(tmp_path / "log.txt"):
        print("as it was")  # noqa: T201
    assert capsys.readouterr().out == "as it was\n"
    assert (tmp_path / "log.txt").read_text() == ""

"""A run folder: one study with its weights, artifacts, report and log. One process at a time."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock
import msgspec

from quant_explorer.core.artifact import remove_unfinished, write_atomically
from quant_explorer.core.errors import RunBusyError, SettingsError, StorageError, StudyError, explain
from quant_explorer.core.settings.declaration import decode_path, settings_of
from quant_explorer.core.settings.groups import MeasurementProtocol, Settings
from quant_explorer.core.study import StudyFile


@dataclass(frozen=True)
class RunDescription:
    """The content of run.json: what a run was asked to do, and how it was last measured."""

    settings: Settings
    protocol: MeasurementProtocol


@dataclass(frozen=True)
class RunFolder:
    """Where everything of one run lies."""

    path: Path

    @property
    def study(self) -> Path:
        """Raw observations, JSON Lines."""
        return self.path / "study.jsonl"

    @property
    def description(self) -> Path:
        """What the run was asked to do."""
        return self.path / "run.json"

    @property
    def weights(self) -> Path:
        """Trained and fine-tuned float weights, by digest."""
        return self.path / "weights"

    @property
    def artifacts(self) -> Path:
        """Artifacts, a folder a digest."""
        return self.path / "artifacts"

    @property
    def outputs(self) -> Path:
        """Logits over the report split, by digest: the reference that SQNR needs on resuming."""
        return self.path / "outputs"

    @property
    def report(self) -> Path:
        """What is written for people and for other programs."""
        return self.path / "report"

    @property
    def log(self) -> Path:
        """What the libraries had to say."""
        return self.path / "log.txt"

    @property
    def is_used(self) -> bool:
        """Whether a command has left anything here that its settings decide."""
        return any(path.exists() for path in (self.study, self.weights, self.artifacts))

    def load_study(self) -> StudyFile:
        """Read the study, empty when the run is new."""
        return StudyFile.load(self.study)

    def describe(self) -> RunDescription | None:
        """Return what the folder was made with, None for a new one; raises StudyError if unreadable."""
        if not self.description.exists():
            return None
        try:
            return msgspec.json.decode(
                self.description.read_bytes(), type=RunDescription, dec_hook=decode_path
            )
        except (OSError, msgspec.DecodeError) as error:
            raise StudyError(
                f"{self.description}: not a readable run description ({explain(error)}); delete it, and give "
                "the options of the run again"
            ) from error

    def claim(self, wanted: RunDescription) -> None:
        """Write the description, or check that the folder was made with the same settings.

        The protocol may change from command to command, and everything may while the folder holds no
        results yet. Raises SettingsError listing options that differ.
        """
        self.require_same_settings(wanted)
        content = msgspec.json.encode(wanted, enc_hook=str)
        write_atomically(self.description, msgspec.json.format(content, indent=2) + b"\n")

    def require_same_settings(self, wanted: RunDescription) -> None:
        """Raise SettingsError listing options that differ from those of the results that are here."""
        earlier = self.describe()
        if earlier is not None and self.is_used:
            differing = [
                f"{setting.option} {_given(before)} (now {_given(now)})"
                for setting in settings_of(Settings)
                if (before := getattr(earlier.settings, setting.name))
                != (now := getattr(wanted.settings, setting.name))
            ]
            if differing:
                raise SettingsError(
                    f"{self.path} was made with {', '.join(differing)}. "
                    "Use another --run-dir, or the same options."
                )


def _given(value: object) -> str:
    return "not given" if value in (None, "") else str(value)


@contextmanager
def open_run(path: Path) -> Iterator[RunFolder]:
    """Lock and yield a run folder; its log receives what libraries log and warn meanwhile.

    Raises RunBusyError when another process works on it, StorageError when it cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path / ".lock")
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise RunBusyError(
            f"{path} is in use by another quant-explorer process; wait for it, or use another --run-dir"
        ) from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or explain(error)})") from error
    try:
        run = RunFolder(path)
        remove_unfinished(run.artifacts)
        with log_to(run.log):
            yield run
    finally:
        lock.release()


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Send the log of all libraries to a file inside the block; raises StorageError if there can be none."""
    try:
        handler = _LogFile(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or explain(error)})") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        # On a full disk, closing fails too.
        with contextlib.suppress(OSError):
            handler.close()


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name logging calls
        """Drop the line: on a full disk the record that matters says so, once."""

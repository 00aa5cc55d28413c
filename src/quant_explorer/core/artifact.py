"""Artifact: a folder of files that a deployment needs, with a manifest that says what they are."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from quant_explorer.core.data.dataset import InputSpec
from quant_explorer.core.errors import StorageError, StudyError, explain
from quant_explorer.core.measurement import FileSize
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.core.recipe import ParameterValue, Provenance, Recipe

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
_UNFINISHED = ".building-"


@dataclass(frozen=True)
class File:
    """One file of an artifact: path relative to its folder, size in bytes, SHA-256."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What the files of an artifact are, how they were made, and how their input is prepared."""

    schema_version: int
    digest: str
    recipe: Recipe
    provenance: Provenance
    spec: QuantSpec
    input: InputSpec
    classes: tuple[str, ...]
    files: tuple[File, ...]
    options: tuple[tuple[str, ParameterValue], ...] = ()
    notes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Artifact:
    """A folder of files with its manifest, complete on disk."""

    folder: Path
    manifest: Manifest

    @property
    def files(self) -> tuple[FileSize, ...]:
        """The files a deployment needs (the manifest itself is not one)."""
        return tuple(FileSize(file.path, file.bytes) for file in self.manifest.files)

    @classmethod
    def load(cls, folder: Path) -> Artifact:
        """Read the manifest in `folder`; raises StudyError when it is missing, torn or of another schema."""
        path = folder / MANIFEST
        try:
            manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
        except (OSError, msgspec.DecodeError) as error:
            raise StudyError(
                f"{path}: not a readable artifact manifest ({explain(error)}); delete {folder} to rebuild"
            ) from error
        if manifest.schema_version != SCHEMA_VERSION:
            raise StudyError(
                f"{path}: schema version {manifest.schema_version}, this program reads {SCHEMA_VERSION}"
            )
        return cls(folder, manifest)

    def verify(self) -> None:
        """Compare every file with its SHA-256; raises StudyError naming the first that differs."""
        for file in self.manifest.files:
            path = self.folder / file.path
            if not path.is_file() or sha256_of(path) != file.sha256:
                raise StudyError(
                    f"{path}: missing or changed since it was built; delete {self.folder} to rebuild"
                )


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `folder` when the block ends well, and vanishes otherwise.

    Raises StorageError when the disk is full or the place cannot be written.
    """
    with _explain_storage(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=folder.parent))
    try:
        yield temporary
        with _explain_storage(folder):
            temporary.chmod(0o755)
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what processes that were killed while they built left in the folder of artifacts."""
    for temporary in folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(temporary, ignore_errors=True)


def list_files(folder: Path) -> tuple[File, ...]:
    """Describe every file below `folder` except the manifest, sorted by path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return tuple(
        File(path.relative_to(folder).as_posix(), path.stat().st_size, sha256_of(path)) for path in paths
    )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest as indented JSON."""
    write_atomically(folder / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file at `path` so that a reader sees the old content or the new, never half of one.

    Raises StorageError when the disk is full or the place cannot be written.
    """
    with _explain_storage(path):
        _replace(path, content)


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def _explain_storage(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or explain(error)})") from error


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

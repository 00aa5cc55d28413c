from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from quant_explorer.core.artifact import (
    MANIFEST,
    Artifact,
    File,
    Manifest,
    atomic_folder,
    list_files,
    remove_unfinished,
    sha256_of,
    write_atomically,
    write_manifest,
)
from quant_explorer.core.data.dataset import InputSpec
from quant_explorer.core.errors import StudyError
from quant_explorer.core.measurement import FileSize
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.core.recipe import Provenance, Recipe, Step


def write_artifact(folder: Path) -> Manifest:
    (folder / "weights").mkdir(parents=True)
    (folder / "model.json").write_bytes(b"{}")
    (folder / "weights" / "w.bin").write_bytes(bytes(range(256)))
    manifest = Manifest(
        schema_version=1,
        digest="d1",
        recipe=Recipe("static", (Step("static", 1, (("bits", 8), ("narrow", True))),), "eager"),
        provenance=Provenance("small_cnn", "a", "b", versions=(("torch", "2.14.1"),)),
        input=InputSpec((3, 32, 32), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        classes=("zero", "one"),
        spec=QuantSpec("int8", "static", float_layers=("classifier",)),
        files=list_files(folder),
        options=(("engine", "x86"),),
        notes=("fused",),
    )
    write_manifest(folder, manifest)
    return manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_artifact(tmp_path / "d1")
    return tmp_path / "d1"


class TestArtifact:
    def test_loads_what_was_written(self, tmp_path: Path) -> None:
        manifest = write_artifact(tmp_path / "d1")
        artifact = Artifact.load(tmp_path / "d1")
        assert artifact.manifest == manifest
        assert artifact.files == (FileSize("model.json", 2), FileSize("weights/w.bin", 256))
        artifact.verify()

    def test_the_manifest_is_not_one_of_the_files(self, folder: Path) -> None:
        assert (folder / MANIFEST).is_file()
        assert [file.path for file in list_files(folder)] == ["model.json", "weights/w.bin"]

    def test_a_changed_byte_of_the_same_size_is_found(self, folder: Path) -> None:
        content = bytearray((folder / "weights" / "w.bin").read_bytes())
        content[100] ^= 1
        (folder / "weights" / "w.bin").write_bytes(content)
        with pytest.raises(StudyError, match=r"w\.bin.*changed since it was built") as caught:
            Artifact.load(folder).verify()
        assert f"delete {folder}" in str(caught.value)

    def test_a_missing_file_is_found(self, folder: Path) -> None:
        (folder / "model.json").unlink()
        with pytest.raises(StudyError, match=r"model\.json.*missing"):
            Artifact.load(folder).verify()

    @pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'{"schema_version": 1}', b"\xff"])
    def test_a_manifest_that_cannot_be_read_is_named(self, folder: Path, content: bytes | None) -> None:
        (folder / MANIFEST).unlink()
        if content is not None:
            (folder / MANIFEST).write_bytes(content)
        with pytest.raises(StudyError, match="not a readable artifact manifest") as caught:
            Artifact.load(folder)
        assert str(folder / MANIFEST) in str(caught.value)

    def test_another_schema_version_is_refused(self, folder: Path) -> None:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        (folder / MANIFEST).write_text(json.dumps(manifest | {"schema_version": 99}))
        with pytest.raises(StudyError, match="schema version 99, this program reads 1"):
            Artifact.load(folder)


class TestAtomicFolder:
    def test_appears_when_the_block_ends_well(self, tmp_path: Path) -> None:
        target = tmp_path / "artifacts" / "d1"
        with atomic_folder(target) as temporary:
            (temporary / "a").write_text("new")
            assert not target.exists()
        assert (target / "a").read_text() == "new"
        assert list(target.parent.iterdir()) == [target]
        assert target.stat().st_mode & 0o777 == 0o755

    @pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
    def test_vanishes_on_failure_and_keeps_what_was_there(
        self, tmp_path: Path, failure: type[BaseException]
    ) -> None:
        target = tmp_path / "d1"
        target.mkdir()
        (target / "a").write_text("old")

        def fail_half_way() -> None:
            with atomic_folder(target) as temporary:
                (temporary / "a").write_text("half")
                raise failure

        with pytest.raises(failure):
            fail_half_way()
        assert list(tmp_path.iterdir()) == [target]
        assert (target / "a").read_text() == "old"

    def test_replaces_what_was_there(self, tmp_path: Path) -> None:
        target = tmp_path / "d1"
        target.mkdir()
        (target / "stale").write_text("old")
        with atomic_folder(target) as temporary:
            (temporary / "a").write_text("new")
        assert [path.name for path in target.iterdir()] == ["a"]

    def test_what_a_killed_process_left_can_be_removed(self, tmp_path: Path) -> None:
        with atomic_folder(tmp_path / "d1") as temporary:
            (temporary / "a").write_text("sound")
        with atomic_folder(tmp_path / "d2") as temporary:
            (temporary / "deep").mkdir()
            (temporary / "deep" / "a").write_text("half")
            # The process is killed here: nothing comes to clear it away.
            shutil.copytree(temporary, tmp_path / f"{temporary.name}-left")
        remove_unfinished(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {"d1", "d2"}
        remove_unfinished(tmp_path / "nowhere")


class TestWriteAtomically:
    def test_writes_and_replaces(self, tmp_path: Path) -> None:
        path = tmp_path / "deep" / "file.json"
        write_atomically(path, b"one")
        write_atomically(path, b"two")
        assert path.read_bytes() == b"two"
        assert list(path.parent.iterdir()) == [path]
        assert path.stat().st_mode & 0o777 == 0o644

    def test_a_full_disk_leaves_the_old_content_and_no_litter(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def disk_full(_: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        path = tmp_path / "file.json"
        write_atomically(path, b"old")
        monkeypatch.setattr(os, "fsync", disk_full)
        with pytest.raises(Exception, match="No space left on device"):
            write_atomically(path, b"new")
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]


class TestFiles:
    def test_are_described_by_size_and_digest(self, tmp_path: Path) -> None:
        (tmp_path / "a.bin").write_bytes(b"abc")
        digest = hashlib.sha256(b"abc").hexdigest()
        assert sha256_of(tmp_path / "a.bin") == digest
        assert list_files(tmp_path) == (File("a.bin", 3, digest),)

    def test_an_unverified_manifest_is_distinguished_from_its_files(self, folder: Path) -> None:
        artifact = Artifact.load(folder)
        claimed = replace(artifact.manifest.files[0], sha256="0" * 64)
        forged = replace(artifact.manifest, files=(claimed,))
        with pytest.raises(StudyError, match=r"model\.json"):
            Artifact(folder, forged).verify()

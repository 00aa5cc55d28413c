"""Exported programs: what was written is read, and nothing in a file is run."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from quant_explorer.core.errors import ModelError
from quant_explorer.tracing.capture import capture
from quant_explorer.tracing.program_file import read_program, write_program

Entries = dict[str, bytes]


class Resized(nn.Module):
    """The number of images is a symbol in its program."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.linear(images.view(images.shape[0], -1))
        return features


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "model.pt2"
    torch.manual_seed(0)
    write_program(capture(Resized().eval(), (3, 2, 2)), path)
    return path


def test_a_program_computes_what_it_was_made_of_for_any_number_of_images(written: Path) -> None:
    torch.manual_seed(0)
    model = Resized().eval()
    program = read_program(written)[0].module()
    for count in (1, 2, 17):
        images = torch.rand(count, 3, 2, 2)
        with torch.no_grad():
            assert torch.equal(program(images), model(images))


def test_equal_programs_are_equal_files_without_the_example_and_the_users_paths(
    written: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    write_program(capture(Resized().eval(), (3, 2, 2)), tmp_path / "again.pt2")
    assert (tmp_path / "again.pt2").read_bytes() == written.read_bytes()
    assert Path(__file__).name.encode() not in written.read_bytes()
    with zipfile.ZipFile(written) as archive:
        assert archive.getinfo("model/data/sample_inputs/model.pt").file_size < 1000


class Marks:
    """A pickle of it makes a file where it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


def in_graph(find: str, put: str) -> Callable[[Entries, Path], None]:
    def change(entries: Entries, marker: Path) -> None:
        text = entries["models/model.json"].decode()
        assert find in text
        code = f"__import__('pathlib').Path({str(marker)!r}).touch()"
        quoted = json.dumps(put.replace("CODE", code))[1:-1]
        entries["models/model.json"] = text.replace(find, quoted).encode()

    return change


def pickled_weight(entries: Entries, marker: Path) -> None:
    name = "data/weights/model_weights_config.json"
    entries[name] = entries[name].replace(b'"use_pickle": false', b'"use_pickle": true')
    entries["data/weights/weight_0"] = pickle.dumps(Marks(marker))


def pickled_inputs(entries: Entries, marker: Path) -> None:
    buffer = io.BytesIO()
    torch.save(Marks(marker), buffer)
    entries["data/sample_inputs/model.pt"] = buffer.getvalue()


def compiled(entries: Entries, marker: Path) -> None:
    entries["data/aotinductor/model/a.so"] = b""


def pickled_object(entries: Entries, marker: Path) -> None:
    entries["data/constants/opaque_obj_0"] = pickle.dumps(Marks(marker))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (in_graph("Symbol('s", "CODE or Symbol('s"), "is no size of a tensor"),
        (in_graph("torch.ops.aten.linear.default", "torch.os.system"), "no operator of a model"),
        (in_graph("torch.ops.aten.linear.default", "torch.ops.aten.from_file.default"), "no operator"),
        (in_graph("torch.ops.aten.linear.default", "torch.ops.mine.linear.default"), "no operator"),
        (in_graph("p_linear_weight", "x=CODE"), "could be code"),
        (pickled_weight, "is pickled or oddly named"),
        (pickled_inputs, "example inputs are no plain tensors"),
        (compiled, "a.so, which could run code"),
        (pickled_object, "opaque_obj_0, which could run code"),
    ],
    ids=["size", "function", "opens a file", "library", "name", "weight", "inputs", "compiled", "object"],
)
def test_what_could_run_code_is_refused_and_not_run(
    written: Path, tmp_path: Path, change: Callable[[Entries, Path], None], message: str
) -> None:
    marker = tmp_path / "marker"
    with zipfile.ZipFile(written) as archive:
        entries = {item.filename.partition("/")[2]: archive.read(item) for item in archive.infolist()}
    change(entries, marker)
    path = tmp_path / "hostile.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(f"model/{name}", content)
    with pytest.raises(ModelError, match=message):
        read_program(path)
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04"])
def test_what_is_no_program_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not an exported program"):
        read_program(path)

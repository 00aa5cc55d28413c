import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from quant_explorer.core.data.preprocessing import Preprocessing
from quant_explorer.core.errors import ModelError, UnknownNameError
from quant_explorer.models import LoadedModel, load_model, parameter_digest
from quant_explorer.tracing.valued import trace

SOUND = """
from torch import nn

def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5))

def for_classes(num_classes, width=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, num_classes))

class Net(nn.Module):
    def __init__(self, num_classes=99):
        super().__init__()
        self.linear = nn.Linear(3 * 8 * 8, num_classes)

    def forward(self, images):
        return self.linear(images.flatten(1))

NUMBER = 3
"""


def load(folder: Path, source: str, function: str, classes: int = 5) -> LoadedModel:
    path = folder / "mine.py"
    path.write_text(source)
    return load_model(f"{path}:{function}", weights=None, classes=classes, image_shape=(3, 8, 8), seed=0)


@pytest.mark.parametrize(("function", "classes"), [("make", 5), ("for_classes", 6), ("Net", 7)])
def test_a_function_or_class_gives_the_model(tmp_path: Path, function: str, classes: int) -> None:
    loaded = load(tmp_path, SOUND, function, classes)
    assert isinstance(loaded.module, nn.Module)
    assert loaded.name == f"{tmp_path / 'mine.py'}:{function}"
    assert loaded.input_shape == (3, 8, 8)
    assert not loaded.trained


@pytest.mark.parametrize("wrapper", ["torch.compile", "nn.DataParallel"])
def test_what_wraps_a_model_comes_off(tmp_path: Path, wrapper: str) -> None:
    plain = load(tmp_path, SOUND, "make")
    wrapped = load(
        tmp_path, f"{SOUND}\nimport torch\ndef wrapped():\n    return {wrapper}(make())\n", "wrapped"
    )
    assert type(wrapped.module) is nn.Sequential
    assert parameter_digest(wrapped.module) == parameter_digest(plain.module)


WRAPPED_PARTS = """
import torch

class Compiled(nn.Module):
    def __init__(self):
        super().__init__()
        self.wrapped = torch.compile(nn.Conv2d(3, 4, 3))
        self.parallel = nn.DataParallel(nn.Conv2d(4, 5, 3))
        self.in_place = nn.ReLU()
        self.in_place.compile()

    @torch.compile
    def forward(self, x):
        return self.in_place(self.parallel(self.wrapped(x))).mean((2, 3))
"""


def test_what_wraps_parts_of_a_model_comes_off(tmp_path: Path) -> None:
    module = load(tmp_path, SOUND + WRAPPED_PARTS, "Compiled").module
    assert set(module.state_dict()) == {
        f"{part}.{tensor}" for part in ("wrapped", "parallel") for tensor in ("weight", "bias")
    }
    images = np.random.default_rng(0).random((2, 3, 8, 8), np.float32)
    assert torch.equal(trace(module, images)(torch.from_numpy(images)), module(torch.from_numpy(images)))


def test_initial_weights_follow_the_seed(tmp_path: Path) -> None:
    first, second = load(tmp_path, SOUND, "make"), load(tmp_path, SOUND, "make")
    assert parameter_digest(first.module) == parameter_digest(second.module)


def test_its_folder_can_be_imported_from_and_only_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "my_layers_of_this_test.py").write_text(SOUND)
    before = list(sys.path)
    loaded = load(tmp_path, "from my_layers_of_this_test import make\n", "make")
    assert isinstance(loaded.module, nn.Module)
    assert sys.path == before


def test_it_may_use_dataclasses_and_be_found_by_name(tmp_path: Path) -> None:
    source = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom torch import nn\n"
        "@dataclass\nclass Config:\n    width: int = 5\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.linear = nn.Linear(192, Config().width)\n"
        "    def forward(self, images):\n"
        "        return self.linear(images.flatten(1))\n"
    )
    module = load(tmp_path, source, "Net").module
    assert getattr(sys.modules[type(module).__module__], "Net") is type(module)  # noqa: B009


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no file .*gone\.py"):
        load_model(f"{tmp_path}/gone.py:make", weights=None, classes=5, image_shape=(3, 8, 8), seed=0)


def test_a_missing_function_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"mine\.py: no function 'made'\. It has: make, for_classes, Net\."):
        load(tmp_path, SOUND, "made")
    with pytest.raises(ModelError, match="no function 'NUMBER'"):
        load(tmp_path, SOUND, "NUMBER")
    with pytest.raises(ModelError, match="It has none"):
        load(tmp_path, "", "make")


@pytest.mark.parametrize("name", ["mine.py", "mine.py:", "a/b/mine.py"])
def test_a_file_without_a_function(name: str) -> None:
    with pytest.raises(ModelError, match=r"function is missing\. Allowed: path/to/file\.py:function"):
        load_model(name, weights=None, classes=5, image_shape=(3, 8, 8), seed=0)


def test_another_kind_of_path_is_an_unknown_name() -> None:
    with pytest.raises(UnknownNameError):
        load_model("mine.txt:make", weights=None, classes=5, image_shape=(3, 8, 8), seed=0)


@pytest.mark.parametrize(
    ("source", "message", "cause"),
    [
        (
            "def make():\n    raise KeyError('width')\n",
            r"make.* KeyError: there is no 'width'",
            KeyError,
        ),
        ("def make(width):\n    return None\n", r"make\(\) failed with TypeError: .*'width'", TypeError),
        (
            "raise OSError('no such disk')\n",
            r"importing it failed with OSError: no such disk, at .*mine\.py:1: raise OSError",
            OSError,
        ),
        (
            "import sys\nsys.exit(7)\n",
            r"importing .* without a message .only 7",
            SystemExit,
        ),
        ("def make(:\n", r"importing it failed with SyntaxError", SyntaxError),
        (
            "import not_there_at_all\n",
            r"importing it failed with ModuleNotFoundError: .*'not_there",
            ImportError,
        ),
    ],
)
def test_what_the_users_code_raises_is_reported_and_chained(
    tmp_path: Path, source: str, message: str, cause: type[BaseException]
) -> None:
    with pytest.raises(ModelError, match=rf"mine\.py: {message}") as caught:
        load(tmp_path, source, "make")
    assert isinstance(caught.value.__cause__, cause)


def test_a_module_is_no_function_that_returns_it(tmp_path: Path) -> None:
    source = "from torch import nn\nmade = nn.Linear(2, 2)\n"
    with pytest.raises(ModelError, match=r"made is a module.*a function or a class; def build\(\)"):
        load(tmp_path, source, "made")


@pytest.mark.parametrize(("returned", "kind"), [("3", "int"), ("None", "NoneType"), ("nn.Linear", "type")])
def test_something_else_than_a_module(tmp_path: Path, returned: str, kind: str) -> None:
    source = f"from torch import nn\ndef make():\n    return {returned}\n"
    with pytest.raises(ModelError, match=rf"make\(\) returned {kind}, not a torch\.nn\.Module"):
        load(tmp_path, source, "make")


def test_a_model_for_another_number_of_classes(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the data set has 6 classes"):
        load(tmp_path, SOUND, "make", classes=6)


def test_a_model_that_is_not_finite_from_the_start(tmp_path: Path) -> None:
    source = (
        SOUND
        + "\ndef broken():\n    model = make()\n    model[1].bias.data[0] = float('nan')\n    return model\n"
    )
    with pytest.raises(ModelError, match=r"mine\.py:broken: NaN or infinite weights in 1\.bias"):
        load(tmp_path, source, "broken")


def test_files_that_share_the_name_of_a_module_beside_them_get_their_own(tmp_path: Path) -> None:
    source = "from torch import nn\nfrom {0}blocks import WIDTH\n"
    source += "def make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(192, WIDTH))\n"
    for folder, width in (("a", 5), ("b", 6)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "blocks.py").write_text(f"WIDTH = {width}\n")
        for dots in ("", "."):
            load(tmp_path / folder, source.format(dots), "make", classes=width)


def test_relative_imports_inside_of_a_package(tmp_path: Path) -> None:
    inner = tmp_path / "nets" / "inner"
    inner.mkdir(parents=True)
    for folder in (inner, inner.parent):
        (folder / "__init__.py").touch()
    (inner.parent / "widths.py").write_text("WIDTH = 5\n")
    source = "from torch import nn\nfrom ..widths import WIDTH\nfrom nets.widths import WIDTH as SAME\n"
    source += "def make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(192, WIDTH * SAME // 5))\n"
    assert load(inner, source, "make").input_shape == (3, 8, 8)


def test_a_function_of_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets_of_this_test").mkdir()
    (tmp_path / "nets_of_this_test" / "small.py").write_text(SOUND)
    monkeypatch.chdir(tmp_path)
    loaded = load_model(
        "nets_of_this_test.small:make", weights=None, classes=5, image_shape=(3, 8, 8), seed=0
    )
    assert isinstance(loaded.module, nn.Module)
    with pytest.raises(ModelError, match=r"small: no function 'made'"):
        load_model("nets_of_this_test.small:made", weights=None, classes=5, image_shape=(3, 8, 8), seed=0)


def test_a_file_runs_once(tmp_path: Path) -> None:
    counting = "from pathlib import Path\nwith open(Path(__file__).parent / 'runs', 'a') as runs:\n"
    counting += "    runs.write('.')\n"
    load(tmp_path, f"{SOUND}{counting}preprocessing = {ASKED}\n", "make")
    assert (tmp_path / "runs").read_text() == "."


ASKED = "{'image_size': 8, 'resize': 9, 'mean': 0.5, 'interpolation': 'bicubic'}"


@pytest.mark.parametrize(
    "text",
    [
        f"preprocessing = {ASKED}\n",
        f"def preprocessing():\n    return {ASKED}\n",
        f"def carrying():\n    model = make()\n    model.preprocessing = {ASKED}\n    return model\n",
    ],
)
def test_a_file_or_a_module_says_how_images_are_prepared(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.py").write_text(SOUND + text)
    name = f"{tmp_path / 'mine.py'}:{'carrying' if 'carrying' in text else 'make'}"
    loaded = load_model(name, weights=None, classes=5, image_shape=(3, 40, 30), seed=0)
    assert loaded.input_shape == (3, 8, 8)
    assert loaded.preprocessing == Preprocessing(
        image_size=(8, 8), resize=9, mean=(0.5,), interpolation="bicubic"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("preprocessing = 3\n", "preprocessing is a int. Expected: a dict"),
        ("preprocessing = {'sice': 3}\n", "preprocessing: unknown 'sice'. Allowed: image_size"),
        ("def preprocessing():\n    raise KeyError('x')\n", r"preprocessing\(\) failed with KeyError: .*'x'"),
    ],
)
def test_a_file_that_says_it_wrongly(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ModelError, match=rf"mine\.py: {message}"):
        load(tmp_path, SOUND + text, "make")


def test_a_model_of_one_channel_takes_grey_images(tmp_path: Path) -> None:
    source = "from torch import nn\n"
    source += "def make():\n    return nn.Sequential(nn.Conv2d(1, 5, 8), nn.Flatten())\n"
    loaded = load(tmp_path, source, "make")
    assert loaded.input_shape == (1, 8, 8)

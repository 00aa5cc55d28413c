"""A user's own file and folder of images, against the loop that its author would write."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from quant_explorer.core.progress import Silent
from quant_explorer.core.settings.groups import Settings
from quant_explorer.pipeline.run import RunFolder
from quant_explorer.pipeline.subject import Subject, load_subject

# Tells dark from darker, which takes the normalization it was made for.
MODEL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, outputs=2):
        super().__init__()
        self.linear = nn.Linear(1, outputs)
        self.linear.weight.data = torch.tensor([[-1.0], [1.0]] + [[0.0]] * (outputs - 2))
        self.linear.bias.data = torch.tensor([-0.76, 0.76] + [-9.0] * (outputs - 2))

    def forward(self, images):
        return self.linear(images.mean((1, 2, 3)).unsqueeze(1))

def of_three():
    return Net(3)
"""
ASKED = (
    "preprocessing = {'image_size': 24, 'resize': 28, 'mean': 0.5, 'std': 0.5, 'interpolation': 'bicubic'}\n"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    stream = np.random.default_rng(0)
    for name, level in (("darker", 22), ("lighter", 38)):
        folder = tmp_path / "images" / "val" / name
        folder.mkdir(parents=True)
        for number in range(40):
            height, width = stream.integers(30, 60, 2)
            pixels = stream.integers(level - 20, level + 20, (height, width, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return tmp_path / "images"


def load(folder: Path, root: Path, function: str = "Net", declared: str = ASKED, **given: object) -> Subject:
    (folder / "mine.py").write_text(MODEL + declared)
    state = {"linear.weight": torch.tensor([[-1.0], [1.0]]), "linear.bias": torch.tensor([-0.76, 0.76])}
    if function == "of_three":
        state = {"linear.weight": torch.tensor([[0.0], [1.0], [-1.0]])}
        state["linear.bias"] = torch.tensor([-9.0, 0.76, -0.76])
    torch.save(state, folder / "w.pt")
    settings = Settings(
        data=f"imagefolder:{root}", model=f"{folder / 'mine.py'}:{function}", weights=folder / "w.pt"
    )
    settings = replace(settings, **given)  # type: ignore[arg-type]  # a field's own type
    return load_subject(settings, RunFolder(folder), Silent())


def right(subject: Subject) -> float:
    images = subject.dataset.report
    with torch.no_grad():
        logits = subject.model(torch.from_numpy(subject.prepare(images.take(slice(None)))))
    return float((logits.argmax(1).numpy() == images.labels).mean())


def test_logits_are_those_of_the_authors_own_loop(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    subject = load(tmp_path, root)
    transform = v2.Compose(
        [
            v2.Resize(28, v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(24),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    ((batch, labels),) = DataLoader(ImageFolder(str(root / "val"), transform), batch_size=80)
    chosen = subject.dataset.report.indices
    prepared = torch.from_numpy(subject.prepare(subject.dataset.report.take(slice(None))))
    torch.testing.assert_close(prepared, batch[chosen], rtol=0, atol=1e-6)
    assert subject.dataset.report.labels.tolist() == labels[chosen].tolist()
    assert right(subject) == 1.0
    # What is not declared by the model is not known by the data: this is the fault that costs most.
    assert right(load(tmp_path, root, declared="")) < 1.0
    assert right(load(tmp_path, root, declared="", mean=(0.5,), std=(0.5,))) == 1.0


def test_a_model_may_have_more_outputs_than_there_are_folders(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "names.txt").write_text("none\nlighter\ndarker\n")
    subject = load(tmp_path, root, "of_three", classes=tmp_path / "names.txt")
    assert subject.dataset.classes == ("none", "lighter", "darker")
    assert right(subject) == 1.0

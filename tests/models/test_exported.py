"""A `.pt2` file as a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from quant_explorer.core.errors import ModelError
from quant_explorer.models import LoadedModel, load_model, parameter_digest

ANY = ({0: torch.export.Dim("batch", min=1)},)


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 5)).eval()


def saved(path: Path, preprocessing: str = '{"mean": 0.5, "std": 0.25}') -> Path:
    program = torch.export.export(small(), (torch.zeros(4, 3, 8, 8),), dynamic_shapes=ANY)
    torch.export.save(program, path, extra_files={"preprocessing.json": preprocessing})
    return path


def load(path: Path) -> LoadedModel:
    return load_model(str(path), weights=None, classes=5, image_shape=(3, 40, 30), seed=0)


def test_it_comes_with_weights_sizes_and_pre_processing(tmp_path: Path) -> None:
    loaded = load(saved(tmp_path / "model.pt2"))
    assert loaded.trained
    assert loaded.input_shape == (3, 8, 8)
    assert loaded.preprocessing.image_size == (8, 8)
    assert (loaded.preprocessing.mean, loaded.preprocessing.std) == ((0.5,), (0.25,))
    assert parameter_digest(loaded.module) == parameter_digest(small())
    images = torch.rand(3, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(loaded.module(images), small()(images), atol=1e-6)


def test_other_weights_can_be_loaded_into_it(tmp_path: Path) -> None:
    torch.save({name: value + 1 for name, value in small().state_dict().items()}, tmp_path / "other.pt")
    path = saved(tmp_path / "model.pt2")
    loaded = load_model(str(path), weights=tmp_path / "other.pt", classes=5, image_shape=(3, 8, 8), seed=0)
    assert torch.equal(loaded.module.state_dict()["0.bias"], small().state_dict()["0.bias"] + 1)


def test_a_program_for_one_number_of_images_says_how_to_export_it(tmp_path: Path) -> None:
    path = tmp_path / "fixed.pt2"
    torch.export.save(torch.export.export(small(), (torch.zeros(4, 3, 8, 8),)), path)
    with pytest.raises(ModelError, match=r"takes 4 images at a time and no other number.*dynamic_shapes"):
        load(path)


class Named(nn.Module):
    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": images.flatten(1)[:, :5]}


@pytest.mark.parametrize(
    ("module", "dtype", "message"),
    [
        (small().double(), torch.float64, r"takes images of torch\.float64\. Allowed: torch\.float32"),
        (Named(), torch.float32, "returns a dict. Allowed: one tensor"),
        (
            nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(192, 5)),
            torch.float32,
            r"beside another image than alone.*model\.eval\(\) before an export",
        ),
    ],
    ids=["double", "dict", "training mode"],
)
def test_a_program_that_no_figure_can_be_had_of(
    tmp_path: Path, module: nn.Module, dtype: torch.dtype, message: str
) -> None:
    program = torch.export.export(module, (torch.zeros(4, 3, 8, 8, dtype=dtype),), dynamic_shapes=ANY)
    torch.export.save(program, tmp_path / "model.pt2")
    with pytest.raises(ModelError, match=message):
        load(tmp_path / "model.pt2")


def test_wrong_pre_processing_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"preprocessing\.json is not JSON"):
        load(saved(tmp_path / "model.pt2", "mean"))
    with pytest.raises(ModelError, match=r"gone\.pt2: no such file"):
        load(tmp_path / "gone.pt2")

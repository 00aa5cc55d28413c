import pytest
import torchvision.models

from quant_explorer.core.data.preprocessing import Preprocessing
from quant_explorer.core.errors import ModelError, UnknownNameError
from quant_explorer.models import load_model
from quant_explorer.models.published import TorchvisionByName, parse_published, preprocessing_of_timm


def test_a_model_of_torchvision_is_prepared_for_as_its_published_weights_are() -> None:
    found = parse_published("torchvision:efficientnet_b1", published=False)
    assert isinstance(found, TorchvisionByName)
    weights = torchvision.models.EfficientNet_B1_Weights.DEFAULT
    transforms = weights.transforms()
    asked = found.preprocessing()
    assert asked.image_size == tuple(transforms.crop_size * 2)
    assert [asked.resize] == transforms.resize_size
    assert asked.interpolation == transforms.interpolation.value
    assert [asked.mean, asked.std] == [tuple(transforms.mean), tuple(transforms.std)]


def test_a_model_of_torchvision_by_name() -> None:
    loaded = load_model("torchvision:squeezenet1_1", weights=None, classes=7, image_shape=(3, 50, 60), seed=0)
    assert loaded.input_shape == (3, 224, 224)
    assert not loaded.trained
    smaller = load_model(
        "torchvision:squeezenet1_1",
        weights=None,
        classes=7,
        image_shape=(3, 50, 60),
        seed=0,
        option=Preprocessing(image_size=(64, 48)),
    )
    assert smaller.input_shape == (3, 64, 48)


def test_published_weights_name_their_outputs() -> None:
    names = TorchvisionByName("torchvision:resnet18", "resnet18", published=True).outputs()
    assert len(names) == 1000
    assert names[0] == "tench"


def test_an_unknown_model_of_torchvision_gets_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown model of torchvision 'resnet81'.*resnet18"):
        load_model("torchvision:resnet81", weights=None, classes=7, image_shape=(3, 50, 60), seed=0)


def test_timm_that_is_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="timm is not installed: pip install timm"):
        load_model("timm:resnet18", weights=None, classes=7, image_shape=(3, 50, 60), seed=0)


def test_a_configuration_of_timm() -> None:
    # As timm has it for efficientnet_lite2.
    cfg = {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 260, 260),
        "pool_size": (9, 9),
        "crop_pct": 0.890,
        "interpolation": "bicubic",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
    }
    assert preprocessing_of_timm(cfg, "timm") == Preprocessing(
        image_size=(260, 260),
        crop=0.89,
        interpolation="bicubic",
        channels=3,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        value_range=1.0,
    )

from pathlib import Path

import pytest
import torch
import torchvision.models
from safetensors.torch import save_file
from torchvision.transforms import Resize

from quant_explorer.core.data.preprocessing import Preprocessing, resolve
from quant_explorer.core.errors import ModelError, UnknownNameError
from quant_explorer.models import load_model
from quant_explorer.models.published import (
    TimmByName,
    TorchvisionByName,
    parse_published,
    preprocessing_of_timm,
)


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


def test_published_weights_in_the_cache_of_torch_need_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    cached.parent.mkdir(parents=True)
    network = torchvision.models.squeezenet1_1().eval()
    torch.save(network.state_dict(), cached)
    loaded = load_model(
        "torchvision:squeezenet1_1", weights=Path("DEFAULT"), classes=1000, image_shape=(3, 50, 60), seed=0
    )
    images = torch.rand(1, 3, 224, 224)
    assert torch.equal(loaded.module(images), network(images))
    assert loaded.trained

    torch.save(network, cached)
    with pytest.raises(ModelError, match=r"squeezenet1_1-b8a52dc0.pth: holds something else than tensors"):
        load_model(
            "torchvision:squeezenet1_1",
            weights=Path("DEFAULT"),
            classes=1000,
            image_shape=(3, 50, 60),
            seed=0,
        )


@pytest.mark.parametrize(
    "name",
    [
        "test_resnet",
        "mobilenetv3_small_050",
        "convnext_atto",
        "test_vit",
        "mobilevit_xxs",
        "ghostnet_050",
        "levit_128s",
        "convnext_atto.d2_in1k",
        "maxvit_tiny_tf_384",
    ],
)
def test_a_model_of_timm_is_prepared_for_as_timm_does(name: str) -> None:
    timm = pytest.importorskip("timm")
    asked = TimmByName(f"timm:{name}", name).preprocessing()
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    resize = next(
        step for step in timm.data.create_transform(**config).transforms if isinstance(step, Resize)
    )
    spec = resolve(Preprocessing(), asked, Preprocessing(antialias=True))
    assert spec.shape == config["input_size"]
    assert spec.resize == (resize.size if isinstance(resize.size, int) else tuple(resize.size))
    assert spec.interpolation == config["interpolation"]
    assert (spec.mean, spec.std) == (config["mean"], config["std"])


def test_a_model_of_timm_computes_what_timm_does(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model("test_resnet", num_classes=7).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    loaded = load_model(
        "timm:test_resnet", weights=tmp_path / "weights.pth", classes=7, image_shape=(3, 50, 60), seed=0
    )
    images = torch.rand(2, *loaded.input_shape)
    assert torch.equal(loaded.module(images), network(images))


def test_published_weights_of_timm_in_the_cache_need_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm = pytest.importorskip("timm")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository, commit = tmp_path / "models--timm--test_resnet.r160_in1k", "0" * 40
    files = repository / "snapshots" / commit
    files.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    network = timm.create_model("test_resnet").eval()
    save_file(network.state_dict(), files / "model.safetensors")
    found = TimmByName("timm:test_resnet", "test_resnet", published=True)
    module = found.build(10, (3, 160, 160))
    images = torch.rand(1, 3, 160, 160)
    assert torch.equal(module.eval()(images), network(images))
    assert found.outputs()[217] == "n02102040"

    (files / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"of timm/test_resnet.r160_in1k in the cache cannot be read"):
        found.build(10, (3, 160, 160))
    (files / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"timm/test_resnet.r160_in1k cannot be fetched, .*--weights FILE"):
        found.build(10, (3, 160, 160))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet81", r"unknown model of timm 'resnet81'. Did you mean 'resnet18'\?"),
        ("timm:resnet18.a1_in2k", r"weights of timm's resnet18 'a1_in2k'. Did you mean 'a1_in1k'\?"),
    ],
)
def test_an_unknown_model_of_timm_gets_the_nearest(name: str, message: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(UnknownNameError, match=message):
        load_model(name, weights=None, classes=7, image_shape=(3, 50, 60), seed=0)


def test_a_model_of_timm_without_published_weights() -> None:
    pytest.importorskip("timm")
    with pytest.raises(ModelError, match="timm has no published weights of ghostnet_050"):
        load_model("timm:ghostnet_050", weights=Path("DEFAULT"), classes=7, image_shape=(3, 50, 60), seed=0)


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

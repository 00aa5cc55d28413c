import pytest
import torch

from quant_explorer.models import load_model, parameter_digest


@pytest.mark.parametrize("name", ["mobilenet_v3_large", "resnet18"])
def test_built_for_the_classes_at_224_and_seeded(name: str) -> None:
    first, second = (
        load_model(name, weights=None, classes=7, image_shape=(1, 28, 28), seed=3) for _ in range(2)
    )
    assert first.input_shape == (3, 224, 224)
    assert not first.trained
    assert parameter_digest(first.module) == parameter_digest(second.module)
    with torch.no_grad():
        assert first.module(torch.zeros(1, 3, 224, 224)).shape == (1, 7)


def test_vgg11_bn_has_the_published_size() -> None:
    module = load_model("vgg11_bn", weights=None, classes=1000, image_shape=(3, 32, 32), seed=0).module
    # torchvision's table of vgg11_bn: 132,868,840 parameters.
    assert sum(parameter.numel() for parameter in module.parameters()) == 132_868_840

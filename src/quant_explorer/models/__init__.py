"""Models: a name becomes a float `nn.Module`, and nothing downstream knows which kind it was."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quant_explorer.core.errors import ModelError, explain
from quant_explorer.core.registry import Registry
from quant_explorer.models.architecture import Architecture, Shape
from quant_explorer.models.edge_cnn import EdgeCnn
from quant_explorer.models.small_cnn import SmallCnn
from quant_explorer.models.torchvision_models import MOBILENET_V3_LARGE, RESNET18, VGG11_BN
from quant_explorer.models.user import parse_user_model
from quant_explorer.models.weights import check_finite, load_weights, parameter_digest, save_weights

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "MODELS",
    "LoadedModel",
    "check_output",
    "load_model",
    "load_weights",
    "parameter_digest",
    "save_weights",
]

MODELS: Registry[Architecture] = Registry(
    "model",
    {
        "small_cnn": SmallCnn(),
        "edge_cnn": EdgeCnn(),
        "mobilenet_v3_large": MOBILENET_V3_LARGE,
        "vgg11_bn": VGG11_BN,
        "resnet18": RESNET18,
    },
)


@dataclass(frozen=True)
class LoadedModel:
    """A float model in eval mode. It takes (n, *input_shape); `trained` means that weights were given."""

    name: str
    module: nn.Module
    input_shape: Shape
    trained: bool


def load_model(
    name: str, *, weights: Path | None, classes: int, image_shape: tuple[int, int, int], seed: int
) -> LoadedModel:
    """Build the model called `name`, a name of MODELS or `path/to/file.py:function`.

    Initial weights follow from `seed`; the caller's random state is left as it was. With `weights`
    they are replaced, and the model counts as trained.

    Raises UnknownNameError, or ModelError when the model cannot be built, the weights do not fit or are not
    finite, or a batch of images of `image_shape` does not give (n, classes).
    """
    import torch

    architecture = parse_user_model(name) or MODELS[name]
    input_shape = architecture.input_shape(image_shape)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = architecture.build(classes, input_shape)
    if weights is None:
        check_finite(module, f"--model {name}")
    else:
        load_weights(module, weights)
    module.eval()
    check_output(module, input_shape, classes)
    return LoadedModel(name, module, input_shape, trained=weights is not None)


def check_output(module: nn.Module, input_shape: tuple[int, int, int], classes: int) -> None:
    """Run two black images; raises ModelError unless the module gives a float tensor (2, classes).

    The module is run in eval mode and left in the mode it was in.
    """
    import torch

    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            output: object = module(torch.zeros(2, *input_shape))
    except Exception as error:  # a user's own code: it may raise anything
        raise ModelError(
            f"the model cannot take a batch of shape {(2, *input_shape)} ({explain(error)})"
        ) from error
    finally:
        module.train(was_training)
    if not isinstance(output, torch.Tensor):
        raise ModelError(f"the model returned {type(output).__name__}, not one tensor (n, {classes})")
    if tuple(output.shape) != (2, classes) or not output.is_floating_point():
        raise ModelError(
            f"the model gives {output.dtype} of shape {tuple(output.shape)} for 2 images; "
            f"the data set has {classes} classes, so it must be floating point of shape (2, {classes})"
        )

"""Models: a name becomes a float `nn.Module`, and nothing downstream knows which kind it was."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from quant_explorer.core.data.preprocessing import Preprocessing, merged
from quant_explorer.core.errors import ModelError, UnknownNameError
from quant_explorer.core.registry import Registry, unknown_name_message
from quant_explorer.models.architecture import Architecture, Complete, Labelled, Particular, Shape
from quant_explorer.models.checks import (
    check_held,
    check_model,
    check_output,
    check_training,
    describe_computed,
    initialize_lazy,
)
from quant_explorer.models.edge_cnn import EdgeCnn
from quant_explorer.models.exported import parse_exported
from quant_explorer.models.onnx_file import parse_onnx
from quant_explorer.models.published import DEFAULT, PUBLISHED, parse_published, preprocessing_of_timm
from quant_explorer.models.small_cnn import SmallCnn
from quant_explorer.models.torchvision_models import MOBILENET_V3_LARGE, RESNET18, VGG11_BN
from quant_explorer.models.user import parse_user_model, read_preprocessing
from quant_explorer.models.weights import check_finite, load_weights, parameter_digest, save_weights

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "MODELS",
    "PUBLISHED",
    "Labelled",
    "LoadedModel",
    "check_output",
    "check_training",
    "find_architecture",
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


_OTHERS = (
    "Or path/to/file.py:function, package.module:function of what can be imported from here, "
    "torchvision:NAME, timm:NAME, FILE.pt2, FILE.onnx; a file of weights goes to --weights."
)


@dataclass(frozen=True)
class LoadedModel:
    """A float model in eval mode. It takes (n, *input_shape); `trained` means that weights were given.

    `preprocessing` is what the model asks for, `notes` what a user should know of model and weights.
    """

    name: str
    module: nn.Module
    input_shape: Shape
    trained: bool
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    notes: tuple[str, ...] = ()


def find_architecture(name: str, weights: Path | None = None) -> Architecture:
    """Return what `name` stands for: a name of MODELS, `torchvision:NAME`, `timm:NAME`, a user's function,
    a `.pt2` or an `.onnx` file.

    Raises UnknownNameError; ModelError for published weights of a model that has none.
    """
    published = weights is not None and str(weights) == DEFAULT
    found = parse_published(name, published=published)
    if found is not None:
        return found
    if published:
        raise ModelError(
            f"--weights {DEFAULT}: {name} has no published weights. Allowed: a file, or "
            "--model torchvision:NAME."
        )
    own = parse_exported(name) or parse_onnx(name) or parse_user_model(name)
    if own is None and name not in MODELS:
        raise UnknownNameError(f"{unknown_name_message('model', name, MODELS)} {_OTHERS}")
    return own or MODELS[name]


def load_model(
    name: str,
    *,
    weights: Path | None,
    classes: int,
    image_shape: Shape,
    seed: int,
    option: Preprocessing | None = None,
    weights_key: str = "",
) -> LoadedModel:
    """Build the model called `name`; see `find_architecture`.

    `image_shape` is that of the images; what `option` says counts more, and then what the model says.
    Initial weights follow from `seed`; the caller's random state is left as it was. With `weights`
    they are replaced, and the model counts as trained.

    Raises UnknownNameError, or ModelError when the model cannot be built, the weights do not fit or are not
    finite, or a batch of images does not give (n, classes), the same each time and for each image alone.
    """
    import torch

    option = option or Preprocessing()
    architecture = find_architecture(name, weights)
    asked = architecture.preprocessing() if isinstance(architecture, Particular) else Preprocessing()
    shape = _shape(option, asked, image_shape)
    own_shape = architecture.input_shape(shape)
    if own_shape != shape:
        asked = dataclasses.replace(asked, channels=own_shape[0], image_size=own_shape[1:])
        shape = _shape(option, asked, image_shape)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = architecture.build(classes, shape)
        asked = merged(_asked_by_module(module, name, shape[0]), asked)
        shape = _shape(option, asked, image_shape)
        notes = initialize_lazy(module, shape)
    check_held(module, name=name)
    if weights is None or str(weights) == DEFAULT:
        check_finite(module, f"--model {name}")
    else:
        notes += load_weights(module, weights, weights_key)
    module.eval()
    check_output(module, shape, classes)
    notes += (*describe_computed(module), *check_model(module, shape, name=name))
    trained = weights is not None
    if isinstance(architecture, Complete):
        notes, trained = (*architecture.notes, *notes), True
    return LoadedModel(name, module, shape, trained, asked, notes)


def _shape(option: Preprocessing, model: Preprocessing, image_shape: Shape) -> Shape:
    channels = option.channels or model.channels or image_shape[0]
    return (channels, *(option.image_size or model.image_size or image_shape[1:]))


def _asked_by_module(module: nn.Module, name: str, channels: int) -> Preprocessing:
    """Return what a module carries: `preprocessing`, a timm configuration, channels of the first layer."""
    from torch import nn

    asked = Preprocessing()
    own: object = getattr(module, "preprocessing", None)
    timm: object = getattr(module, "pretrained_cfg", None)
    if isinstance(own, Mapping):
        asked = read_preprocessing(own, f"--model {name}: its attribute preprocessing")
    elif isinstance(timm, Mapping):
        asked = preprocessing_of_timm(timm, f"--model {name}: its attribute pretrained_cfg")
    first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    if asked.channels is None and first is not None and first.in_channels in {1, 3} - {channels}:
        asked = dataclasses.replace(asked, channels=first.in_channels)
    return asked

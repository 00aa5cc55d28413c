"""Models of torchvision and timm by name, with their published weights and the pre-processing of these."""

from __future__ import annotations

import dataclasses
import http.client
import importlib.util
import math
import pickle
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from quant_explorer.core.data.preprocessing import Preprocessing
from quant_explorer.core.errors import ModelError, UnknownNameError, explain
from quant_explorer.core.registry import unknown_name_message
from quant_explorer.models.architecture import Shape
from quant_explorer.models.checkpoint import read_checkpoint

if TYPE_CHECKING:
    from timm.models import PretrainedCfg
    from torch import nn
    from torchvision.models import WeightsEnum

# Stands for the published weights on the command line.
DEFAULT = "DEFAULT"
PUBLISHED = ("torchvision:", "timm:")
# What downloading is known to raise; RuntimeError is a checksum that does not fit.
_DOWNLOAD = (OSError, RuntimeError, http.client.HTTPException)
# What a file that is there already raises in timm's own reader.
_UNREADABLE = (ValueError, LookupError, TypeError, EOFError, pickle.UnpicklingError)


@dataclass(frozen=True)
class TorchvisionByName:
    """`torchvision:NAME`, any classifier of torchvision, with the input that its published weights want."""

    name: str
    architecture: str
    published: bool = False

    @property
    def description(self) -> str:
        """Where the model comes from."""
        return f"{self.architecture} of torchvision"

    def preprocessing(self) -> Preprocessing:
        """Return what the transforms of the published weights do."""
        weights = self._weights()
        if weights is None:
            return Preprocessing()
        transforms = vars(weights.transforms())
        return Preprocessing.of(
            {
                "image_size": transforms["crop_size"] * (3 - len(transforms["crop_size"])),
                "resize": transforms["resize_size"],
                "interpolation": transforms["interpolation"],
                "antialias": transforms["antialias"],
                "channels": 3,
                "mean": transforms["mean"],
                "std": transforms["std"],
                "value_range": 1.0,
            },
            f"torchvision's {self.architecture}",
        )

    def outputs(self) -> tuple[str, ...]:
        """Return the names of the outputs that the published weights have, in order."""
        weights = self._weights() if self.published else None
        return tuple(weights.meta["categories"]) if weights else ()

    def input_shape(self, image_shape: Shape) -> Shape:
        """Return the shape of the images."""
        return image_shape

    def build(self, classes: int, input_shape: Shape) -> nn.Module:
        """Return the model; raises ModelError when the published weights cannot be fetched."""
        import torchvision.models

        weights = self._weights() if self.published else None
        if weights is None:
            model: nn.Module = torchvision.models.get_model(
                self.architecture, weights=None, num_classes=classes
            )
            return model
        cached = _cached(weights.url)
        if cached.is_file():
            # torchvision loads what is there without asking whether it is weights alone.
            read_checkpoint(cached)
        try:
            model = torchvision.models.get_model(self.architecture, weights=weights)
        except _DOWNLOAD as error:
            raise ModelError(
                f"--weights {DEFAULT}: {weights.url} cannot be fetched ({explain(error)}), and "
                f"{cached} does not exist. Fetch it elsewhere and put it there, or give it: --weights FILE."
            ) from error
        return model

    def _weights(self) -> WeightsEnum | None:
        import torchvision.models

        known = torchvision.models.list_models(module=torchvision.models)
        if self.architecture not in known:
            raise UnknownNameError(unknown_name_message("model of torchvision", self.architecture, known))
        found: WeightsEnum | None = getattr(
            torchvision.models.get_model_weights(self.architecture), DEFAULT, None
        )
        return found


@dataclass(frozen=True)
class TimmByName:
    """`timm:NAME`, a model of timm with its own data configuration."""

    name: str
    architecture: str
    published: bool = False

    @property
    def description(self) -> str:
        """Where the model comes from."""
        return f"{self.architecture} of timm"

    def input_shape(self, image_shape: Shape) -> Shape:
        """Return the shape of the images."""
        return image_shape

    def preprocessing(self) -> Preprocessing:
        """Return what timm's pretrained configuration of the name says."""
        cfg = self._configuration()
        return preprocessing_of_timm(dataclasses.asdict(cfg) if cfg else {}, f"timm's {self.architecture}")

    def outputs(self) -> tuple[str, ...]:
        """Return the WordNet ids of the outputs that weights trained on ImageNet have, in order."""
        cfg = self._configuration() if self.published else None
        if cfg is None:
            return ()
        from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

        subset = infer_imagenet_subset(dataclasses.asdict(cfg))
        if not subset:
            return ()
        names: Callable[[], list[str]] = ImageNetInfo(subset).label_names
        return tuple(names())

    def build(self, classes: int, input_shape: Shape) -> nn.Module:
        """Return the model; raises ModelError when timm is missing or weights cannot be fetched."""
        cfg = self._configuration()
        import safetensors
        import timm

        if not self.published:
            model: nn.Module = timm.create_model(
                self.architecture, num_classes=classes, in_chans=input_shape[0]
            )
            return model
        if cfg is None or not cfg.has_weights:
            raise ModelError(
                f"--weights {DEFAULT}: timm has no published weights of {self.architecture}. Allowed: "
                "--weights FILE, or one of timm.list_pretrained()."
            )
        try:
            model = timm.create_model(self.architecture, pretrained=True)
        except _DOWNLOAD as error:
            raise ModelError(
                f"--weights {DEFAULT}: {cfg.hf_hub_id or cfg.url} cannot be fetched, and is not in the cache "
                f"of huggingface_hub ({explain(error)}). Fetch its model.safetensors elsewhere and "
                "give the file: --weights FILE."
            ) from error
        except (safetensors.SafetensorError, *_UNREADABLE) as error:
            raise ModelError(
                f"--weights {DEFAULT}: the file of {cfg.hf_hub_id or cfg.url} in the cache cannot be read "
                f"({explain(error)}). Remove it there, or give another file: --weights FILE."
            ) from error
        return model

    def _configuration(self) -> PretrainedCfg | None:
        """Return what timm knows of the weights; raises ModelError without timm, UnknownNameError."""
        self._require()
        import timm

        kind, _, weights = self.architecture.partition(".")
        if not timm.is_model(kind):
            raise UnknownNameError(unknown_name_message("model of timm", kind, timm.list_models()))
        try:
            return timm.get_pretrained_cfg(self.architecture)
        except RuntimeError as error:
            known = [name.partition(".")[2] for name in timm.list_pretrained(f"{kind}.*")]
            message = unknown_name_message(f"name of weights of timm's {kind}", weights, known)
            raise UnknownNameError(message) from error

    def _require(self) -> None:
        if importlib.util.find_spec("timm") is None:
            raise ModelError(f"--model {self.name}: the package timm is not installed: pip install timm")


def _cached(url: str) -> Path:
    """Return the file that torch.hub keeps of an address."""
    import torch

    return Path(torch.hub.get_dir(), "checkpoints", PurePosixPath(urllib.parse.urlparse(url).path).name)


def preprocessing_of_timm(cfg: Mapping[str, object], where: str) -> Preprocessing:
    """Return what a pretrained configuration of timm asks for; see timm.data.resolve_data_config."""
    asked: dict[str, object] = {key: cfg[key] for key in ("mean", "std", "interpolation") if cfg.get(key)}
    size = cfg.get("input_size")
    if isinstance(size, tuple | list) and len(size) == 3:
        asked |= {"channels": size[0], "image_size": tuple(size[1:])}
    crop = cfg.get("crop_pct")
    match cfg.get("crop_mode") or "center":
        case "center" if crop:
            asked["crop"] = crop
        case "squash" if isinstance(size, tuple | list) and isinstance(crop, int | float) and crop > 0:
            asked["resize"] = tuple(math.floor(side / crop) for side in size[1:])
        case "border":
            raise ModelError(
                f"{where}: its images are padded to a square (crop_mode 'border'). Allowed: center, squash."
            )
    if asked:
        asked["value_range"] = 1.0
    return Preprocessing.of(asked, where)


def parse_published(name: str, *, published: bool) -> TorchvisionByName | TimmByName | None:
    """Return the model that `torchvision:NAME` or `timm:NAME` stands for, or None for any other name."""
    kind, _, architecture = name.partition(":")
    if kind == "torchvision" and architecture:
        return TorchvisionByName(name, architecture, published)
    if kind == "timm" and architecture:
        return TimmByName(name, architecture, published)
    return None

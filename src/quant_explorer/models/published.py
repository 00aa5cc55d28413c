"""Models of torchvision and timm by name, with their published weights and the pre-processing of these."""

from __future__ import annotations

import http.client
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quant_explorer.core.data.preprocessing import Preprocessing
from quant_explorer.core.errors import ModelError, UnknownNameError, explain
from quant_explorer.core.registry import unknown_name_message
from quant_explorer.models.architecture import Shape

if TYPE_CHECKING:
    from torch import nn
    from torchvision.models import WeightsEnum

# Stands for the published weights on the command line.
DEFAULT = "DEFAULT"
PUBLISHED = ("torchvision:", "timm:")
# What downloading is known to raise; RuntimeError is a checksum that does not fit.
_DOWNLOAD = (OSError, RuntimeError, http.client.HTTPException)


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
        try:
            model = torchvision.models.get_model(self.architecture, weights=weights)
        except _DOWNLOAD as error:
            raise ModelError(
                f"--weights {DEFAULT}: {weights.url} cannot be fetched ({explain(error)}). "
                "Fetch it elsewhere and give the file: --weights FILE."
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
        self._require()
        import timm

        if not timm.is_model(self.architecture):
            raise UnknownNameError(
                unknown_name_message("model of timm", self.architecture, timm.list_models())
            )
        cfg = timm.get_pretrained_cfg(self.architecture)
        return preprocessing_of_timm(cfg.to_dict() if cfg else {}, f"timm's {self.architecture}")

    def build(self, classes: int, input_shape: Shape) -> nn.Module:
        """Return the model; raises ModelError when timm is missing or weights cannot be fetched."""
        self._require()
        import timm

        wanted = {} if self.published else {"num_classes": classes, "in_chans": input_shape[0]}
        try:
            model: nn.Module = timm.create_model(self.architecture, pretrained=self.published, **wanted)
        except _DOWNLOAD as error:
            raise ModelError(f"--model {self.name}: cannot be made ({explain(error)})") from error
        return model

    def _require(self) -> None:
        if importlib.util.find_spec("timm") is None:
            raise ModelError(f"--model {self.name}: the package timm is not installed: pip install timm")


def preprocessing_of_timm(cfg: Mapping[str, object], where: str) -> Preprocessing:
    """Return what a pretrained configuration of timm asks for; see timm.data.resolve_data_config."""
    asked: dict[str, object] = {key: cfg[key] for key in ("mean", "std", "interpolation") if cfg.get(key)}
    size = cfg.get("input_size")
    if isinstance(size, tuple | list) and len(size) == 3:
        asked |= {"channels": size[0], "image_size": tuple(size[1:])}
    if cfg.get("crop_pct"):
        asked["crop"] = cfg["crop_pct"]
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

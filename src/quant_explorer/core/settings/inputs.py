"""How images and classes of a data set become inputs and outputs of a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quant_explorer.core.data.dataset import Interpolation
from quant_explorer.core.data.preprocessing import Preprocessing, parse_image_size, parse_resize
from quant_explorer.core.settings.declaration import setting

ClassOrder = Literal["name", "number"]
_ELSE = "the model's, else the data's"


@dataclass(frozen=True, kw_only=True)
class InputSettings:
    """What of pre-processing and classes is asked for, in place of what the model or the data say."""

    image_size: str = setting(
        "", "What the model takes: 299, or height x width as in 240x320.", metavar="SIZE", unset=_ELSE
    )
    resize: str | None = setting(
        None,
        "Scale images to this shorter side before the centre crop, or to 240x320 whatever their ratio.",
        metavar="SIZE",
        unset=_ELSE,
    )
    crop: float | None = setting(
        None,
        "Share of the shorter side that the crop keeps; instead of --resize.",
        above=0,
        at_most=1,
        unset=_ELSE,
    )
    interpolation: Interpolation | None = setting(None, "When images are scaled.", unset=_ELSE)
    antialias: bool | None = setting(None, "Filter when images are made smaller.", unset=_ELSE)
    channels: int | None = setting(
        None,
        "Of the images as the model takes them: 1 (grey) or 3.",
        at_least=1,
        at_most=3,
        range_text="1 or 3",
        unset=_ELSE,
    )
    mean: tuple[float, ...] = setting(
        (), "Subtracted from each channel, or from all.", metavar="X", unset=_ELSE, repeats=True
    )
    std: tuple[float, ...] = setting(
        (), "What each channel, or all, are divided by then.", above=0, metavar="X", unset=_ELSE, repeats=True
    )
    value_range: float | None = setting(
        None, "What a white pixel is before that: 1 or 255.", above=0, metavar="X", unset=_ELSE
    )
    classes: Path | None = setting(
        None, "Text file with the name of each output of the model, a line each.", unset="the data set's"
    )
    class_order: ClassOrder = setting("name", "Order of class folders: 10 before 2, or 2 before 10.")
    skip_unreadable: bool = setting(False, "Leave out images that cannot be read, and say how many.")

    @property
    def preprocessing(self) -> Preprocessing:
        """What the options ask of images; raises SettingsError."""
        return Preprocessing(
            image_size=parse_image_size(self.image_size) if self.image_size else None,
            resize=None if self.resize is None else parse_resize(self.resize),
            crop=self.crop,
            interpolation=self.interpolation,
            antialias=self.antialias,
            channels=self.channels,
            mean=self.mean or None,
            std=self.std or None,
            value_range=self.value_range,
        )

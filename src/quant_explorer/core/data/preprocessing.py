"""Pre-processing: what is asked of an image before a model sees it, by whom, and which request counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

from quant_explorer.core.data.dataset import InputSpec, Interpolation, Resize
from quant_explorer.core.errors import SettingsError

Source = Literal["option", "model", "data"]
INTERPOLATIONS: tuple[str, ...] = get_args(Interpolation)
_CHANNELS = (1, 3)


@dataclass(frozen=True)
class Preprocessing:
    """What one source asks for; None where it asks for nothing.

    `image_size` is (height, width) of what the model takes. An image is scaled until its shorter side is
    `resize`, or min(image_size) / `crop` where a share is given instead, or to the (height, width) that
    `resize` is, and cropped in the centre.
    `mean` and `std` are per channel, of values from 0 to `value_range`. Raises SettingsError for a value
    out of range.
    """

    image_size: tuple[int, int] | None = None
    resize: Resize | None = None
    crop: float | None = None
    interpolation: Interpolation | None = None
    antialias: bool | None = None
    channels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    value_range: float | None = None

    def __post_init__(self) -> None:
        if self.image_size is not None and min(self.image_size) < 1:
            raise SettingsError(f"image size {self.image_size}. Allowed: height and width of at least 1.")
        if self.resize is not None and min(_sides(self.resize)) < 1:
            raise SettingsError(
                f"resize {self.resize}. Allowed: a shorter side, or height and width, of at least 1."
            )
        if self.crop is not None and not 0 < self.crop <= 1:
            raise SettingsError(f"crop {self.crop}. Allowed: a share above 0 and at most 1.")
        if self.resize is not None and self.crop is not None:
            raise SettingsError(
                "resize and crop are both given. Allowed: one of them; each decides the other."
            )
        if self.interpolation is not None and self.interpolation not in INTERPOLATIONS:
            raise SettingsError(
                f"interpolation {self.interpolation!r}. Allowed: {', '.join(INTERPOLATIONS)}."
            )
        if self.channels is not None and self.channels not in _CHANNELS:
            raise SettingsError(f"channels {self.channels}. Allowed: 1 or 3.")
        if self.std is not None and not all(value > 0 for value in self.std):
            raise SettingsError(f"std {self.std}. Allowed: numbers above 0.")
        if self.value_range is not None and not self.value_range > 0:
            raise SettingsError(f"value range {self.value_range}. Allowed: above 0, usually 1 or 255.")

    @classmethod
    def of(cls, content: Mapping[str, object], where: str) -> Preprocessing:
        """Return what a mapping with the names of the fields asks for; raises SettingsError naming `where`.

        `image_size` may be one number; it and `resize` may be text as on the command line, and `mean` and
        `std` one number.
        """
        names = [field.name for field in fields(cls)]
        unknown = [key for key in content if key not in names]
        if unknown:
            raise SettingsError(
                f"{where}: unknown {', '.join(map(repr, unknown))}. Allowed: {', '.join(names)}."
            )
        try:
            return cls(
                image_size=_size(content.get("image_size")),
                resize=_resized(content.get("resize")),
                crop=_number(content.get("crop")),
                interpolation=_interpolation(content.get("interpolation")),
                antialias=_flag("antialias", content.get("antialias")),
                channels=_whole(content.get("channels")),
                mean=_numbers(content.get("mean")),
                std=_numbers(content.get("std")),
                value_range=_number(content.get("value_range")),
            )
        except (SettingsError, ValueError) as error:
            raise SettingsError(f"{where}: {error}") from error


def merged(first: Preprocessing, second: Preprocessing) -> Preprocessing:
    """Return what `first` asks for, and what only `second` does; one scale of `first` replaces both."""
    given = {field.name: getattr(first, field.name) for field in fields(first)}
    asked = {name: value for name, value in given.items() if value is not None}
    if "resize" in asked or "crop" in asked:
        second = replace(second, resize=None, crop=None)
    return replace(second, **asked)


def parse_image_size(text: str) -> tuple[int, int]:
    """Return (height, width) of `299` or `240x320`; raises SettingsError."""
    sides = _parse_sides(text, "--image-size")
    return sides[0], sides[-1]


def parse_resize(text: str) -> Resize:
    """Return the shorter side of `292`, or (height, width) of `240x320`; raises SettingsError."""
    sides = _parse_sides(text, "--resize")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def _parse_sides(text: str, option: str) -> tuple[int, ...]:
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.strip().isdecimal() for part in parts):
        raise SettingsError(f"{option} {text}. Allowed: 299, or height x width as in 240x320.")
    return tuple(map(int, parts))


def resolve(option: Preprocessing, model: Preprocessing, data: Preprocessing) -> InputSpec:
    """Return what counts of each property: the option, else what the model asks for, else the data.

    `data` asks for everything. A size that overrides the model's keeps the model's crop share. A single mean
    or std is that of all channels. Raises SettingsError when the numbers of channels do not fit.
    """
    sources: tuple[tuple[Source, Preprocessing], ...] = (
        ("option", option),
        ("model", model),
        ("data", data),
    )
    chosen: dict[str, str] = {}

    def first(name: str) -> Preprocessing:
        for source, asked in sources:
            if getattr(asked, name) is not None:
                chosen[name] = source
                return asked
        raise SettingsError(f"pre-processing: nothing says what the {name.replace('_', ' ')} is")

    size = first("image_size").image_size or (1, 1)
    channels = first("channels").channels or 1
    value_range = first("value_range").value_range or 1.0
    resize = None
    for source, asked in sources:
        found = _resize(asked, size)
        if found is not None:
            resize, chosen["resize"] = found, source
            break
    mean_of, std_of = first("mean"), first("std")
    units = (
        value_range if chosen["mean"] == "data" else 1.0,
        value_range if chosen["std"] == "data" else 1.0,
    )
    mean = _per_channel("mean", mean_of.mean or (), channels, units[0])
    if any(value > value_range for value in mean):
        raise SettingsError(
            f"mean {_listed(mean)} is above the largest value {value_range:g}. Allowed: means of pixels from "
            "0 to 1, or of 0 to 255 together with --value-range 255."
        )
    return InputSpec(
        shape=(channels, *size),
        mean=mean,
        std=_per_channel("std", std_of.std or (), channels, units[1]),
        resize=resize,
        interpolation=first("interpolation").interpolation or "bilinear",
        antialias=first("antialias").antialias is not False,
        value_range=value_range,
        sources=tuple(chosen.items()),
    )


def describe_preprocessing(spec: InputSpec) -> str:
    """Return a specification as one line, each part with where it comes from."""
    sources = dict(spec.sources)

    def origin(*names: str) -> str:
        found = dict.fromkeys(sources[name] for name in names if name in sources)
        return f" ({', '.join(found)})" if found else ""

    channels, height, width = spec.shape
    match spec.resize:
        case None:
            scaled = "scaled to cover it"
        case (tall, wide):
            scaled = f"scaled to {tall} x {wide} whatever their ratio"
        case side:
            scaled = f"shorter side to {side}"
    filtered = spec.interpolation + ("" if spec.antialias else " without antialias")
    return (
        f"{channels} channel{'s' * (channels > 1)}{origin('channels')}, "
        f"{height} x {width}{origin('image_size')}, {scaled}{origin('resize')}, centre crop, "
        f"{filtered}{origin('interpolation', *(() if spec.antialias else ('antialias',)))}, "
        f"values 0 to {spec.value_range:g}{origin('value_range')}, "
        f"mean {_listed(spec.mean)}{origin('mean')}, std {_listed(spec.std)}{origin('std')}"
    )


def _resize(asked: Preprocessing, size: tuple[int, int]) -> Resize | None:
    if asked.crop is not None:
        return math.floor(min(size) / asked.crop)
    if asked.resize is None or asked.image_size is None or asked.image_size == size:
        return asked.resize
    if isinstance(asked.resize, int):
        return math.floor(min(size) * asked.resize / min(asked.image_size))
    height, width = (
        math.floor(side * scaled / own)
        for side, scaled, own in zip(size, asked.resize, asked.image_size, strict=True)
    )
    return height, width


def _sides(resize: Resize) -> tuple[int, ...]:
    return resize if isinstance(resize, tuple) else (resize,)


def _per_channel(name: str, values: Sequence[float], channels: int, unit: float) -> tuple[float, ...]:
    if len(values) == 1:
        values = tuple(values) * channels
    if len(values) != channels:
        raise SettingsError(
            f"{name} {_listed(values)} has {len(values)} values and the model takes {channels} channels. "
            f"Allowed: {channels} values, or one for all; --channels if the model takes another number."
        )
    return tuple(values) if unit == 1 else tuple(value * unit for value in values)


def _listed(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _interpolation(value: object) -> Interpolation | None:
    if value is None:
        return None
    # torchvision's enum has the name in `value`.
    text = str(getattr(value, "value", value))
    for known in get_args(Interpolation):
        if text == known:
            found: Interpolation = known
            return found
    raise SettingsError(f"interpolation {text!r}. Allowed: {', '.join(INTERPOLATIONS)}.")


def _flag(name: str, value: object) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise SettingsError(f"{name} {value!r}. Allowed: True or False.")


def _size(value: object) -> tuple[int, int] | None:
    match value:
        case None:
            return None
        case str():
            return parse_image_size(value)
        case [height, width]:
            return _required(height), _required(width)
        case [side]:
            return _required(side), _required(side)
    return _required(value), _required(value)


def _resized(value: object) -> Resize | None:
    match value:
        case str():
            return parse_resize(value)
        case [height, width]:
            return _required(height), _required(width)
    return _whole(value)


def _required(value: object) -> int:
    found = _whole(value)
    if found is None:
        raise SettingsError("image size: a number is missing")
    return found


def _whole(value: object) -> int | None:
    match value:
        case None:
            return None
        case int() if not isinstance(value, bool):
            return value
        case [only]:
            return _whole(only)
    raise SettingsError(f"{value!r} is not a whole number")


def _number(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise SettingsError(f"{value!r} is not a number")


def _numbers(value: object) -> tuple[float, ...] | None:
    if value is None:
        return None
    parts = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return tuple(number for number in map(_number, parts) if number is not None)

import pytest

from quant_explorer.core.data.dataset import InputSpec
from quant_explorer.core.errors import SettingsError
from quant_explorer.core.data.dataset import Resize
from quant_explorer.core.data.preprocessing import Preprocessing, describe_preprocessing, parse_image_size, resolve
from quant_explorer.core.recipe import digest_of

DATA = Preprocessing((40, 30), None, None, "bilinear", True, 3, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 1.0)
NOTHING = Preprocessing()


def test_the_option_counts_before_the_model_and_the_model_before_the_data() -> None:
    option = Preprocessing(mean=(0.5,), interpolation="nearest")
    model = Preprocessing(image_size=(260, 260), resize=292, interpolation="bicubic", mean=(0.9,) * 3)
    spec = resolve(option, model, DATA)
    assert spec == InputSpec(
        (3, 260, 260), (0.5,) * 3, (0.4, 0.5, 0.6), resize=292, interpolation="nearest", sources=spec.sources
    )
    assert dict(spec.sources) == {
        "image_size": "model",
        "channels": "data",
        "value_range": "data",
        "mean": "option",
        "std": "data",
        "resize": "model",
        "interpolation": "option",
        "antialias": "data",
    }
    assert describe_preprocessing(spec) == (
        "3 channels (data), 260 x 260 (model), shorter side to 292 (model), centre crop, nearest (option), "
        "values 0 to 1 (data), mean 0.5 0.5 0.5 (option), std 0.4 0.5 0.6 (data)"
    )


@pytest.mark.parametrize(
    ("option", "model", "resize"),
    [
        (NOTHING, Preprocessing(image_size=(224, 224), crop=0.875), 256),
        (NOTHING, Preprocessing(image_size=(224, 224), resize=232), 232),
        # Another size keeps the share that the model's crop had.
        (Preprocessing(image_size=(299, 299)), Preprocessing(image_size=(224, 224), resize=256), 341),
        (Preprocessing(image_size=(299, 299)), Preprocessing(image_size=(224, 224), crop=0.875), 341),
        (Preprocessing(image_size=(112, 448)), Preprocessing(image_size=(224, 224), resize=(256, 240)), (128, 480)),
        (Preprocessing(resize=(240, 320)), Preprocessing(image_size=(224, 224), crop=0.875), (240, 320)),
        (Preprocessing(image_size=(299, 299), resize=300), Preprocessing(image_size=(9, 9), crop=0.5), 300),
        (Preprocessing(crop=0.5), Preprocessing(image_size=(224, 200), resize=256), 400),
        (NOTHING, NOTHING, None),
    ],
)
def test_shorter_side_before_the_crop(
    option: Preprocessing, model: Preprocessing, resize: Resize | None
) -> None:
    assert resolve(option, model, DATA).resize == resize


def test_statistics_of_the_data_are_in_the_units_of_the_values() -> None:
    spec = resolve(Preprocessing(value_range=255.0), NOTHING, DATA)
    assert spec.mean == pytest.approx((25.5, 51.0, 76.5))
    assert spec.std == pytest.approx((102.0, 127.5, 153.0))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (Preprocessing(mean=(0.1, 0.2)), "mean 0.1 0.2 has 2 values and the model takes 3 channels"),
        (Preprocessing(mean=(127.0,)), "mean 127 127 127 is above the largest value 1.*--value-range 255"),
    ],
)
def test_numbers_that_do_not_fit(option: Preprocessing, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        resolve(option, NOTHING, DATA)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"size": 3}, "mine: unknown 'size'. Allowed: image_size, resize"),
        ({"resize": 1, "crop": 0.5}, "mine: resize and crop are both given"),
        ({"crop": 1.5}, "mine: crop 1.5. Allowed: a share"),
        ({"channels": 4}, "mine: channels 4. Allowed: 1 or 3"),
        ({"std": (0.1, 0.0)}, "mine: std .* Allowed: numbers above 0"),
        ({"interpolation": "cubic"}, "mine: interpolation 'cubic'. Allowed: nearest"),
        ({"mean": "x"}, "mine: 'x' is not a number"),
        ({"antialias": "no"}, "mine: antialias 'no'. Allowed: True or False"),
    ],
)
def test_a_dict_that_asks_for_what_there_is_not(content: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Preprocessing.of(content, "mine")


def test_a_dict_may_have_single_numbers() -> None:
    asked = Preprocessing.of({"image_size": 260, "mean": 0.5, "std": [0.1, 0.2, 0.3]}, "mine")
    assert asked == Preprocessing(image_size=(260, 260), mean=(0.5,), std=(0.1, 0.2, 0.3))


@pytest.mark.parametrize(("text", "size"), [("299", (299, 299)), ("240x320", (240, 320))])
def test_image_size(text: str, size: tuple[int, int]) -> None:
    assert parse_image_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "3x", "1x2x3", "-4", "2.5"])
def test_text_that_is_no_image_size(text: str) -> None:
    with pytest.raises(SettingsError, match="Allowed: 299, or height x width"):
        parse_image_size(text)


def test_the_digest_covers_pixels_alone_and_is_that_of_earlier_versions_by_default() -> None:
    plain = InputSpec((1, 28, 28), (0.1,), (0.3,), sources=(("mean", "data"),))
    assert plain.digest == digest_of({"shape": (1, 28, 28), "mean": (0.1,), "std": (0.3,)})
    others = [
        InputSpec((1, 28, 28), (0.1,), (0.3,), resize=32),
        InputSpec((1, 28, 28), (0.1,), (0.3,), interpolation="bicubic"),
        InputSpec((1, 28, 28), (0.1,), (0.3,), antialias=False),
        InputSpec((1, 28, 28), (0.1,), (0.3,), value_range=255.0),
    ]
    assert len({spec.digest for spec in (plain, *others)}) == 5

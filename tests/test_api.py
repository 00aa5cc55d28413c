"""What the Python API returns is new, takes and gives float32, and is what its name says, or it raises."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import quant_explorer
from quant_explorer import prune_channels, to_fp16, to_int8
from quant_explorer.core.errors import (
    BuildError,
    DataError,
    ModelError,
    QuantExplorerError,
    SettingsError,
    UnsupportedError,
)
from quant_explorer.metrics.fidelity import sqnr_db
from quant_explorer.runtimes.torch_graph.macs import count_macs
from quant_explorer.testing.reference import differences, float_logits
from quant_explorer.testing.toys import TOY_CONVOLUTION_MACS, TOY_LINEAR_MACS, toy_batches, toy_model

BATCHES = toy_batches()
LOADER = [torch.from_numpy(batch) for batch in BATCHES]
IMAGES = LOADER[0]
ENGINES = [name for name in torch.backends.quantized.supported_engines if name != "none"]
MAKERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "to_fp16": to_fp16,
    "to_int8": lambda model: to_int8(model, LOADER, backend=ENGINES[0]),
    "prune_channels": lambda model: prune_channels(model, IMAGES, 0.5),
}


def int8(model: nn.Module, loader: object = LOADER, **options: object) -> nn.Module:
    return to_int8(model, loader, **({"backend": ENGINES[0]} | options))  # type: ignore[arg-type]  # on purpose


class MostlyProducts(nn.Module):
    """All but a sliver of its arithmetic is a matrix product that runs in FP32.

    PyTorch leaves `torch.mm` alone. It replaces `torch.matmul` by an operator called quantized that computes
    in FP32 inside.
    """

    def __init__(self, product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.product = product
        self.weight = nn.Parameter(torch.eye(768) / 4)
        self.head = nn.Linear(768, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.product(images.flatten(1), self.weight))
        return logits


class Branching(nn.Module):
    """Control flow that depends on the values of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(768, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(images.flatten(1))
        return logits if images.sum() > 0 else -logits


class Pair(Branching):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.head(images.flatten(1))
        return (logits, logits)  # type: ignore[return-value]  # on purpose


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", MAKERS)
def test_the_result_is_new_and_the_argument_is_untouched(name: str, training: bool) -> None:
    model = toy_model().train(training)
    before = copy.deepcopy(model)
    engine = torch.backends.quantized.engine
    result = MAKERS[name](model)
    assert differences(before, model) == []
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.backends.quantized.engine == engine
    assert not any(module.training for module in result.modules())
    assert not {id(module) for module in model.modules()} & {id(module) for module in result.modules()}
    mine = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert not mine & {tensor.data_ptr() for tensor in result.parameters()}


@pytest.mark.parametrize("name", MAKERS)
def test_float32_in_and_float32_out(name: str) -> None:
    logits = MAKERS[name](toy_model())(IMAGES)
    assert (tuple(logits.shape), logits.dtype) == ((8, 4), torch.float32)
    assert logits.isfinite().all()


def test_fp16_is_float16_inside_and_nearly_the_same() -> None:
    model = toy_model()
    half = to_fp16(model)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float16}
    found, expected = float_logits(half, BATCHES[0]), float_logits(model, BATCHES[0])
    assert 0 < np.abs(found - expected).max() < 5e-3 * np.abs(expected).max()
    again = pickle.loads(pickle.dumps(half))
    np.testing.assert_array_equal(float_logits(again, BATCHES[0]), found)


def test_weights_that_float16_does_not_have_are_named() -> None:
    model = toy_model()
    with torch.no_grad():
        model.get_parameter("9.bias").fill_(65_504.0)
    assert to_fp16(model).state_dict()["model.9.bias"].tolist() == [65_504.0] * 4
    with torch.no_grad():
        model.get_parameter("9.bias").fill_(70_000.0)
    with pytest.raises(BuildError, match=r"float16 ends at 65,504; larger weights in 9\.bias"):
        to_fp16(model)


@pytest.mark.parametrize("engine", ENGINES)
def test_int8_runs_in_int8_on_every_engine(engine: str) -> None:
    model = toy_model()
    quantized = to_int8(model, LOADER, backend=engine)
    executed = count_macs(quantized, BATCHES[1])
    assert executed.macs == {"int8": TOY_CONVOLUTION_MACS + TOY_LINEAR_MACS}
    ratio = sqnr_db(float_logits(quantized, BATCHES[1]), float_logits(model, BATCHES[1]))
    assert ratio is not None
    assert ratio > 20
    np.testing.assert_array_equal(
        float_logits(copy.deepcopy(quantized), BATCHES[1]), float_logits(quantized, BATCHES[1])
    )


def test_an_engine_that_is_not_there_is_an_error_with_those_that_are() -> None:
    with pytest.raises(SettingsError, match="unknown quantized engine 'tpu'") as raised:
        to_int8(toy_model(), LOADER, backend="tpu")
    assert all(engine in str(raised.value) for engine in ENGINES)


@pytest.mark.parametrize("product", [torch.mm, torch.matmul])
def test_int8_in_name_only_is_an_error_with_the_figure(
    product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], tmp_path: Path
) -> None:
    total = 768 * (768 + 4)
    expected = (
        f"but {4 / 772:.1%} of its {total:,} multiply-accumulates ran in int8; more than 50% is required"
    )
    with pytest.raises(BuildError, match=expected):
        int8(MostlyProducts(product), metadata_path=tmp_path / "int8.json")
    assert list(tmp_path.iterdir()) == []


def test_int8_whose_outputs_are_noise_is_an_error_with_the_figure() -> None:
    model = toy_model()
    with torch.no_grad():
        # A column that meets nothing but zeros takes the whole scale of the weights; all others round to 0.
        model.get_parameter("9.weight").mul_(1e-6)
        model.get_parameter("9.weight")[:, 0] = 1e3
        model.get_parameter("5.weight")[0] = 0
        model.get_parameter("5.bias")[0] = 0
        model.get_parameter("9.bias").zero_()
    with pytest.raises(BuildError, match="dB signal to quantization noise"):
        int8(model)


def test_what_cannot_be_traced_is_unsupported() -> None:
    with pytest.raises(UnsupportedError, match=r"cannot be traced to a graph by torch\.fx"):
        int8(Branching())


def test_only_the_batches_asked_for_are_read_and_labels_are_left() -> None:
    taken: list[int] = []

    def loader() -> Iterator[list[torch.Tensor]]:
        for number, batch in enumerate(LOADER):
            taken.append(number)
            yield [batch, torch.zeros(len(batch))]

    quantized = int8(toy_model(), loader(), calibration_batches=2)
    assert taken == [0, 1]
    expected = int8(toy_model(), LOADER[:2])
    np.testing.assert_array_equal(float_logits(quantized, BATCHES[0]), float_logits(expected, BATCHES[0]))
    # And that the others would have made a difference.
    assert not np.array_equal(float_logits(int8(toy_model()), BATCHES[0]), float_logits(expected, BATCHES[0]))


def test_a_loader_may_fill_one_tensor_again_and_again() -> None:
    tensor = torch.empty_like(IMAGES)
    reused = int8(toy_model(), (tensor.copy_(batch) for batch in LOADER))
    np.testing.assert_array_equal(
        float_logits(reused, BATCHES[0]), float_logits(int8(toy_model()), BATCHES[0])
    )


@pytest.mark.parametrize(
    ("loader", "reason"),
    [
        ([], "calibration_loader is empty"),
        (IMAGES, "calibration_loader is one tensor"),
        ([IMAGES.double()], r"calibration batch 1 is torch\.float64; allowed: torch\.float32"),
        ([IMAGES, (IMAGES * 255).to(torch.uint8)], r"calibration batch 2 is torch\.uint8"),
        ([IMAGES.clone().fill_(float("nan"))], "calibration batch 1 holds NaN or infinity"),
        ([IMAGES, IMAGES / 0], "calibration batch 2 holds NaN or infinity"),
        ([IMAGES[:0]], r"calibration batch 1 has shape \(0, 3, 16, 16\)"),
        ([BATCHES[0]], "calibration batch 1 is a ndarray, not a tensor"),
        ([()], "calibration batch 1 is a tuple, not a tensor"),
    ],
)
def test_unfit_images_are_named(loader: object, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        int8(toy_model(), loader)


def test_no_batches_at_all_cannot_be_asked_for() -> None:
    with pytest.raises(SettingsError, match="calibration_batches 0 is out of range"):
        int8(toy_model(), calibration_batches=0)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: toy_model().half(), r"must have float32 parameters; found: torch\.float16"),
        (nn.Flatten, "must have float32 parameters; found: none"),
        (lambda: "toy", "the model is a str"),
    ],
)
def test_unfit_models_are_named(name: str, model: Callable[[], nn.Module], reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        MAKERS[name](model())


@pytest.mark.parametrize("name", MAKERS)
def test_a_broken_model_is_named(name: str) -> None:
    model = toy_model()
    with torch.no_grad():
        model.get_parameter("9.bias")[0] = float("nan")
    with pytest.raises(ModelError, match=r"NaN or infinite weights in 9\.bias"):
        MAKERS[name](model)


@pytest.mark.parametrize("name", ["to_int8", "prune_channels"])
def test_a_model_on_another_device_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match=r"the model is on meta\. Allowed: cpu"):
        MAKERS[name](toy_model().to("meta"))


def test_a_model_of_several_outputs_cannot_be_compared() -> None:
    with pytest.raises(ModelError, match="must return one float32 tensor; it returned tuple"):
        int8(Pair())


def test_metadata_says_what_was_done(tmp_path: Path) -> None:
    path = tmp_path / "made" / "int8.json"
    quantized = int8(toy_model(), calibration_batches=3, metadata_path=path)
    written = json.loads(path.read_text())
    assert written["backend"] == ENGINES[0]
    assert written["torch"] == torch.__version__
    assert written["weights"] == {"bits": 8, "granularity": "per_channel"}
    assert written["calibration"] == {"batches": 3, "images": 24}
    assert written["int8_mac_fraction"] == 1.0
    assert written["macs"] == {"int8": TOY_CONVOLUTION_MACS + TOY_LINEAR_MACS}
    assert sum(written["kernels"].values()) == 3
    activations = written["activations"]
    assert activations["bits"] in (7, 8)
    assert ("7 bits" in activations["reason"]) == (activations["bits"] == 7)
    assert activations["observer"] == "histogram"
    assert set(activations["outputs"]) == {"0", "4", "9"}
    last = quantized.get_submodule("9")
    assert activations["outputs"]["9"] == {"scale": last.scale, "zero_point": last.zero_point}


def test_pruning_leaves_a_smaller_float_model_that_can_be_quantized() -> None:
    pruned = prune_channels(toy_model(), IMAGES, 0.5)
    found = [module.out_channels for module in pruned.modules() if isinstance(module, nn.Conv2d)]
    assert found == [4, 8]
    assert {parameter.dtype for parameter in pruned.parameters()} == {torch.float32}
    assert count_macs(int8(pruned), BATCHES[0]).fraction("int8") == 1.0


@pytest.mark.parametrize(
    ("example", "ratio", "error", "reason"),
    [
        (IMAGES, 1.5, UnsupportedError, "ratio 1.5 is out of range"),
        (IMAGES, 0.01, UnsupportedError, "no channel can be removed"),
        (IMAGES.half(), 0.5, DataError, r"example_input is torch\.float16"),
        (IMAGES / 0, 0.5, DataError, "example_input holds NaN or infinity"),
    ],
)
def test_what_cannot_be_pruned_raises(
    example: torch.Tensor, ratio: float, error: type[QuantExplorerError], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        prune_channels(toy_model(), example, ratio)


def test_the_package_is_imported_without_torch_and_the_functions_bring_it() -> None:
    program = (
        "import sys, quant_explorer as package\n"
        "print('torch' in sys.modules, 'to_int8' in dir(package), 'numpy' in sys.modules)\n"
        "package.to_int8\n"
        "print('torch' in sys.modules)\n"
        "try: package.to_int9\n"
        "except AttributeError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "False True False",
        "True",
        "module 'quant_explorer' has no attribute 'to_int9'",
    ]


def test_what_is_exported_is_there() -> None:
    assert all(hasattr(quant_explorer, name) for name in quant_explorer.__all__)
    assert (Path(quant_explorer.__file__).parent / "py.typed").exists()


WARNING = """
import logging, sys, warnings
import torch
from torch import nn
from quant_explorer.api import to_int8
from quant_explorer.testing.toys import toy_batches, toy_model

class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = toy_model()

    def forward(self, images):
        warnings.warn("my own model")
        return self.body(images)

def mine():
    for batch in toy_batches():
        warnings.warn("my own loader")
        yield torch.from_numpy(batch)

logging.getLogger("quant_explorer").addHandler(logging.StreamHandler(sys.stdout))
logging.getLogger("quant_explorer").setLevel(logging.INFO)
to_int8(Mine().eval(), mine())
"""


def test_a_librarys_warnings_are_logged_and_the_callers_own_are_shown() -> None:
    """PyTorch calls `torch.ao.quantization` deprecated in every conversion."""
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", WARNING], capture_output=True, text=True, check=True
    )
    shown = {line.rpartition("Warning: ")[2] for line in done.stderr.splitlines() if "Warning:" in line}
    assert shown == {"my own model", "my own loader"}
    assert "Warning: my own" not in done.stdout
    assert "deprecated" in done.stdout

"""The exported graph: what it computes, what its nodes are called, and that it is made once."""

import gc
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from quant_explorer.core.contracts import Batch
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.runtimes.onnx_graph import export as onnx_export
from quant_explorer.runtimes.onnx_graph.checking import check_exported
from quant_explorer.runtimes.onnx_graph.export import export_onnx, nodes_of_layers
from quant_explorer.testing.reference import float_logits
from quant_explorer.testing.toys import settle_batch_norms, toy_batches, toy_model

BATCH = toy_batches(count=1)[0]


class Block(nn.Module):
    """A batch norm, one ReLU for two calls, an addition that no layer owns, names that begin alike."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.conv1 = nn.Conv2d(4, 4, 1)
        self.relu = nn.ReLU()
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(4 * 14 * 14, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn(self.conv(x)))
        x = self.relu(self.conv1(x) + x)
        out: torch.Tensor = self.head(x)
        return out


class Tokens(nn.Module):
    """A parameter for each image, and a pool whose size is a list of one number."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d([4])  # type: ignore[arg-type]  # PyTorch takes it
        self.token = nn.Parameter(torch.ones(1, 3, 1))
        self.head = nn.Linear(3 * 17, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        token = self.token.expand(x.shape[0], -1, -1)
        logits: torch.Tensor = self.head(torch.cat([token, self.pool(x).flatten(2)], 2).flatten(1))
        return logits


class Branch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :4] if x.sum() > 0 else x.flatten(1)[:, 4:8]


def make_block(seed: int = 0) -> Block:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = Block()
        settle_batch_norms(model)
    return model.eval()


@pytest.fixture(scope="module")
def exported() -> bytes:
    return export_onnx(make_block(), BATCH)


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Count the calls of PyTorch's exporter, and make them quick."""
    calls: list[nn.Module] = []

    def export(model: nn.Module, example: Batch) -> onnx.ModelProto:
        calls.append(model)
        return onnx.ModelProto(producer_name=str(len(calls)))

    monkeypatch.setattr(onnx_export, "_export", export)
    return calls


def test_computes_what_the_model_computes_for_any_number_of_images(exported: bytes) -> None:
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    expected = float_logits(make_block(), BATCH)
    for count in (1, 2, 5):
        (logits,) = session.run(["logits"], {"images": BATCH[:count]})
        np.testing.assert_allclose(
            logits, expected[:count], rtol=0, atol=1e-5 * float(np.abs(expected).max())
        )


def test_sizes_of_the_batch_and_of_lists_are_exported() -> None:
    model = Tokens().eval()
    session = onnxruntime.InferenceSession(export_onnx(model, BATCH))
    (logits,) = session.run(None, {"images": BATCH[:3]})
    np.testing.assert_allclose(logits, float_logits(model, BATCH[:3]), rtol=1e-4, atol=1e-5)


def test_nodes_are_named_after_layers_and_batch_norms_are_folded(exported: bytes) -> None:
    names = [node.name for node in onnx.load_from_string(exported).graph.node]
    assert names == [
        *("conv/Conv", "relu/Relu", "conv1/Conv", "/Add", "relu/Relu_2"),
        *("head.0/Reshape", "head.1/Gemm"),
    ]


@pytest.mark.parametrize(
    ("layers", "nodes"),
    [
        ((), ()),
        (("conv",), ("conv/Conv",)),
        (("relu",), ("relu/Relu", "relu/Relu_2")),
        (("head",), ("head.0/Reshape", "head.1/Gemm")),
        (("head.1", "head", "conv1"), ("head.1/Gemm", "head.0/Reshape", "conv1/Conv")),
    ],
)
def test_nodes_of_layers(exported: bytes, layers: tuple[str, ...], nodes: tuple[str, ...]) -> None:
    assert nodes_of_layers(onnx.load_from_string(exported).graph, layers) == nodes


@pytest.mark.parametrize("layer", ["bn", "hea", "1"])
def test_a_layer_that_is_not_there_is_refused(exported: bytes, layer: str) -> None:
    with pytest.raises(UnsupportedError, match=f"layer '{layer}' is not in the exported graph"):
        nodes_of_layers(onnx.load_from_string(exported).graph, ["conv", layer])


def test_the_file_is_the_graph_and_nothing_else(exported: bytes) -> None:
    """Not where, when, by what or from which lines it was made."""
    model = onnx.load_from_string(exported)
    assert model.producer_name == model.producer_version == ""
    assert not model.graph.value_info
    for text in (Path(__file__).stem, sys.prefix, "torch", "aten", "forward"):
        assert text.encode() not in exported
    assert all(item.data_location != onnx.TensorProto.EXTERNAL for item in model.graph.initializer)
    weights = sum(len(item.raw_data) for item in model.graph.initializer)
    assert len(exported) < weights + 1500


def test_the_same_weights_give_the_same_bytes(exported: bytes) -> None:
    assert export_onnx(make_block(), BATCH) == exported


def test_a_module_is_exported_once(exports: list[nn.Module]) -> None:
    model, other = toy_model(), toy_model()
    data = export_onnx(model, BATCH)
    assert export_onnx(model, BATCH) is data
    assert exports == [model]
    assert export_onnx(other, BATCH) != data
    assert export_onnx(model, BATCH[:, :, :8]) != data


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model[0].weight.mul_(2),
        lambda model: model[1].running_mean.add_(1),
        lambda model: model[9].register_parameter("bias", nn.Parameter(torch.zeros(4))),
    ],
)
def test_changed_weights_are_exported_again(
    change: Callable[[nn.Sequential], object], exports: list[nn.Module]
) -> None:
    model = toy_model()
    data = export_onnx(model, BATCH)
    with torch.no_grad():
        change(model)
    assert export_onnx(model, BATCH) != data


def test_an_export_does_not_outlive_its_module(exports: list[nn.Module]) -> None:
    model = toy_model()
    before = len(onnx_export._exports)
    export_onnx(model, BATCH)
    assert len(onnx_export._exports) == before + 1
    exports.clear()
    del model
    gc.collect()
    assert len(onnx_export._exports) == before


def test_control_flow_is_refused_with_what_to_do() -> None:
    with pytest.raises(UnsupportedError, match=r"cannot be exported to ONNX .*control flow") as raised:
        export_onnx(Branch().eval(), BATCH)
    assert "\n" not in str(raised.value)


WIDE = np.random.default_rng(0).standard_normal((4, 3, 16, 16), dtype=np.float32)
INDEX = torch.arange(16) % 5


class Computed(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.rand(16, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x[:, 0] @ self.weight).flatten(1)


def _attend(x: torch.Tensor) -> torch.Tensor:
    causal = nn.functional.scaled_dot_product_attention(x, 2 * x, x, is_causal=True)
    mask = torch.eye(16, dtype=torch.bool)
    return causal + nn.functional.scaled_dot_product_attention(x, x, x, mask, scale=0.5)


def _scatter(x: torch.Tensor) -> torch.Tensor:
    index = INDEX[None, :, None].expand_as(x)
    with_self = x.scatter_reduce(1, index, 3 * x, "mean")
    return with_self + torch.scatter_reduce(x, 1, index, x, reduce="mean", include_self=False)


FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "attention of three dimensions": _attend,
    "mean of what is scattered": _scatter,
    "distances": lambda x: torch.cdist(x, torch.eye(16).expand_as(x)),
    "ellipsis": lambda x: torch.einsum("...i, oi -> ...o", x, torch.eye(16)),
    "factors of a product": lambda x: torch.addmm(torch.ones(16), x[:, 0], torch.eye(16), beta=0.5, alpha=2),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_that_the_exporter_does_not_know_are_spelled_out(name: str) -> None:
    model = Computed(FUNCTIONS[name]).eval()
    session = onnxruntime.InferenceSession(export_onnx(model, WIDE))
    np.testing.assert_allclose(
        session.run(None, {"images": WIDE})[0], float_logits(model, WIDE), rtol=0, atol=1e-4
    )


def test_a_product_has_no_factors_and_an_einsum_no_ellipsis() -> None:
    product, einsum = (
        onnx.load_from_string(export_onnx(Computed(FUNCTIONS[name]).eval(), WIDE)).graph
        for name in ("factors of a product", "ellipsis")
    )
    given = [item.name for node in product.node if node.op_type == "Gemm" for item in node.attribute]
    assert not {"alpha", "beta"} & set(given)
    assert all("..." not in item.s.decode() for node in einsum.node for item in node.attribute)


def test_a_graph_for_one_number_of_images_is_refused() -> None:
    model = Computed(lambda x: torch.take_along_dim(x, INDEX.view(1, 16, 1), dim=1)).eval()
    with pytest.raises(UnsupportedError, match="for any number of images, only for the one"):
        export_onnx(model, WIDE)


def test_a_graph_that_is_another_model_is_refused() -> None:
    model = Computed(torch.sin).eval()
    check_exported(model, WIDE, lambda images: float_logits(model, images))
    with pytest.raises(UnsupportedError, match=r"is off by 0\.\d+ of the largest logit"):
        check_exported(model, WIDE, lambda images: float_logits(model, images) * np.float32(0.9))

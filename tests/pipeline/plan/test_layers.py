import pytest
import torch
from torch import nn

from quant_explorer.core.errors import UnsupportedError
from quant_explorer.pipeline.plan.layers import ModelPlan, Treatment, plan_layers
from quant_explorer.runtimes import RUNTIMES
from quant_explorer.techniques import create_step
from quant_explorer.testing.toys import TOY_LAYER_MACS, TOY_SHAPE, toy_model

GROUPED = nn.Sequential(
    *(nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 8, 2, groups=2), nn.PReLU(8), nn.Flatten()),
    nn.Linear(8 * 15 * 15, 4),
).eval()


def plan(model: nn.Module, config: str = "static_int8", **parameters: str) -> ModelPlan:
    return plan_layers(model, TOY_SHAPE, (create_step(config, **parameters),), RUNTIMES)


def decisions(found: ModelPlan, runtime: str) -> dict[str, str]:
    return {layer.cost.name: layer.treatments[runtime].decision for layer in found.layers}


def test_layers_come_by_their_share_of_the_work() -> None:
    model = toy_model()
    found = plan(model)
    assert {layer.cost.name: layer.cost.macs for layer in found.layers} == TOY_LAYER_MACS
    assert [layer.cost.name for layer in found.layers] == ["4", "0", "9"]
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_what_is_named_stays_in_float_everywhere() -> None:
    found = plan(toy_model(), float_layers="4")
    for runtime in RUNTIMES.keys() - found.refusals:
        assert decisions(found, runtime) == {"0": "int8", "4": "float", "9": "int8"}
    assert found.layers[0].treatments["eager"].reason == "named by --float-layer"


def test_each_runtime_says_what_it_leaves_in_float() -> None:
    found = plan(GROUPED)
    assert decisions(found, "onnxruntime") == {"0": "int8", "1": "float", "4": "int8"}
    assert decisions(found, "inductor") == {"0": "int8", "1": "float", "4": "int8"}
    assert decisions(found, "openvino") == {"0": "int8", "1": "int8", "4": "int8"}
    by_tensor = plan(GROUPED, granularity="per_tensor")
    assert decisions(by_tensor, "onnxruntime")["1"] == "int8"


def test_a_runtime_that_refuses_the_model_gives_the_reason() -> None:
    found = plan(toy_model(), "dynamic_int8")
    assert decisions(found, "eager") == {"0": "float", "4": "float", "9": "int8"}
    reason = found.refusals["openvino"]
    assert "choose static INT8" in reason
    assert found.layers[0].treatments["openvino"] == Treatment("refused", reason)


def test_other_kinds_of_layers_are_not_guessed_at() -> None:
    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            rows = images.flatten(1, 2)
            mixed: torch.Tensor = self.attention(rows, rows, rows, need_weights=False)[0]
            return mixed.mean(1)

    assert decisions(plan(Scores().eval()), "openvino") == {"attention": "once built"}


def test_a_technique_that_cannot_be_applied_says_so() -> None:
    with pytest.raises(UnsupportedError, match=r"no nn\.Linear layer"):
        plan(nn.Sequential(nn.Conv2d(3, 4, 16), nn.Flatten()), "dynamic_int8")

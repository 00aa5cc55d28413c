"""The eager runtime on real architectures: what it writes, that PyTorch alone can load it, what ran."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from quant_explorer.core.contracts import Batch, Candidate
from quant_explorer.core.errors import BuildError, SettingsError, UnsupportedError
from quant_explorer.core.measurement import Executed
from quant_explorer.core.quantspec import Granularity, QuantSpec
from quant_explorer.pipeline.measure import check_precision
from quant_explorer.runtimes.eager.runtime import Eager, select_engine
from quant_explorer.testing.conformance_runtime import SPECS
from quant_explorer.testing.reference import float_logits
from quant_explorer.testing.toys import (
    TOY_CONVOLUTION_MACS,
    TOY_LINEAR_MACS,
    settle_batch_norms,
    toy_batches,
    toy_model,
)

ENGINES = [name for name in torch.backends.quantized.supported_engines if name != "none"]
FILES = {"model.py", "weights.pt"}

# PyTorch and the artifact, no quant_explorer and no torchvision.
ALONE = """
import runpy, sys
sys.modules["quant_explorer"] = sys.modules["torchvision"] = None
import numpy, torch
torch.set_num_threads(1)
images = torch.from_numpy(numpy.load(sys.argv[1]))
for folder in sys.argv[2:]:
    model = runpy.run_path(f"{folder}/model.py")["Model"]()
    model.load_state_dict(torch.load(f"{folder}/weights.pt", weights_only=True))
    model.eval()
    with torch.inference_mode():
        numpy.save(f"{folder}.npy", model(images).numpy())
"""


@dataclass(frozen=True)
class LoweredArchitecture:
    """One architecture in every spec, with the logits that its sessions gave. `folders` is by spec."""

    model: nn.Module
    batches: tuple[Batch, ...]
    folders: dict[str, Path]
    logits: dict[str, Batch]
    executed: dict[str, Executed]


def architecture(name: str) -> nn.Module:
    """Without weights."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=4)
        settle_batch_norms(model)
    return model.eval()


@pytest.fixture(scope="module", params=["resnet18", "mobilenet_v3_large"])
def lowered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoweredArchitecture:
    model, batches = architecture(request.param), toy_batches((3, 64, 64), count=2, size=4)
    result = LoweredArchitecture(model, batches, {}, {}, {})
    for name, spec in SPECS.items():
        candidate = Candidate(model, spec)
        if Eager().unsupported(candidate) is not None:
            continue
        folder = result.folders[name] = tmp_path_factory.mktemp(name)
        Eager().lower(candidate, batches, folder)
        session = Eager().open(folder)
        result.logits[name] = session.run(batches[0])
        result.executed[name] = session.executed(batches[0])
    return result


@pytest.mark.slow
class TestArchitectures:
    def test_fp32_is_the_float_model(self, lowered: LoweredArchitecture) -> None:
        expected = float_logits(lowered.model, lowered.batches[0])
        np.testing.assert_allclose(
            lowered.logits["fp32"], expected, rtol=0, atol=1e-4 * float(np.abs(expected).max())
        )

    def test_every_precision_resembles_the_float_model(self, lowered: LoweredArchitecture) -> None:
        """Weights at random carry no margin; a broken lowering has no correlation at all."""
        expected = float_logits(lowered.model, lowered.batches[0])
        for spec, logits in lowered.logits.items():
            assert np.corrcoef(logits.ravel(), expected.ravel())[0, 1] > 0.9, spec
            assert (spec == "fp32") == np.allclose(logits, expected, rtol=1e-4, atol=1e-6), spec

    def test_files(self, lowered: LoweredArchitecture) -> None:
        """Nothing beside the two; a quarter of the size where everything is INT8."""
        sizes = {}
        for spec, folder in lowered.folders.items():
            assert {path.name for path in folder.rglob("*")} == FILES
            sizes[spec] = sum(path.stat().st_size for path in folder.iterdir())
        for spec in ("static_int8_per_tensor", "static_int8_per_channel"):
            assert sizes[spec] < 0.3 * sizes["fp32"]
        for spec in sizes.keys() & {"bf16", "fp16"}:
            assert sizes[spec] < 0.51 * sizes["fp32"]
        assert sizes["dynamic_int8"] < sizes["fp32"]

    def test_pytorch_alone_loads_it_and_computes_the_same(
        self, lowered: LoweredArchitecture, tmp_path: Path
    ) -> None:
        np.save(tmp_path / "images.npy", lowered.batches[0])
        folders = [str(folder) for folder in lowered.folders.values()]
        subprocess.run(
            [sys.executable, "-I", "-W", "ignore", "-c", ALONE, str(tmp_path / "images.npy"), *folders],
            check=True,
            cwd=tmp_path,
            # Sums are split by threads, and so rounded.
            env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        )
        for spec, folder in lowered.folders.items():
            logits = lowered.logits[spec]
            tolerance = 1e-4 * float(np.abs(logits).max())
            np.testing.assert_allclose(np.load(f"{folder}.npy"), logits, rtol=0, atol=tolerance, err_msg=spec)

    def test_executed(self, lowered: LoweredArchitecture) -> None:
        """The same multiply-accumulates in every variant, in the precision asked for."""
        totals = {sum(executed.macs.values()) for executed in lowered.executed.values()}
        assert len(totals) == 1
        for spec in lowered.executed.keys() & {"fp32", "bf16", "fp16"}:
            assert lowered.executed[spec].macs.keys() == {spec}
        assert lowered.executed["static_int8_per_tensor"].macs.keys() == {"int8"}
        assert lowered.executed["static_int8_per_channel"].macs.keys() == {"int8"}
        linear = sum(
            module.weight.numel() for module in lowered.model.modules() if isinstance(module, nn.Linear)
        )
        assert lowered.executed["dynamic_int8"].macs["int8"] == linear


@pytest.mark.parametrize("spec", SPECS)
def test_lowered_twice_to_the_same_bytes(spec: str, tmp_path: Path) -> None:
    for name in ("a", "a-longer-name"):
        (tmp_path / name).mkdir()
        Eager().lower(Candidate(toy_model(), SPECS[spec]), toy_batches(), tmp_path / name)
    for file in FILES:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "a-longer-name" / file).read_bytes()


@pytest.mark.parametrize("spec", SPECS)
def test_equal_payload_is_equal_size(spec: str, tmp_path: Path) -> None:
    """Other weights, also extreme ones whose scales take more digits to write."""
    sizes = set()
    for factor in (1.0, -3.7e-9, 3.0 if spec == "fp16" else 1e7):
        model = toy_model()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(factor)
        folder = tmp_path / str(factor)
        folder.mkdir()
        Eager().lower(Candidate(model, SPECS[spec]), toy_batches(), folder)
        sizes.add(sum(path.stat().st_size for path in folder.iterdir()))
    assert len(sizes) == 1


class Renamed(nn.Module):
    def __init__(self, model: nn.Sequential, prefix: str) -> None:
        super().__init__()
        for name, module in model.named_children():
            self.add_module(f"{prefix}{name}", module)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for module in self.children():
            x = module(x)
        return x


def test_every_other_precision_is_supported() -> None:
    """Half precision depends on the CPU: tests/runtimes/torch_graph/test_half.py."""
    for spec in (QuantSpec(), QuantSpec("int8", "static"), QuantSpec("int8", "dynamic")):
        assert Eager().unsupported(Candidate(toy_model(), spec)) is None
    assert Eager().unavailable() is None


def test_int8_stays_between_flatten_and_linear(tmp_path: Path) -> None:
    """PyTorch by itself dequantizes before the module and quantizes after it."""
    batches = toy_batches()
    Eager().lower(Candidate(toy_model(), SPECS["static_int8_per_channel"]), batches, tmp_path)
    source = (tmp_path / "model.py").read_text()
    assert source.count("torch.quantize_per_tensor(") == 1
    assert source.count(".dequantize()") == 1
    weights = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert sorted(name for name in weights if name.endswith("scale_0")) == ["0_input_scale_0"]


def test_flatten_in_float_stays_in_float(tmp_path: Path) -> None:
    """Before a layer that is asked to stay float there is nothing to move in INT8."""
    batches = toy_batches()
    spec = QuantSpec("int8", "static", float_layers=("9",))
    Eager().lower(Candidate(toy_model(), spec), batches, tmp_path)
    executed = Eager().open(tmp_path).executed(batches[0])
    assert executed.macs == {"fp32": TOY_LINEAR_MACS, "int8": TOY_CONVOLUTION_MACS}


def test_unknown_engine_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"unknown quantized engine 'x68'\. Did you mean 'x86'") as raised:
        Eager(engine="x68").lower(Candidate(toy_model(), SPECS["dynamic_int8"]), toy_batches(), tmp_path)
    assert all(name in str(raised.value) for name in ENGINES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("machine", "engines", "chosen"),
    [
        ("x86_64", ["x86", "fbgemm", "qnnpack"], "x86"),
        ("aarch64", ["x86", "fbgemm", "qnnpack"], "qnnpack"),
        ("aarch64", ["fbgemm"], "fbgemm"),
        ("riscv64", ["qnnpack"], "qnnpack"),
    ],
)
def test_engine_suits_the_processor(
    machine: str, engines: list[str], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(torch.backends, "quantized", SimpleNamespace(supported_engines=["none", *engines]))
    assert select_engine("") == chosen
    assert select_engine(engines[-1]) == engines[-1]


def test_no_engine_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends, "quantized", SimpleNamespace(supported_engines=["none"]))
    with pytest.raises(UnsupportedError, match="no quantized engine"):
        select_engine("")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_every_engine_is_used_named_and_right(engine: str, granularity: Granularity, tmp_path: Path) -> None:
    before = torch.backends.quantized.engine
    batches = toy_batches()
    candidate = Candidate(toy_model(), QuantSpec("int8", "static", granularity))
    lowering = Eager(engine).lower(candidate, batches, tmp_path)
    assert torch.backends.quantized.engine == before
    assert lowering.options == (("engine", engine),)
    assert lowering.notes[0] == f"quantized engine: {engine}"
    assert f"torch.backends.quantized.engine = '{engine}'" in (tmp_path / "model.py").read_text()
    session = Eager(engine).open(tmp_path)
    try:
        expected = float_logits(candidate.model, batches[0])
        error = session.run(batches[0]) - expected
        assert 10 * np.log10((expected**2).sum() / (error**2).sum()) > 20
        assert session.executed(batches[0]).fraction("int8") == 1.0
    finally:
        torch.backends.quantized.engine = before


@pytest.mark.parametrize("claimed", ["dynamic_int8", "static_int8_per_tensor", "static_int8_per_channel"])
def test_named_int8_but_float_is_caught(claimed: str, tmp_path: Path) -> None:
    batches = toy_batches()
    Eager().lower(Candidate(toy_model(), SPECS["fp32"]), batches, tmp_path)
    executed = Eager().open(tmp_path).executed(batches[0])
    with pytest.raises(BuildError, match=r"named INT8, but its multiply-accumulates ran in fp32 100\.0%"):
        check_precision(SPECS[claimed], executed)
    check_precision(SPECS["fp32"], executed)


def test_dynamic_weights_do_not_make_a_static_variant(tmp_path: Path) -> None:
    """The toy's convolutions are 99.9 % of it, and they are float."""
    batches = toy_batches()
    Eager().lower(Candidate(toy_model(), SPECS["dynamic_int8"]), batches, tmp_path)
    executed = Eager().open(tmp_path).executed(batches[0])
    check_precision(SPECS["dynamic_int8"], executed)
    with pytest.raises(BuildError, match="named INT8"):
        check_precision(SPECS["static_int8_per_channel"], executed)


@pytest.mark.parametrize("spec", SPECS)
def test_names_do_not_decide_the_size(spec: str, tmp_path: Path) -> None:
    """Nothing of a variant's own name is written; the layers' names are the user's, the same in all."""
    text = set()
    for name in ("fp32_baseline", "a"):
        (tmp_path / name).mkdir()
        Eager().lower(Candidate(Renamed(toy_model(), "layer"), SPECS[spec]), toy_batches(), tmp_path / name)
        text.add((tmp_path / name / "model.py").read_text())
        assert b"baseline" not in (tmp_path / name / "weights.pt").read_bytes()
    assert len(text) == 1

"""The torchscript runtime: the graphs of eager, the file on its own, what ran."""

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from quant_explorer.core.contracts import Candidate
from quant_explorer.core.errors import BuildError, SettingsError, UnsupportedError
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.runtimes.eager.runtime import Eager
from quant_explorer.runtimes.torchscript import file as torchscript_file
from quant_explorer.runtimes.torchscript.runtime import MODEL_FILE, TorchScript
from quant_explorer.testing.conformance_runtime import SPECS
from quant_explorer.testing.reference import float_logits
from quant_explorer.testing.toys import (
    TOY_CONVOLUTION_MACS,
    TOY_LINEAR_MACS,
    toy_batches,
    toy_model,
)

BATCHES = toy_batches()
ENGINES = [name for name in torch.backends.quantized.supported_engines if name != "none"]


def lower(folder: Path, spec: QuantSpec, model: nn.Module | None = None, engine: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    TorchScript(engine).lower(Candidate(model or toy_model(), spec), BATCHES, folder)
    return folder


def records(folder: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(folder / MODEL_FILE) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("spec", ["static_int8_per_tensor", "static_int8_per_channel", "dynamic_int8"])
def test_int8_is_that_of_eager(spec: str, tmp_path: Path) -> None:
    """To the last bit where all is INT8; float convolutions are other kernels, which the bits may show."""
    Eager().lower(Candidate(toy_model(), SPECS[spec]), BATCHES, tmp_path)
    expected = Eager().open(tmp_path).run(BATCHES[0])
    logits = TorchScript().open(lower(tmp_path / "script", SPECS[spec])).run(BATCHES[0])
    if spec == "dynamic_int8":
        np.testing.assert_allclose(logits, expected, rtol=0, atol=0.02 * float(np.abs(expected).max()))
    else:
        np.testing.assert_array_equal(logits, expected)


def test_optimizing_changes_float_convolutions_only_by_rounding(tmp_path: Path) -> None:
    folder = lower(tmp_path, SPECS["fp32"])
    session = TorchScript().open(folder)
    assert "prim::mkldnn_convolution" in str(session.module.graph)
    expected = float_logits(toy_model(), BATCHES[0])
    np.testing.assert_allclose(session.run(BATCHES[0]), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("spec", ["fp32", "bf16", "dynamic_int8", "static_int8_per_channel"])
def test_the_file_holds_no_trace_of_where_or_when_it_was_made(spec: str, tmp_path: Path) -> None:
    """Neither paths nor sources of this machine, nor how many graphs were traced before."""
    first, again = (lower(tmp_path / name, SPECS[spec]) / MODEL_FILE for name in ("a", "a-longer-name"))
    assert first.read_bytes() == again.read_bytes()
    stored = records(first.parent)
    content = b"".join(stored.values())
    assert not [name for name in stored if name.endswith(".debug_pkl") or "mangle" in name]
    for trace in (b"mangle", b"site-packages", b"quant_explorer", str(Path.cwd()).encode()):
        assert trace not in content


def test_the_name_of_the_process_first_trace_is_that_of_all_others(tmp_path: Path) -> None:
    """PyTorch numbers every class but the first."""
    program = (
        "import sys; from pathlib import Path\n"
        "from quant_explorer.core.contracts import Candidate\n"
        "from quant_explorer.core.quantspec import QuantSpec\n"
        "from quant_explorer.runtimes.torchscript.runtime import TorchScript\n"
        "from quant_explorer.testing.toys import toy_batches, toy_model\n"
        "TorchScript().lower(Candidate(toy_model(), QuantSpec()), toy_batches(), Path(sys.argv[1]))\n"
    )
    (tmp_path / "first").mkdir()
    subprocess.run([sys.executable, "-W", "ignore", "-c", program, str(tmp_path / "first")], check=True)
    lower(tmp_path / "other", SPECS["fp32"])
    assert records(tmp_path / "first").keys() == records(lower(tmp_path / "later", SPECS["fp32"])).keys()
    sizes = {(tmp_path / name / MODEL_FILE).stat().st_size for name in ("first", "other", "later")}
    assert len(sizes) == 1


def test_int8_that_ran_float_is_seen(tmp_path: Path) -> None:
    """Float convolutions are oneDNN's here, which PyTorch's dispatcher does not see."""
    total = TOY_CONVOLUTION_MACS + TOY_LINEAR_MACS
    batch = BATCHES[0]
    executed = TorchScript().open(lower(tmp_path / "fp32", SPECS["fp32"])).executed(batch)
    assert executed.macs == {"fp32": total}
    assert executed.kernels["prim::mkldnn_convolution"] == 2
    mixed = lower(tmp_path / "mixed", QuantSpec("int8", "static", float_layers=("4",)))
    executed = TorchScript().open(mixed).executed(batch)
    kept = 16 * 8 * 8 * 8 * 9
    assert executed.macs == {"fp32": kept, "int8": total - kept}
    whole = TorchScript().open(lower(tmp_path / "int8", SPECS["static_int8_per_channel"])).executed(batch)
    assert whole.fraction("int8") == 1.0
    assert "prim::mkldnn_convolution" not in whole.kernels


class Excitation(nn.Module):
    """Scales each channel by a number, or by a map of the same size."""

    def __init__(self, *, broadcast: bool) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 8, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1) if broadcast else nn.Identity()
        self.gate = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.features(x)
        logits: torch.Tensor = self.head((maps * self.gate(self.pool(maps)).sigmoid()).mean((2, 3)))
        return logits


@pytest.mark.parametrize("broadcast", [False, True])
@pytest.mark.parametrize("spec", ["fp32", "dynamic_int8", "static_int8_per_channel"])
def test_a_model_that_broadcasts_is_opened_as_it_is(spec: str, broadcast: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Excitation(broadcast=broadcast).eval()
    lowering = TorchScript().lower(Candidate(model, SPECS[spec]), BATCHES, tmp_path)
    options = dict(lowering.options)
    assert options["optimize"] == (not broadcast)
    assert any("broadcast" in note for note in lowering.notes) == broadcast
    session = TorchScript(optimize=not broadcast).open(tmp_path)
    executed = session.executed(BATCHES[0])
    assert ("prim::mkldnn_convolution" in executed.kernels) == (
        spec != "static_int8_per_channel" and not broadcast
    )
    places = 1 if broadcast else 256
    assert sum(executed.macs.values()) == 8 * 256 * 27 + 8 * 8 * places + 8 * 4
    expected = float_logits(model, BATCHES[0])
    tolerance = 1e-5 if spec == "fp32" else 0.1
    np.testing.assert_allclose(
        session.run(BATCHES[0]), expected, rtol=0, atol=tolerance * np.abs(expected).max()
    )


def test_optimizing_can_be_declined(tmp_path: Path) -> None:
    lowering = TorchScript(optimize=False).lower(Candidate(toy_model(), SPECS["fp32"]), BATCHES, tmp_path)
    assert lowering.options == (("engine", ""), ("optimize", False))
    assert lowering.notes == ()
    session = TorchScript(**dict(lowering.options)).open(tmp_path)  # type: ignore[arg-type]
    assert session.executed(BATCHES[0]).kernels == {"aten._convolution.default": 2, "aten.addmm.default": 1}


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_is_used_and_restored(engine: str, tmp_path: Path) -> None:
    before = torch.backends.quantized.engine
    candidate = Candidate(toy_model(), SPECS["static_int8_per_channel"])
    lowering = TorchScript(engine).lower(candidate, BATCHES, tmp_path)
    assert torch.backends.quantized.engine == before
    assert lowering.options == (("engine", engine), ("optimize", True))
    assert lowering.notes[0] == f"quantized engine: {engine}"


def test_the_worker_packs_for_the_engine_of_the_options(tmp_path: Path) -> None:
    """In a process of its own, because engine and threads are set once."""
    lower(tmp_path, SPECS["static_int8_per_channel"], engine="fbgemm")
    program = (
        "import sys, torch; from pathlib import Path\n"
        "from quant_explorer.runtimes.torchscript.runtime import TorchScript\n"
        "runtime = TorchScript(engine='fbgemm'); runtime.load_libraries(1); runtime.open(Path(sys.argv[1]))\n"
        "print(torch.backends.quantized.engine, torch.get_num_threads())\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", program, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["fbgemm", "1"]


def test_an_unknown_engine_is_refused_only_where_it_matters(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="unknown quantized engine 'x68'"):
        lower(tmp_path / "int8", SPECS["dynamic_int8"], engine="x68")
    assert records(lower(tmp_path / "fp32", SPECS["fp32"], engine="x68"))


class Baked(nn.Module):
    """Takes any batch; its trace takes the size it was traced with, a Python number here."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(768, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(x.reshape(int(x.shape[0]), 768))
        return logits


class Sliced(Baked):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(torch.cat([x, x])[: int(x.shape[0])].flatten(1))
        return logits


@pytest.mark.parametrize(("kind", "reason"), [(Baked, "take batches of 1"), (Sliced, r"logits \(2, 4\)")])
def test_a_trace_for_one_batch_size_is_not_shipped(
    kind: type[nn.Module], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        torchscript_file.write(kind(), tmp_path / MODEL_FILE, BATCHES[0])


def test_a_file_that_computes_something_else_is_not_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = torch.jit.trace(toy_model(seed=1).eval(), torch.from_numpy(BATCHES[0]))
    monkeypatch.setattr(torchscript_file, "_copy_records", lambda saved, file: other.save(str(file)))
    with pytest.raises(BuildError, match=r"model\.ts does not compute what the traced model computes"):
        lower(tmp_path, SPECS["fp32"])


def test_a_file_that_pytorch_cannot_read_back_is_not_shipped(tmp_path: Path) -> None:
    """It writes a scale that is a large whole number as an integer, and then asks for a float."""
    model = toy_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e7)
    with pytest.raises(UnsupportedError, match="PyTorch cannot read back"):
        lower(tmp_path, SPECS["static_int8_per_channel"], model)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_batch_of_any_size_is_run(size: int, tmp_path: Path) -> None:
    """Also in the first call, which compiles."""
    model = toy_model()
    session = TorchScript().open(lower(tmp_path, SPECS["fp32"], model))
    (images,) = toy_batches(count=1, size=size, seed=5)
    expected = float_logits(model, images)
    np.testing.assert_allclose(session.run(images), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_damaged_file_is_not_opened(tmp_path: Path) -> None:
    file = lower(tmp_path, SPECS["fp32"]) / MODEL_FILE
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(RuntimeError):
        TorchScript().open(tmp_path)

import errno
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from quant_explorer.core.errors import ModelError, StorageError
from quant_explorer.models import load_weights, parameter_digest, save_weights


def model(seed: int = 0, outputs: int = 5) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, outputs))


def test_round_trip(tmp_path: Path) -> None:
    saved, loaded = model(0), model(1)
    save_weights(saved, tmp_path / "deep" / "w.safetensors")
    assert parameter_digest(saved) != parameter_digest(loaded)
    load_weights(loaded, tmp_path / "deep" / "w.safetensors")
    assert parameter_digest(saved) == parameter_digest(loaded)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["w.safetensors"]


def test_tied_weights_are_saved(tmp_path: Path) -> None:
    def tied(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        first, second = nn.Linear(4, 4), nn.Linear(4, 4)
        second.weight = first.weight
        return nn.Sequential(first, second)

    with torch.random.fork_rng(devices=[]):
        saved, loaded = tied(0), tied(1)
    save_weights(saved, tmp_path / "w.safetensors")
    load_weights(loaded, tmp_path / "w.safetensors")
    assert parameter_digest(saved) == parameter_digest(loaded)


Wrap = Callable[[dict[str, Tensor]], object]


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
@pytest.mark.parametrize(
    "wrap",
    [lambda state: state, lambda state: {"state_dict": state, "epoch": 3}, lambda state: {"model": state}],
)
def test_checkpoints_of_pytorch(tmp_path: Path, suffix: str, wrap: Wrap) -> None:
    saved, loaded = model(0), model(1)
    torch.save(wrap(saved.state_dict()), tmp_path / f"w{suffix}")
    load_weights(loaded, tmp_path / f"w{suffix}")
    assert parameter_digest(saved) == parameter_digest(loaded)


def test_num_batches_tracked_may_be_missing(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in model().state_dict().items() if "num_batches" not in name}
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    load_weights(model(1), tmp_path / "w.safetensors")


def test_everything_that_does_not_fit_is_listed_at_once(tmp_path: Path) -> None:
    state = dict(model(outputs=7).state_dict())
    del state["0.bias"]
    state["9.extra"] = torch.zeros(1)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ModelError) as caught:
        load_weights(model(), tmp_path / "w.pt")
    message = str(caught.value)
    for part in (
        "w.pt: these weights do not fit",
        "missing: 0.bias;",
        "unexpected: 9.extra;",
        "of another shape: 3.weight (7, 16), model (5, 16), 3.bias (7,), model (5,)",
    ):
        assert part in message


def test_long_lists_are_cut(tmp_path: Path) -> None:
    torch.save({f"extra{number}": torch.zeros(1) for number in range(30)}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="extra9 and 20 more"):
        load_weights(model(), tmp_path / "w.pt")


@pytest.mark.parametrize("prefix", ["net.", "module.", "_orig_mod.", "model.", "module._orig_mod."])
def test_prefixes_of_wrappers_are_taken_off_and_it_is_reported(tmp_path: Path, prefix: str) -> None:
    saved, loaded = model(0), model(1)
    torch.save({f"{prefix}{name}": t for name, t in saved.state_dict().items()}, tmp_path / "w.pt")
    notes = load_weights(loaded, tmp_path / "w.pt")
    assert parameter_digest(saved) == parameter_digest(loaded)
    assert len(notes) == prefix.count(".")
    assert all("was taken off all names" in note for note in notes)


def test_a_prefix_of_several_parts_is_taken_off_at_once(tmp_path: Path) -> None:
    saved, loaded = model(0), model(1)
    torch.save({f"task.backbone.{name}": t for name, t in saved.state_dict().items()}, tmp_path / "w.pt")
    notes = load_weights(loaded, tmp_path / "w.pt")
    assert parameter_digest(saved) == parameter_digest(loaded)
    assert notes == ("Weights: the prefix 'task.backbone.' was taken off all names",)


def test_wrappers_of_parts_are_taken_out_and_counters_left_out(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(3, 4)), nn.Linear(4, 2))
    state = model.state_dict()
    wrapped = {f"module.{name.replace('0.0.', '0._orig_mod.0.')}": value for name, value in state.items()}
    counters = {"module.total_ops": torch.zeros(1), "module.1.total_params": torch.zeros(1)}
    torch.save(wrapped | counters, tmp_path / "weights.pth")
    other = nn.Sequential(nn.Sequential(nn.Linear(3, 4)), nn.Linear(4, 2))
    notes = load_weights(other, tmp_path / "weights.pth")
    assert parameter_digest(other) == parameter_digest(model)
    assert any("wrappers inside: 0._orig_mod.0.weight, 0._orig_mod.0.bias" in note for note in notes)


def test_what_a_wrapper_has_beside_the_model_is_left_out_and_named(tmp_path: Path) -> None:
    saved, loaded = model(0), model(1)
    state = {f"model.{name}": tensor for name, tensor in saved.state_dict().items()}
    torch.save({"state_dict": state | {"criterion.weight": torch.ones(5)}}, tmp_path / "w.ckpt")
    notes = load_weights(loaded, tmp_path / "w.ckpt")
    assert parameter_digest(saved) == parameter_digest(loaded)
    assert notes[-1] == "Weights: left out without the prefix 'model.': criterion.weight"


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda tensor: (tensor * 50).to(torch.int8), "int8"),
        (lambda tensor: torch.complex(tensor, tensor), "complex64"),
        (Tensor.to_sparse, r"float32 \(sparse_coo\)"),
        (lambda tensor: tensor.to("meta"), r"float32 without values"),
        (lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8), "qint8"),
    ],
)
def test_numbers_of_another_type_are_refused(
    tmp_path: Path, change: Callable[[Tensor], Tensor], kind: str
) -> None:
    state = model().state_dict()
    torch.save(state | {"3.weight": change(state["3.weight"])}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=rf"do not fit the model; of another type: 3\.weight {kind}"):
        load_weights(model(), tmp_path / "w.pt")


def test_averaged_weights_are_preferred_the_choice_is_reported_and_can_be_changed(tmp_path: Path) -> None:
    noisy, averaged = model(0), model(1)
    ema = {f"module.{name}": tensor for name, tensor in averaged.state_dict().items()}
    content = {
        "epoch": 3,
        "model": noisy.state_dict(),
        "ema": {"shadow": ema | {"n_averaged": torch.ones(1)}},
    }
    torch.save(content, tmp_path / "w.ckpt")
    loaded = model(2)
    notes = load_weights(loaded, tmp_path / "w.ckpt")
    assert parameter_digest(loaded) == parameter_digest(averaged)
    assert notes[0] == (
        "Weights: those under 'ema.shadow' in w.ckpt; there are others under 'model', for --weights-key"
    )
    assert load_weights(loaded, tmp_path / "w.ckpt", "model") == ("Weights: those under 'model' in w.ckpt",)
    assert parameter_digest(loaded) == parameter_digest(noisy)
    with pytest.raises(ModelError, match=r"--weights-key net: .*Allowed: model, ema\.shadow"):
        load_weights(loaded, tmp_path / "w.ckpt", "net")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["3.weight", "1.running_var"])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, name: str, value: float) -> None:
    broken = model()
    broken.state_dict()[name].view(-1)[1] = value
    save_weights(broken, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=rf"w\.safetensors: NaN or infinite weights in {name}$"):
        load_weights(model(), tmp_path / "w.safetensors")


def test_a_whole_model_is_refused_with_what_to_do(tmp_path: Path) -> None:
    torch.save(model(), tmp_path / "w.pt")
    advice = r"asks to import .*Sequential.*could run code.*torch\.save\(model\.state_dict\(\), path\)"
    with pytest.raises(ModelError, match=advice):
        load_weights(model(), tmp_path / "w.pt")


def test_no_code_is_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "executed",)  # type: ignore[return-value]

    torch.save({"state_dict": Evil()}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="could run code"):
        load_weights(model(), tmp_path / "w.pt")
    assert not (tmp_path / "executed").exists()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:'torch.load' received")
def test_torchscript_is_refused(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "w.pt"))
    with pytest.raises(ModelError, match=r"a TorchScript program.*torch\.jit\.load\(path\)\.state_dict"):
        load_weights(model(), tmp_path / "w.pt")


def test_a_pointer_of_git_lfs_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    with pytest.raises(ModelError, match="git lfs pull"):
        load_weights(model(), tmp_path / "w.pt")


def oversized_header() -> bytes:
    header = json.dumps({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}).encode()
    return struct.pack("<Q", len(header)) + header


# The last record of a ZIP archive, whose directory is not where it says.
DAMAGED_END = b"torn" * 9 + b"PK\x05\x06" + b"\xff" * 16 + b"\0\0"


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"PK\x03\x04 torn zip", DAMAGED_END, oversized_header()]
)
def test_damaged_files(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=rf"w\{suffix}: (not a readable|holds something else)"):
        load_weights(model(), path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_truncated_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    if suffix == ".pt":
        torch.save(model().state_dict(), path)
    else:
        save_weights(model(), path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ModelError, match="not a readable"):
        load_weights(model(), path)


def test_missing_file_and_unknown_suffix(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        load_weights(model(), tmp_path / "gone.pt")
    (tmp_path / "folder.pt").mkdir()
    with pytest.raises(ModelError, match=r"folder\.pt: not a file"):
        load_weights(model(), tmp_path / "folder.pt")
    with pytest.raises(ModelError, match=r"Allowed: \.safetensors, \.pt, \.pth, \.ckpt"):
        load_weights(model(), tmp_path / "w.onnx")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "no state dict in it, but a list"),
        ({}, "no state dict in it, but an empty dict"),
        ({"w": torch.zeros(1), "epoch": 3}, r"something else than tensors in it: epoch \(int\)"),
        (torch.zeros(3), "but a Tensor"),
        ({"epoch": 3, "weights": {}}, "a dict whose epoch, weights hold no tensors"),
    ],
)
def test_checkpoints_without_a_state_dict(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=message):
        load_weights(model(), tmp_path / "w.pt")


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(model(0), path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"w\.safetensors: cannot be written \(No space left"):
        save_weights(model(1), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_parameter_digest_covers_names_dtypes_shapes_and_values() -> None:
    def holder(name: str, tensor: Tensor) -> nn.Module:
        module = nn.Module()
        module.register_buffer(name, tensor)
        return module

    digests = {
        parameter_digest(holder(name, tensor))
        for name, tensor in (
            ("a", torch.zeros(4)),
            ("b", torch.zeros(4)),
            ("a", torch.zeros(2, 2)),
            ("a", torch.zeros(4, dtype=torch.int32)),
            ("a", torch.zeros(4, dtype=torch.bfloat16)),
            ("a", torch.tensor([0.0, 0.0, 0.0, 1e-45])),
            ("a", torch.tensor(0.0)),
        )
    }
    assert len(digests) == 7
    assert all(len(digest) == 64 for digest in digests)


def test_parameter_digest_is_of_the_values_not_the_memory_layout() -> None:
    first = model()
    second = model().to(memory_format=torch.channels_last)
    assert parameter_digest(first) == parameter_digest(second)


def test_parameter_digest_is_stable() -> None:
    linear = nn.Linear(2, 1)
    nn.init.constant_(linear.weight, 0.5)
    nn.init.zeros_(linear.bias)
    assert parameter_digest(linear) == "948c300be821e9ef996a0ff2bc88dcfe3ed1581cb26c62704afe7fabda6907b6"

"""The inductor runtime: what it refuses, what it compiles, what a package needs and leaves."""

import re
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.export import Dim, ExportedProgram

from quant_explorer.core.contracts import Candidate
from quant_explorer.core.errors import BuildError, UnsupportedError
from quant_explorer.core.quantspec import Activations, Granularity, Observer, QuantSpec
from quant_explorer.runtimes.inductor import lowering as inductor_lowering
from quant_explorer.runtimes.inductor import saturation as inductor_saturation
from quant_explorer.runtimes.inductor.runtime import PACKAGE_FILE, Inductor
from quant_explorer.runtimes.torch_graph import pt2e
from quant_explorer.testing.lowered import SPECS, LoweredCandidate
from quant_explorer.testing.reference import differences, float_logits
from quant_explorer.testing.toys import (
    TOY_CONVOLUTION_MACS,
    TOY_LINEAR_MACS,
    TOY_SHAPE,
    toy_batches,
    toy_model,
)
from quant_explorer.testing.zoo import ZOO
from tests.kept_objects import kept_objects

REASON = Inductor().unavailable()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

STATIC = "static_int8_per_channel"
Lower = Callable[[str, str], LoweredCandidate]
OPEN = """
import os, pathlib, signal, sys
from quant_explorer.runtimes.inductor.runtime import Inductor
runtime = Inductor()
runtime.load_libraries(1)
session = runtime.open(pathlib.Path(sys.argv[1]))
import numpy
"""
REFUSED = f"""{OPEN}
for path in sys.argv[2:]:
    try:
        session.run(numpy.load(path))
    except RuntimeError as error:
        print("refused:", error)
"""
WORKER = f"""{OPEN}
session.run(numpy.zeros((1, *{TOY_SHAPE}), numpy.float32))
for name in ("torch._inductor", "torch._dynamo", "torchao", "torchvision"):
    assert name not in sys.modules, name
print("done", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module", autouse=True)
def keep_objects(shared_folder: Path) -> Iterator[None]:
    with kept_objects(shared_folder):
        yield


def graph_of(spec: QuantSpec, model: torch.nn.Module | None = None) -> torch.fx.GraphModule:
    """What is given to the compiler: quantization as operators of the graph."""
    program, _ = inductor_lowering.prepare(Candidate(model or toy_model(), spec), toy_batches())
    return pt2e.graph_of(program)


def quantized(graph: torch.fx.GraphModule) -> list[str]:
    """The operators whose weights are quantized, in order."""
    return [
        str(node.target)
        for node in graph.graph.nodes
        if any("dequantize_per_channel" in str(source.target) for source in node.all_input_nodes)
        and "dequantize" not in str(node.target)
    ]


class TestUnsupported:
    @pytest.mark.parametrize(
        ("machine", "supported", "refused"),
        [("x86_64", "per_channel", "per_tensor"), ("aarch64", "per_tensor", "per_channel")],
    )
    @pytest.mark.parametrize("activations", ["static", "dynamic"])
    def test_granularity_is_that_of_the_kernels(
        self,
        activations: Activations,
        machine: str,
        supported: Granularity,
        refused: Granularity,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("platform.machine", lambda: machine)
        model = toy_model()
        assert Inductor().unsupported(Candidate(model, QuantSpec("int8", activations, supported))) is None
        found = Inductor().unsupported(Candidate(model, QuantSpec("int8", activations, refused)))
        assert found is not None
        assert machine in found
        # The dynamic configuration has one granularity.
        choice = f"a {supported} configuration" if activations == "static" else f"static_int8_{supported}"
        assert found.endswith(f"choose {choice}")

    def test_other_machines_have_no_quantizer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("platform.machine", lambda: "riscv64")
        assert "riscv64" in str(Inductor().unsupported(Candidate(toy_model(), SPECS[STATIC])))
        assert Inductor().unsupported(Candidate(toy_model(), SPECS["fp32"])) is None

    def test_half_precision_is_of_the_whole_model(self) -> None:
        candidate = Candidate(toy_model(), QuantSpec("bf16", float_layers=("9",)))
        assert "no layer can be left in float" in str(Inductor().unsupported(candidate))

    @pytest.mark.parametrize(("channels", "named"), [(1, True), (2, False)])
    def test_three_dimensions_of_one_channel_are_refused(self, channels: int, named: bool) -> None:
        model = torch.nn.Sequential(torch.nn.Conv3d(channels, 2, 3))
        assert (
            "one input channel (0)" in str(Inductor().unsupported(Candidate(model, SPECS["fp32"])))
        ) == named

    def test_portable_code_is_for_x86_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("platform.machine", lambda: "aarch64")
        candidate = Candidate(toy_model(), QuantSpec(target="portable"))
        assert "choose the native target" in str(Inductor().unsupported(candidate))

    def test_a_missing_compiler_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CXX", "no-such-g++")
        assert "'no-such-g++'" in str(Inductor().unavailable())


def test_versions_name_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another compiler makes another library of the same model."""
    assert re.fullmatch(r"\S+ \d+(\.\d+)*", Inductor().versions()["c++"])
    monkeypatch.setenv("CXX", "no-such-g++")
    assert Inductor().versions()["c++"] == "no-such-g++ none"


class TestGraph:
    """Before the compiler, which takes seconds."""

    def test_a_float_model_is_exported_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        exported: list[torch.nn.Module] = []
        export = torch.export.export

        def count(
            model: torch.nn.Module,
            example: tuple[torch.Tensor, ...],
            *,
            dynamic_shapes: tuple[dict[int, Dim]],
        ) -> ExportedProgram:
            exported.append(model)
            return export(model, example, dynamic_shapes=dynamic_shapes)

        monkeypatch.setattr(torch.export, "export", count)
        model = toy_model()
        for spec in ("fp32", STATIC, "dynamic_int8"):
            graph_of(SPECS[spec], model)
        assert [module is model for module in exported] == [True, False, False]

    @pytest.mark.parametrize(
        ("spec", "expected"),
        [
            (SPECS[STATIC], ["conv2d", "conv2d", "linear"]),
            (SPECS["dynamic_int8"], ["linear"]),
            (QuantSpec("int8", "static", float_layers=("0",)), ["conv2d", "linear"]),
            (QuantSpec("int8", "static", float_layers=("4", "9")), ["conv2d"]),
            (QuantSpec("int8", "dynamic", float_layers=("9",)), []),
        ],
    )
    def test_layers_are_those_of_the_spec(self, spec: QuantSpec, expected: list[str]) -> None:
        assert quantized(graph_of(spec)) == [f"aten.{name}.default" for name in expected]

    def test_observers_are_those_of_the_spec(self) -> None:
        """Minimum and maximum of noise cover all of it; the histogram's least squared error clips some."""
        steps = {}
        for observer in get_args(Observer):
            graph = graph_of(QuantSpec("int8", "static", observer=observer))
            first = next(node for node in graph.graph.nodes if "quantize_per_tensor" in str(node.target))
            steps[observer] = float(first.args[1])
        images = np.concatenate(toy_batches())
        levels = 127 if inductor_saturation.saturates() else 255
        assert steps["minmax"] == pytest.approx(float(images.max() - images.min()) / levels, rel=1e-5)
        assert steps["histogram"] < steps["minmax"]


@pytest.mark.slow
class TestPackage:
    def test_computes_what_the_quantized_graph_says(self, lowered: Lower) -> None:
        """The graph simulates INT8 in float: kernels differ where a sum lies on the edge of two steps."""
        (images,) = toy_batches(count=1, seed=5, size=32)
        with torch.no_grad():
            simulated = graph_of(SPECS[STATIC])(torch.from_numpy(images)).numpy()
        error = Inductor().open(lowered("inductor", STATIC).folder).run(images) - simulated
        assert 10 * np.log10((simulated**2).sum() / (error**2).sum()) > 40

    def test_int8_that_ran_in_float_is_seen(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without freezing, the quantized weights are arguments and no INT8 kernel is chosen."""
        monkeypatch.setitem(inductor_lowering.SETTINGS, "freezing", False)
        Inductor().lower(Candidate(toy_model(), SPECS[STATIC]), toy_batches(), tmp_path)
        executed = Inductor().open(tmp_path).executed(toy_batches()[0])
        assert executed.macs == {"fp32": TOY_CONVOLUTION_MACS + TOY_LINEAR_MACS}

    def test_a_convolution_of_one_channel_is_left_in_float(self, tmp_path: Path) -> None:
        """In INT8 the compiled package computed something else (7 dB), for grey images."""
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3), torch.nn.Flatten()
        ).eval()
        batches = toy_batches((1, 8, 8))
        lowering = Inductor().lower(Candidate(model, SPECS[STATIC]), batches, tmp_path)
        assert [note for note in lowering.notes if note.startswith("0 stays in float: ")]
        session = Inductor().open(tmp_path)
        error = session.run(batches[0]) - (expected := float_logits(model, batches[0]))
        assert 10 * np.log10((expected**2).sum() / (error**2).sum()) > 25
        assert session.executed(batches[0]).macs == {"fp32": 8 * 64 * 9, "int8": 4 * 36 * 8 * 9}

    def test_sizes_of_the_model_do_not_fix_the_number_of_images(self, tmp_path: Path) -> None:
        """Sixteen tokens: Inductor compares their number with that of the example's images."""
        specimen = ZOO["root_mean_square_norm"]
        model, images = specimen.model(), specimen.images(3, seed=1)
        Inductor().lower(Candidate(model, SPECS["fp32"]), (images,), tmp_path)
        session = Inductor().open(tmp_path)
        for batch in (images, images[:1]):
            np.testing.assert_allclose(session.run(batch), float_logits(model, batch), atol=1e-5)

    def test_a_number_of_images_that_the_compiler_fixes_is_refused(self, tmp_path: Path) -> None:
        """The package would return as many rows for any other number."""
        specimen = ZOO["generated_filters"]
        with pytest.raises(UnsupportedError, match=r"for \d+ images only .*: conv2d of layer '1'\)"):
            Inductor().lower(Candidate(specimen.model(), SPECS["fp32"]), [specimen.images(8)], tmp_path)

    def test_other_images_are_refused(self, lowered: Lower, tmp_path: Path) -> None:
        """Generated code would read beyond them. In a process of its own: the check is set when it starts."""
        others: tuple[NDArray[np.floating], ...] = (
            np.zeros((1, 3, 15, 16), np.float32),
            np.zeros((1, 4, 16, 16), np.float32),
            np.zeros((1, *TOY_SHAPE), np.float64),
            np.asfortranarray(np.zeros((2, *TOY_SHAPE), np.float32)),
        )
        paths = [tmp_path / f"{number}.npy" for number in range(len(others))]
        for path, images in zip(paths, others, strict=True):
            np.save(path, images)
        done = subprocess.run(
            [sys.executable, "-c", REFUSED, str(lowered("inductor", STATIC).folder), *map(str, paths)],
            check=True,
            capture_output=True,
            text=True,
        )
        assert done.stdout.count("refused: input_handles[0]") == len(others)

    def test_a_worker_imports_no_compiler_and_leaves_no_files(self, lowered: Lower, tmp_path: Path) -> None:
        candidate = lowered("inductor", STATIC)
        done = subprocess.run(
            [sys.executable, "-c", WORKER, str(candidate.folder)],
            capture_output=True,
            text=True,
            check=False,
            env={"TMPDIR": str(tmp_path), "PATH": ""},
        )
        assert done.stdout == "done\n", done.stderr
        assert list(tmp_path.iterdir()) == []

    def test_threads_are_not_those_of_the_build(self, lowered: Lower, shared_folder: Path) -> None:
        lowered("inductor", STATIC)
        sources = [path.read_text() for path in (shared_folder / "objects").glob("*.cpp")]
        assert any("#pragma omp parallel\n" in source for source in sources)
        assert not any("num_threads(" in source for source in sources)

    def test_one_file_without_sources(self, lowered: Lower) -> None:
        folder = lowered("inductor", STATIC).folder
        assert [path.name for path in folder.iterdir()] == [PACKAGE_FILE]
        with zipfile.ZipFile(folder / PACKAGE_FILE) as package:
            suffixes = Counter(Path(name).suffix for name in package.namelist())
        assert suffixes[".so"] == 1
        assert suffixes[".cpp"] == 0


def test_what_the_compiler_refuses_is_a_build_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(inductor_lowering.SETTINGS, "cpp.march", "no-such-cpu")
    model = toy_model()
    with pytest.raises(BuildError, match=r"cannot compile.*no-such-cpu"):
        Inductor().lower(Candidate(model, SPECS["fp32"]), toy_batches(), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert differences(toy_model(), model) == []

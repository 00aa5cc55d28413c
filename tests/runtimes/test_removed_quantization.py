"""What works with a PyTorch that has removed `torch.ao.quantization` and `torch.ao.nn`.

Each test is a fresh process. PyTorch 2.14 and torchvision import both packages for themselves, so they are
imported first, and everything is made unimportable behind them. torchao's PT2E, Inductor and ExecuTorch of
today also import parts of them when they quantize: with these, only imports from `quant_explorer` are
refused, which shows that what is ours needs nothing of it. What theirs needs is theirs to replace.
"""

import itertools
import subprocess
import sys

import pytest
import torch

_NAMES = """
import sys

GONE = ("torch.ao.quantization", "torch.ao.nn")
"""

# `torch.jit.trace` of PyTorch 2.14 asks for this one class.
_REMOVE_FOR_ALL = """
import types
from importlib.abc import MetaPathFinder

import torch
import torchvision

class Removed(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.startswith(GONE):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

wrapper = torch.ao.quantization.QuantWrapper
for name in [name for name in sys.modules if name.startswith(GONE)]:
    del sys.modules[name]
sys.meta_path.insert(0, Removed())
torch.ao.quantization = types.SimpleNamespace(QuantWrapper=wrapper)
del torch.ao.nn
"""

_REMOVE_FOR_US = """
import builtins

import_module = builtins.__import__

def refuse(name, globals=None, locals=None, fromlist=(), level=0):
    if (globals or {}).get("__name__", "").startswith("quant_explorer"):
        for full in (name, *(f"{name}.{item}" for item in fromlist or ())):
            if full.startswith(GONE):
                raise ModuleNotFoundError(f"No module named {full!r}", name=full)
    return import_module(name, globals, locals, fromlist, level)

builtins.__import__ = refuse
"""

_LOWER = """
import tempfile
from pathlib import Path

import numpy as np

from quant_explorer.core.contracts import Candidate
from quant_explorer.core.quantspec import QuantSpec
from quant_explorer.runtimes import RUNTIMES
from quant_explorer.testing.reference import float_logits
from quant_explorer.testing.toys import toy_batches, toy_model

STATIC = QuantSpec("int8", "static")
BATCHES, MODEL = toy_batches(), toy_model()
EXPECTED = float_logits(MODEL, BATCHES[0])

RUNTIMES["eager"]().load_libraries(1)

def report(name, spec, model=MODEL, expected=EXPECTED):
    runtime = RUNTIMES[name]()
    missing = runtime.unavailable()
    reason = missing or runtime.unsupported(Candidate(model, spec))
    if reason:
        print(name, spec.precision, "missing" if missing else "refused", reason)
        return
    with tempfile.TemporaryDirectory() as folder:
        lowering = runtime.lower(Candidate(model, spec), BATCHES, Path(folder))
        session = RUNTIMES[name](**dict(lowering.options)).open(Path(folder))
        error = np.abs(session.run(BATCHES[0]) - expected).max() / np.abs(expected).max()
        executed = session.executed(BATCHES[0]).macs
    right = error < (0.1 if spec.precision == "int8" else 0.02) and spec.precision in executed
    print(name, spec.precision, "right" if right else f"wrong {error} {executed}")
"""


def run(*parts: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", "\n".join((_NAMES, *parts))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_what_needs_no_torch_ao_works_without() -> None:
    """FP32 and half precision everywhere, INT8 where the vendor quantizes, and the rest with the reason."""
    lines = run(
        _REMOVE_FOR_ALL,
        _LOWER,
        """
import quant_explorer.api, quant_explorer.cli.app
import quant_explorer.pipeline.worker.process, quant_explorer.techniques
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.pipeline.doctor.diagnosis import examine
from quant_explorer.techniques.qat import QuantizationAwareTraining

for name in ("eager", "torchscript", "onnxruntime", "openvino"):
    report(name, QuantSpec())
    report(name, STATIC)
for name in ("eager", "torchscript"):
    report(name, QuantSpec("bf16"))
print("engines", *(fact.why for fact in examine(RUNTIMES) if fact.what == "quantized engines"))
try:
    quant_explorer.api.to_int8(MODEL, [torch.from_numpy(BATCHES[0])])
except UnsupportedError as error:
    print("to_int8", error)
""",
    )
    reason = (
        f"PyTorch {torch.__version__} has no torch.ao.quantization, with which eager and torchscript compute "
        "in INT8; use inductor, onnxruntime, openvino or executorch for INT8, or PyTorch 2.14"
    )
    for expected in (
        *("eager fp32 right", "torchscript fp32 right"),
        *(f"eager int8 refused {reason}", f"torchscript int8 refused {reason}"),
        *(f"engines {reason}", f"to_int8 {reason}"),
    ):
        assert expected in lines
    for name in ("onnxruntime", "openvino"):
        for precision in ("fp32", "int8"):
            (line,) = (line for line in lines if line.startswith(f"{name} {precision} "))
            assert line.split()[2] in ("right", "missing"), line
    for name in ("eager", "torchscript"):
        (line,) = (line for line in lines if line.startswith(f"{name} bf16 "))
        assert line.endswith("right") or "PyTorch has no bf16 kernels for this CPU" in line


@pytest.mark.slow
def test_what_torchao_quantizes_needs_nothing_of_it_from_us() -> None:
    """Of Inductor the programs that it would compile, which takes long and is PyTorch's own."""
    pytest.importorskip("torchao")
    lines = run(
        _REMOVE_FOR_US,
        _LOWER,
        """
from quant_explorer.core.contracts import Workbench
from quant_explorer.techniques.qat import QuantizationAwareTraining
from quant_explorer.testing.toys import ToyTraining

report("eager", STATIC)
report("executorch", QuantSpec())
report("executorch", STATIC)
for spec in (QuantSpec(), STATIC):
    if RUNTIMES["inductor"]().unavailable():
        print("inductor", spec.precision, "missing")
    else:
        from quant_explorer.runtimes.inductor import lowering as inductor_lowering

        program, _ = inductor_lowering.prepare(Candidate(MODEL, spec), BATCHES)
        error = np.abs(float_logits(program.module(), BATCHES[0]) - EXPECTED).max() / np.abs(EXPECTED).max()
        print("inductor", spec.precision, "right" if error < 0.1 else f"wrong {error}")
training = ToyTraining(BATCHES)
candidate = Candidate(MODEL, STATIC)
technique = QuantizationAwareTraining(learning_rate=0.1)
assert technique.unsupported(candidate) is None
trained = technique.apply(candidate, Workbench(BATCHES, training))
print(*trained.notes)
simulated = float_logits(training.calls[0].model, BATCHES[0])
report("onnxruntime", STATIC, trained.model, simulated)
""",
    )
    assert lines[0].startswith("eager int8 refused PyTorch ")
    outcomes = [line.split()[:3] for line in lines]
    for name, precision in itertools.product(("executorch", "inductor"), ("fp32", "int8")):
        assert [name, precision, "right"] in outcomes or [name, precision, "missing"] in outcomes
    assert ["onnxruntime", "int8", "right"] in outcomes or ["onnxruntime", "int8", "missing"] in outcomes
    reason = "this PyTorch has no torch.ao.quantization"
    assert f"fine-tuned with the fake quantization of torchao's PT2E, for {reason}" in lines

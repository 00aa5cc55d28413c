"""Runtimes: each lowers a float model and a QuantSpec to files, and opens such files as a Session.

One file each. A runtime imports its libraries inside its methods, so that a missing one is a reason
that a person can read, and so that a worker imports no runtime but its own.
"""

from quant_explorer.core.contracts import Runtime
from quant_explorer.core.registry import Registry
from quant_explorer.runtimes.eager import Eager
from quant_explorer.runtimes.executorch import ExecuTorch
from quant_explorer.runtimes.inductor import Inductor
from quant_explorer.runtimes.onnxruntime import OnnxRuntime
from quant_explorer.runtimes.openvino import OpenVino
from quant_explorer.runtimes.torchscript import TorchScript

RUNTIMES: Registry[type[Runtime]] = Registry(
    "runtime",
    {
        runtime.name: runtime
        for runtime in (
            Eager,
            TorchScript,
            Inductor,
            OnnxRuntime,
            OpenVino,
            ExecuTorch,
        )
    },
)

"""Runtimes: each lowers a float model and a QuantSpec to files, and opens such files as a Session.

One file each. A runtime imports its libraries inside its methods, so that a missing one is a reason
that a person can read, and so that a worker imports no runtime but its own.
"""

from quant_explorer.core.contracts import Runtime
from quant_explorer.core.registry import Registry
from quant_explorer.runtimes.eager.runtime import Eager
from quant_explorer.runtimes.executorch.runtime import ExecuTorch
from quant_explorer.runtimes.inductor.runtime import Inductor
from quant_explorer.runtimes.onnxruntime.runtime import OnnxRuntime
from quant_explorer.runtimes.openvino.runtime import OpenVino
from quant_explorer.runtimes.torchscript.runtime import TorchScript

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

"""Environment variables that hide instruction sets of this CPU from the libraries that have some.

oneDNN (in PyTorch and in OpenVINO) reads ONEDNN_MAX_CPU_ISA, FBGEMM its own variable, PyTorch's kernels and
Inductor ATEN_CPU_CAPABILITY. ONNX Runtime and XNNPACK have none.
Source: oneDNN, "CPU Dispatcher Control", https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from quant_explorer.machine.cpu import instruction_sets

_ONEDNN, _FBGEMM, _ATEN = "ONEDNN_MAX_CPU_ISA", "FBGEMM_ENABLE_INSTRUCTIONS", "ATEN_CPU_CAPABILITY"
VNNI = ("avx512_vnni", "avx_vnni")


@dataclass(frozen=True)
class Restriction:
    """What a CPU may have at most.

    `hidden` are instruction sets as `machine/cpu.py` names them, `settings` pairs of a variable and
    its value.
    """

    name: str
    hidden: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]

    def explain_no_effect(self) -> str | None:
        """Return why the restriction hides nothing of this CPU, or None."""
        if set(self.hidden) & set(instruction_sets()):
            return None
        return f"this CPU has none of {', '.join(self.hidden)}, which {self.name} leaves out"

    def environment(self) -> dict[str, str]:
        """Return the variables of a process that is restricted like this, and in no other way."""
        inherited = {name: value for name, value in os.environ.items() if name not in _VARIABLES}
        return inherited | dict(self.settings)


_VARIABLES = (_ONEDNN, "DNNL_MAX_CPU_ISA", _FBGEMM, _ATEN)
UNRESTRICTED = Restriction("the whole CPU", (), ())
RESTRICTIONS = (
    Restriction("AVX2", ("avx512f", *VNNI), ((_ONEDNN, "AVX2"), (_FBGEMM, "AVX2"), (_ATEN, "avx2"))),
    Restriction(
        "AVX-512 without VNNI",
        ("avx512_vnni",),
        ((_ONEDNN, "AVX512_CORE"), (_FBGEMM, "AVX512"), (_ATEN, "avx512")),
    ),
)

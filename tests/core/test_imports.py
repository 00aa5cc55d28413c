from __future__ import annotations

import pkgutil
import subprocess
import sys

import quant_explorer.core

HEAVY = ("torch", "torchvision", "scipy", "moocore", "matplotlib", "onnxruntime")


def test_core_is_importable_without_torch_and_at_once() -> None:
    """A fresh interpreter imports every module of core; none pulls in what takes seconds."""
    modules = [
        f"quant_explorer.core.{module.name}" for module in pkgutil.iter_modules(quant_explorer.core.__path__)
    ]
    assert "quant_explorer.stats.intervals" in modules
    program = f"import sys, {', '.join(modules)}; print(*(set({HEAVY}) & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []

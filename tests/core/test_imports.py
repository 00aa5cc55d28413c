from __future__ import annotations

import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest

import quant_explorer.core
import quant_explorer.stats

HEAVY = ("torch", "torchvision", "scipy", "moocore", "matplotlib", "onnxruntime")


@pytest.mark.parametrize("room", [quant_explorer.core, quant_explorer.stats], ids=lambda room: room.__name__)
def test_a_room_is_importable_without_torch_and_at_once(room: ModuleType) -> None:
    """A fresh interpreter imports every module of it; none pulls in what takes seconds."""
    modules = [module.name for module in pkgutil.walk_packages(room.__path__, f"{room.__name__}.")]
    assert len(modules) > 2
    program = f"import sys, {', '.join(modules)}; print(*(set({HEAVY}) & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []

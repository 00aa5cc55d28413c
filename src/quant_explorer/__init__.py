"""quant-explorer: which compressed version of my vision model should I ship?"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quant_explorer.api import prune_channels, to_fp16, to_int8
    from quant_explorer.recorded import Study

__version__ = "0.1.0"
__all__ = ["Study", "__version__", "prune_channels", "to_fp16", "to_int8"]


def __getattr__(name: str) -> object:
    # PyTorch takes a second to import, which `quant-explorer --help` should not wait for.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "recorded" if name == "Study" else "api"
    return getattr(importlib.import_module(f"quant_explorer.{module}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""FP32 of a model that torch.fx cannot trace, as the program that torch.export makes of it.

torch.export.load("model.pt2").module()
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from quant_explorer.core.contracts import Batch
from quant_explorer.core.errors import UnsupportedError
from quant_explorer.runtimes.eager.program import MODEL_FILE, WEIGHTS_FILE
from quant_explorer.tracing.capture import capture
from quant_explorer.tracing.normal_form import check
from quant_explorer.tracing.program_file import read_program, write_program

PROGRAM_FILE = "model.pt2"


def write(model: nn.Module, folder: Path, example: Batch, untraced: UnsupportedError) -> tuple[str, ...]:
    """Write `model.pt2` and return what a reader of the report should know; `untraced` is why it has to be.

    `example` are images (n, channels, height, width). Raises UnsupportedError with both reasons when
    torch.export cannot have the model either, or its program computes something else.
    """
    for file in (MODEL_FILE, WEIGHTS_FILE):
        (folder / file).unlink(missing_ok=True)
    try:
        program = capture(model, example.shape[1:])
        check(program.module(), model, example)
    except UnsupportedError as error:
        raise UnsupportedError(f"{untraced}; nor is there a program of it: {error}") from error
    write_program(program, folder / PROGRAM_FILE)
    return (f"FP32 is the program that torch.export makes: {untraced}",)


def read(folder: Path) -> nn.Module | None:
    """Load what `write` wrote; None where there is no program."""
    path = folder / PROGRAM_FILE
    return read_program(path)[0].module() if path.exists() else None

"""A float model as an exported program, which torchao's PT2E quantizes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from quant_explorer.tracing.reasons import CAPTURING, explain_refusal

# PyTorch chooses the kernel of a convolution by whether there are 16 images or more (ConvParams::use_mkldnn),
# and what it concludes from fewer would be the largest batch that the program takes. A number that no other
# size is likely to have: Inductor compares sizes of operands, and fixes that of images where it is the same.
_EXAMPLE_BATCH = 43


def capture(model: nn.Module, shape: Sequence[int]) -> ExportedProgram:
    """Export `model` as it is, for any number of images (n, *shape); its weights are the model's own.

    Raises UnsupportedError when the model cannot be captured as one graph.
    """
    example = torch.zeros(_EXAMPLE_BATCH, *shape)
    with explain_refusal(*CAPTURING):
        return torch.export.export(model, (example,), dynamic_shapes=({0: Dim("batch", min=1)},))

"""Which layer makes files wrong: found by lowering again with more or fewer layers in float."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from quant_explorer.core.contracts import Candidate
from quant_explorer.tracing.onnx_program import OnnxProgram, linear_layers


def find_layer(layers: Sequence[str], passes: Callable[[Sequence[str]], bool]) -> str | None:
    """Return the last layer that must stay in float, with all before it, for the files to pass.

    `passes` says whether they do with some layers in float, which is asked about log2(n) + 1 times. None when
    they do not pass with all layers in float either.
    """
    if not passes(layers):
        return None
    failing, passing = 0, len(layers)
    while passing - failing > 1:
        middle = (failing + passing) // 2
        if passes(layers[:middle]):
            passing = middle
        else:
            failing = middle
    return layers[passing - 1]


def quantized_layers(candidate: Candidate) -> list[str]:
    """Return the qualified names of the layers that the candidate's INT8 is asked for."""
    from torch.nn.modules.conv import _ConvNd

    model, dynamic = candidate.model, candidate.spec.activations == "dynamic"
    names = set(linear_layers(model))
    if not dynamic and isinstance(model, OnnxProgram):
        names.update(model.convolutions)
    elif not dynamic:
        names.update(name for name, module in model.named_modules() if isinstance(module, _ConvNd))
    return [name for name, _ in model.named_modules() if name in names - set(candidate.spec.float_layers)]


def keep_float(candidate: Candidate, layers: Sequence[str]) -> Candidate:
    """Return the candidate with `layers` in float too."""
    spec = dataclasses.replace(candidate.spec, float_layers=(*candidate.spec.float_layers, *layers))
    return dataclasses.replace(candidate, spec=spec)

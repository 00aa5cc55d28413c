"""Functions that PyTorch's ONNX exporter refuses or exports as another, in terms of those that it knows."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_BATCHES_OF_HEADS: Final = 4
_ELLIPSIS: Final = "..."


class KnownToOnnx(TorchFunctionMode):
    """Calls what computes the same where the exporter has no operator for a function, or the wrong one."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Call `func`, or what replaces it."""
        replacement = _REPLACEMENTS.get(func, func)
        return replacement(*args, **(kwargs or {}))


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **named: object,
) -> torch.Tensor:
    """Attention of (..., tokens, width) for any number of dimensions: the exporter takes four."""
    if query.dim() == _BATCHES_OF_HEADS or dropout_p or named.get("enable_gqa"):
        return F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask,
            dropout_p,
            is_causal,
            **named,  # type: ignore[arg-type]
        )
    scale = named.get("scale")
    scores = query @ key.transpose(-2, -1) * (scale if isinstance(scale, float) else query.shape[-1] ** -0.5)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    elif attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(-1) @ value


def distances(
    first: torch.Tensor, second: torch.Tensor, p: float = 2.0, compute_mode: str | None = None
) -> torch.Tensor:
    """Distances (..., m, n) between rows of (..., m, width) and (..., n, width), as torch.cdist gives."""
    found: torch.Tensor = torch.linalg.vector_norm(first.unsqueeze(-2) - second.unsqueeze(-3), ord=p, dim=-1)
    return found


def scatter_reduce(
    values: torch.Tensor,
    dim: int,
    index: torch.Tensor,
    src: torch.Tensor,
    reduce: str,
    *,
    include_self: bool = True,
) -> torch.Tensor:
    """As PyTorch's; a mean is a sum divided by a count, of which the exporter would keep the last value."""
    if reduce != "mean":
        return torch.scatter_reduce(values, dim, index, src, reduce, include_self=include_self)
    total, count = (
        torch.scatter_reduce(start, dim, index, item, "sum", include_self=include_self)
        for start, item in ((values, src), (torch.ones_like(values), torch.ones_like(src)))
    )
    return total / count


def add_product(
    summand: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
    *,
    beta: float = 1.0,
    alpha: float = 1.0,
    out: None = None,
) -> torch.Tensor:
    """Return beta * summand + alpha * first @ second: ONNX Runtime's INT8 product knows no such factors."""
    if beta == 1 and alpha == 1:
        return torch.addmm(summand, first, second)
    return beta * summand + alpha * (first @ second)


def einsum(equation: str, *operands: torch.Tensor) -> torch.Tensor:
    """An einsum with an index for each dimension of an ellipsis, by which products are found and counted."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    written = inputs.split(",")
    lengths = {
        operand.dim() - len(indices.replace(_ELLIPSIS, ""))
        for indices, operand in zip(written, operands, strict=False)
        if _ELLIPSIS in indices
    }
    if len(lengths) == 1 and arrow:
        free = [letter for letter in string.ascii_letters if letter not in equation]
        equation = f"{inputs}->{output}".replace(_ELLIPSIS, "".join(free[: lengths.pop()]))
    return torch.einsum(equation, *operands)


_REPLACEMENTS: Final[Mapping[object, Callable[..., object]]] = {
    F.scaled_dot_product_attention: attend,
    torch.einsum: einsum,
    torch.cdist: distances,
    torch.addmm: add_product,
    torch.Tensor.addmm: add_product,
    torch.scatter_reduce: scatter_reduce,
    torch.Tensor.scatter_reduce: scatter_reduce,
}

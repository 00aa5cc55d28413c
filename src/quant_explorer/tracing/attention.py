"""Attention as the products it is made of: nn.MultiheadAttention as layers, fused kernels as formulas.

nn.MultiheadAttention as one operator stays in float, with the projections, which are most of its
multiply-accumulates.
Source: Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 3.2.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

_BATCHED = 3


def is_plain(
    layer: nn.MultiheadAttention, args: Sequence[object], kwargs: Mapping[str, object], dimensions: int
) -> bool:
    """Say whether `attend` does the same: no mask, no added keys, one width, batched tokens."""
    given = inspect.signature(layer.forward).bind(*args, **kwargs).arguments
    return (
        dimensions == _BATCHED
        and layer._qkv_same_embed_dim
        and layer.bias_k is None
        and not layer.add_zero_attn
        and given.get("key_padding_mask") is None
        and given.get("attn_mask") is None
        and not given.get("is_causal", False)
    )


def attend(
    layer: nn.MultiheadAttention,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    key_padding_mask: None = None,
    need_weights: bool = True,
    attn_mask: None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Map tokens (n, tokens, width) to (n, tokens, width), and attention weights if asked for.

    With tokens first when the layer is not `batch_first`, as nn.MultiheadAttention.
    """
    heads = layer.num_heads
    if not layer.batch_first:
        query, key, value = (tokens.transpose(0, 1) for tokens in (query, key, value))
    if layer.batch_first and query is key and key is value:
        projected = F.linear(query, layer.in_proj_weight, layer.in_proj_bias)
        queries, keys, values = projected.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    else:
        weights = layer.in_proj_weight.chunk(3)
        biases = (None,) * 3 if layer.in_proj_bias is None else layer.in_proj_bias.chunk(3)
        queries, keys, values = (
            F.linear(tokens, weight, bias).unflatten(-1, (heads, -1)).transpose(1, 2)
            for tokens, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
    mixed = F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)
    output = F.linear(mixed, layer.out_proj.weight, layer.out_proj.bias)
    if not layer.batch_first:
        output = output.transpose(0, 1)
    if not need_weights:
        return output, None
    scores = (queries @ keys.transpose(-2, -1)) * layer.head_dim**-0.5
    shares = scores.softmax(-1)
    return output, shares.mean(1) if average_attn_weights else shares


@contextmanager
def attention_as_products() -> Iterator[None]:
    """Dispatch attention as the matrix products it is made of; its fused kernels have no formula."""
    previous = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(previous)

"""Tokens that are asked, turned, sorted and merged."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from quant_explorer.testing.zoo.specimen import TOKEN_WIDTH, Specimen, TokenClassifier

_TOKENS = 16
_QUERIES = 4
_HEADS = 2


class _WithoutHeads(nn.Module):
    """Attention of tokens (n, tokens, width) as they are, with rotary positions."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(TOKEN_WIDTH, 3 * TOKEN_WIDTH)
        frequencies = 10.0 ** -torch.linspace(0, 1, TOKEN_WIDTH // 2)
        angles = torch.outer(torch.arange(float(_TOKENS)), frequencies).repeat_interleave(2, 1)
        self.cosine, self.sine = nn.Buffer(angles.cos()), nn.Buffer(angles.sin())

    def rotate(self, x: torch.Tensor) -> torch.Tensor:
        turned = torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
        return x * self.cosine + turned * self.sine

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        query, key, value = self.project(tokens).chunk(3, dim=-1)
        mixed = functional.scaled_dot_product_attention(self.rotate(query), self.rotate(key), value)
        return tokens + mixed


class _Perceptron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(TOKEN_WIDTH, 4 * TOKEN_WIDTH)
        self.narrow = nn.Linear(4 * TOKEN_WIDTH, TOKEN_WIDTH)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.narrow(functional.relu(self.hidden(tokens)))
        return result


class _Queries(nn.Module):
    """Learned tokens ask the others; tokens come first, then images."""

    def __init__(self) -> None:
        super().__init__()
        # Few, because runtimes compute their part once.
        self.queries = nn.Parameter(torch.randn(_QUERIES, 1, TOKEN_WIDTH))
        self.attention = nn.MultiheadAttention(TOKEN_WIDTH, _HEADS)
        self.perceptron = _Perceptron()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        first = tokens.transpose(0, 1)
        asked = self.attention(self.queries.expand(-1, first.shape[1], -1), first, first)[0]
        mixed = asked.transpose(0, 1).repeat(1, _TOKENS // _QUERIES, 1) + tokens
        result: torch.Tensor = mixed + self.perceptron(mixed)
        return result


class _Merged(nn.Module):
    """Every second token becomes the mean of itself and of some others, as in ToMe."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(TOKEN_WIDTH, TOKEN_WIDTH)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        source, target = tokens[:, ::2], self.hidden(tokens[:, 1::2])
        place = torch.arange(_TOKENS // 2).div(2, rounding_mode="floor")[None, :, None].expand_as(source)
        merged = target.scatter_reduce(1, place, source, "mean")
        return torch.cat([functional.relu(merged), source], 1)


class _Sorted(nn.Module):
    """Integers that are computed from images choose tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(TOKEN_WIDTH, TOKEN_WIDTH)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        # Far apart, so that rounding alone changes no order.
        keys = tokens.mean(2) / 1000 - torch.arange(float(_TOKENS))
        order = keys.argsort(dim=1).unsqueeze(-1).expand(-1, -1, TOKEN_WIDTH)
        return torch.gather(functional.relu(self.hidden(tokens)), 1, order)


class _SharedEinsum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.25 * torch.randn(TOKEN_WIDTH, TOKEN_WIDTH))
        self.perceptron = _Perceptron()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        mixed = torch.einsum("...i,oi->...o", self.perceptron(tokens), self.weight)
        return functional.relu(mixed) + torch.einsum("bn...,nm->bm...", tokens, self.weight)


class _Norm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.norm = nn.Linear(TOKEN_WIDTH, TOKEN_WIDTH), nn.BatchNorm1d(_TOKENS)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens + functional.relu(self.norm(self.hidden(tokens)))


SPECIMENS = (
    Specimen(
        "attention_without_heads",
        "scaled_dot_product_attention of three dimensions, rotary positions",
        lambda: TokenClassifier(_WithoutHeads()),
    ),
    Specimen(
        "learned_queries",
        "a parameter asks in nn.MultiheadAttention, tokens first",
        lambda: TokenClassifier(_Queries()),
    ),
    Specimen("token_merging", "scatter_reduce by mean", lambda: TokenClassifier(_Merged())),
    Specimen("sorted_tokens", "argsort and gather", lambda: TokenClassifier(_Sorted())),
    Specimen(
        "einsum_shared",
        "a weight of two einsums with an ellipsis, along either axis",
        lambda: TokenClassifier(_SharedEinsum()),
    ),
    Specimen(
        "batch_norm_tokens",
        "BatchNorm1d whose channels are tokens, behind a linear layer",
        lambda: TokenClassifier(_Norm()),
    ),
)

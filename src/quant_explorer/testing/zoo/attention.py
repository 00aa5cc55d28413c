"""Attention: products of activations, masks and what stands around them in vision transformers."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from quant_explorer.testing.zoo.specimen import (
    CLASSES,
    TOKEN_WIDTH,
    Specimen,
    TokenClassifier,
    classifier,
    enliven,
)

TOKENS = 16
HEADS = 2
# What Hugging Face's models add where a token must not be seen: the most negative float32.
MASKED = torch.finfo(torch.float32).min


class _Attention(nn.Module):
    """Query, key and value by one linear layer, the products written out, `masked` behind the diagonal."""

    def __init__(self, masked: float | None = None, *, fill: bool = False) -> None:
        super().__init__()
        self.qkv = nn.Linear(TOKEN_WIDTH, 3 * TOKEN_WIDTH)
        self.out = nn.Linear(TOKEN_WIDTH, TOKEN_WIDTH)
        self.fill = fill
        later = torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(1)
        self.register_buffer("later", later, persistent=False)
        mask = None if masked is None else torch.zeros(TOKENS, TOKENS).masked_fill(later, masked)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, tokens, width = x.shape
        qkv = self.qkv(x).reshape(n, tokens, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        query, key, value = qkv[0], qkv[1], qkv[2]
        scores = (2 * query @ key.transpose(-2, -1)) / math.sqrt(width // HEADS)
        if self.mask is not None:
            scores = scores + self.mask
        if self.fill:
            scores = scores.masked_fill(self.later, -math.inf)
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(n, tokens, width)
        result: torch.Tensor = x + self.out(mixed)
        return result


class _ScaledDotProduct(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(TOKEN_WIDTH, TOKEN_WIDTH)
        self.key = nn.Linear(TOKEN_WIDTH, TOKEN_WIDTH)
        self.value = nn.Linear(TOKEN_WIDTH, TOKEN_WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            layer(x).unflatten(2, (HEADS, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return x + mixed.transpose(1, 2).flatten(2)


class _MultiHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(TOKEN_WIDTH)
        self.attention = nn.MultiheadAttention(TOKEN_WIDTH, HEADS, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        mixed, _ = self.attention(y, y, y, need_weights=False)
        result: torch.Tensor = x + mixed
        return result


class _Windows(nn.Module):
    """Swin's shifted windows of 2x2 with a mask of -100 and a bias by relative position."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.out = nn.Linear(8, 8)
        self.bias_table = nn.Parameter(0.5 * torch.randn(9, HEADS))
        rows = torch.arange(4) // 2
        columns = torch.arange(4) % 2
        index = (rows[:, None] - rows + 1) * 3 + columns[:, None] - columns + 1
        self.index: torch.Tensor
        self.register_buffer("index", index.flatten(), persistent=False)
        regions = torch.zeros(8, 8)
        regions[-1:, :] += 1
        regions[:, -1:] += 2
        cut = regions.view(4, 2, 4, 2).permute(0, 2, 1, 3).reshape(16, 4)
        mask = torch.where(cut[:, None, :] == cut[:, :, None], 0.0, -100.0)
        self.register_buffer("mask", mask[None, :, None], persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shifted = torch.roll(x.permute(0, 2, 3, 1), (-1, -1), (1, 2))
        n = shifted.shape[0]
        windows = shifted.reshape(n, 4, 2, 4, 2, 8).permute(0, 1, 3, 2, 4, 5).reshape(n * 16, 4, 8)
        query, key, value = self.qkv(windows).unflatten(2, (3, HEADS, 4)).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.bias_table[self.index].view(4, 4, HEADS).permute(2, 0, 1)
        scores = 0.5 * query @ key.transpose(-2, -1) + bias
        scores = (scores.view(n, 16, HEADS, 4, 4) + self.mask).view(n * 16, HEADS, 4, 4)
        mixed = self.out((scores.softmax(-1) @ value).transpose(1, 2).reshape(n * 16, 4, 8))
        mixed = mixed.view(n, 4, 4, 2, 2, 8).permute(0, 1, 3, 2, 4, 5).reshape(n, 8, 8, 8)
        return x + torch.roll(mixed, (1, 1), (1, 2)).permute(0, 3, 1, 2)


class _LinearAttention(nn.Module):
    """ReLU in place of softmax, so that keys meet values first (EfficientViT)."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(8, 24, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.qkv(x).flatten(2).chunk(3, dim=1)
        query, key = functional.relu(query), functional.relu(key)
        mixed = (value @ key.transpose(1, 2)) @ query
        norm = key.sum(-1, keepdim=True).transpose(1, 2) @ query
        result: torch.Tensor = x + (mixed / (norm + 1e-3)).view_as(x)
        return result


class _ClassToken(nn.Module):
    """A learned token in front of those of each image, as every ViT has it."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, TOKEN_WIDTH, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, TOKEN_WIDTH))
        self.positions = nn.Parameter(0.2 * torch.randn(1, TOKENS + 1, TOKEN_WIDTH))
        self.attention = _Attention()
        self.head = nn.Linear(TOKEN_WIDTH, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = self.patches(images).flatten(2).transpose(1, 2)
        token = self.token.expand(images.shape[0], -1, -1)
        tokens = torch.cat([token, patches], 1) + self.positions
        logits: torch.Tensor = self.head(self.attention(tokens)[:, 0])
        return logits


class _ChannelsThenPlaces(nn.Module):
    """CBAM's two gates: of channels by mean and maximum over places, of places by those over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1))
        self.places = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, largest = functional.adaptive_avg_pool2d(x, 1), functional.adaptive_max_pool2d(x, 1)
        x = x * torch.sigmoid(self.channels(mean) + self.channels(largest))
        maps = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
        return x * torch.sigmoid(self.places(maps))


class _Einsum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.3 * torch.randn(TOKEN_WIDTH, HEADS, TOKEN_WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = torch.einsum("ntc,chd->nthd", x, self.weight)
        return x + functional.relu(heads).mean(2)


class _EinsumAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(TOKEN_WIDTH, 3 * TOKEN_WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            self.qkv(x).reshape(x.shape[0], TOKENS, 3, HEADS, -1).permute(2, 0, 3, 1, 4).unbind(0)
        )
        scores = torch.einsum("bhid,bhjd->bhij", query, key).mul(query.shape[-1] ** -0.5)
        return torch.einsum("bhij,bhjd->bhid", scores.softmax(-1), value).transpose(1, 2).flatten(2)


SPECIMENS = (
    Specimen("einsum_attention", "attention by einsum", lambda: TokenClassifier(_EinsumAttention())),
    Specimen("attention", "attention written out as products", lambda: TokenClassifier(_Attention())),
    Specimen(
        "attention_mask_lowest",
        "a causal mask of -3.4e38 that is added",
        lambda: TokenClassifier(_Attention(MASKED)),
    ),
    Specimen(
        "attention_mask_infinite",
        "a causal mask filled with minus infinity",
        lambda: TokenClassifier(_Attention(fill=True)),
    ),
    Specimen(
        "scaled_dot_product",
        "scaled_dot_product_attention",
        lambda: TokenClassifier(_ScaledDotProduct()),
    ),
    Specimen("multihead_attention", "nn.MultiheadAttention", lambda: TokenClassifier(_MultiHead())),
    Specimen(
        "transformer_encoder",
        "nn.TransformerEncoderLayer",
        lambda: TokenClassifier(
            nn.TransformerEncoderLayer(TOKEN_WIDTH, HEADS, 32, activation="gelu", batch_first=True)
        ),
    ),
    Specimen(
        "window_attention",
        "Swin's shifted windows: roll, mask of -100, bias from a table",
        lambda: classifier(nn.Sequential(nn.MaxPool2d(2), _Windows()), size=8),
    ),
    Specimen(
        "linear_attention",
        "attention by ReLU: keys times values first",
        lambda: classifier(_LinearAttention()),
    ),
    Specimen(
        "channels_then_places",
        "CBAM: gates of channels and of places, by mean and maximum",
        lambda: classifier(_ChannelsThenPlaces()),
    ),
    Specimen("class_token", "a parameter expanded to the batch, x.shape[0]", lambda: enliven(_ClassToken())),
    Specimen("einsum", "einsum of activations and a parameter", lambda: TokenClassifier(_Einsum())),
)

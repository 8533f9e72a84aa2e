"""A transformer encoder of texts: pre-norm, with rotary positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainbus import UsageError


class Encoder(nn.Module):
    """Tokens that look at all tokens of their text (Vaswani et al., 2017).

    Args:
        size: numbers of tokens.
        width: of the vector of a token.
        layers: how many.
        heads: of the attention; the width is a multiple of theirs.
        dropout: behind attention and perceptron.
        token_dropout: the part of the tokens that is unknown in training.
    """

    def __init__(
        self, size: int, width: int = 128, layers: int = 2, heads: int = 4,
        dropout: float = 0.1, token_dropout: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        if width % (2 * heads):
            raise UsageError(f"width={width}: a multiple of 2 x {heads} heads")
        self.width, self.token_dropout = width, token_dropout
        self.embedding = nn.Embedding(size, width, padding_idx=0)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.layers = nn.ModuleList(Layer(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """N x T x width, and N x T: which are there."""
        there = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        if self.training and self.token_dropout:
            kept = torch.rand(tokens.shape, device=tokens.device) >= self.token_dropout
            tokens = tokens * kept
        vectors = self.embedding(tokens)
        # A text without tokens looks at its padding: nothing would be 0 / 0.
        seen = (there | (lengths == 0)[:, None])[:, None, None, :]
        turns = rotations(tokens.shape[1], self.width // self.layers[0].heads, tokens.device)
        for layer in self.layers:
            vectors = layer(vectors, seen, turns)
        return self.norm(vectors), there

    def groups(self) -> list[list[nn.Module]]:
        """Vectors of tokens, and each layer; the last one with the norm."""
        made: list[list[nn.Module]] = [[self.embedding], *([each] for each in self.layers)]
        made[-1].append(self.norm)
        return made


class Layer(nn.Module):
    """Attention and a perceptron, each behind a norm and added to what it was given.

    Args:
        width: of a vector.
        heads: of the attention.
        dropout: behind both.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inner, self.outer = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, vectors: Tensor, seen: Tensor, turns: Tensor) -> Tensor:
        """N x T x width."""
        n, t, width = vectors.shape
        parts = self.inner(self.first(vectors)).reshape(n, t, 3, self.heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        looked = functional.scaled_dot_product_attention(
            rotated(query, turns), rotated(key, turns), value, attn_mask=seen
        )
        vectors = vectors + self.dropout(self.outer(looked.transpose(1, 2).reshape(n, t, width)))
        return vectors + self.dropout(self.perceptron(self.second(vectors)))


def rotations(steps: int, width: int, device: torch.device, first: int = 0) -> Tensor:
    """Angles of rotary positions (Su et al., 2021): 2 x steps x width / 2, cosines and sines."""
    rates = 10_000.0 ** (-torch.arange(0, width, 2, device=device) / width)
    angles = torch.arange(first, first + steps, device=device)[:, None] * rates
    return torch.stack([angles.cos(), angles.sin()])


def rotated(vectors: Tensor, turns: Tensor) -> Tensor:
    """Vectors ... x steps x width, turned by their positions."""
    cos, sin = turns.to(vectors.dtype)
    one, two = vectors.chunk(2, -1)
    return torch.cat([one * cos - two * sin, one * sin + two * cos], -1)

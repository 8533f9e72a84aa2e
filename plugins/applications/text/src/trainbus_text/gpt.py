"""A decoder of the GPT kind in one file: RMSNorm, rotary positions, SwiGLU, n-gram vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainbus import UsageError
from trainbus_text.encoder import rotated, rotations
from trainbus_text.models import Fingerprint

#: Keys and values of the tokens so far, for each layer; and the tokens themselves.
Cache = list[tuple[Tensor, Tensor]]


class GPT(nn.Module):
    """Says which token comes next: N x T x size logits of N x T tokens (Radford et al., 2018).

    Pre-norm with RMSNorm (Zhang and Sennrich, 2019), rotary positions (Su et al., 2021), SwiGLU
    (Shazeer, 2020). Besides the vector of a token, vectors of the last 2, 3, ... tokens are added,
    by their hash (as the n-gram vectors of Pagnoni et al., 2024): what a table of counts knows is
    there from the beginning, and costs one look-up.

    Args:
        size: numbers of tokens.
        width: of the vector of a token.
        layers: how many.
        heads: of the attention.
        context: as many tokens are looked back at, at most.
        dropout: of the vectors, and behind the perceptron.
        ngrams: lengths of the n-grams that have vectors of their own; none by ().
        buckets: vectors for each length.
        ngram_width: of such a vector.
        tokens: the hash of the tokens, which weights of other tokens do not fit.
    """

    #: Its inputs are tokens, and no bytes of pictures.
    scales_bytes = True

    def __init__(
        self, size: int, width: int = 192, layers: int = 4, heads: int = 6, context: int = 256,
        dropout: float = 0.1, ngrams: Sequence[int] = (2, 3, 4, 5), buckets: int = 1 << 14,
        ngram_width: int = 64, tokens: str = "",
    ) -> None:  # fmt: skip
        super().__init__()
        if width % (2 * heads):
            raise UsageError(f"width={width}: a multiple of 2 x {heads} heads")
        #: JSON values that make an equal one.
        self.description: dict[str, Any] = {
            "size": size, "width": width, "layers": layers, "heads": heads, "context": context,
            "dropout": dropout, "ngrams": list(ngrams), "buckets": buckets,
            "ngram_width": ngram_width, "tokens": tokens,
        }  # fmt: skip
        self.size, self.context = size, context
        self.embedding = nn.Embedding(size, width)
        self.ngrams = NGramVectors(ngrams, buckets, ngram_width, width) if ngrams else None
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(Block(width, heads, dropout, layers) for _ in range(layers))
        self.norm = nn.RMSNorm(width)
        self.fingerprint = Fingerprint(tokens, size)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.register_buffer(
            "turns", rotations(context, width // heads, torch.device("cpu")), persistent=False
        )

    def forward(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        """Logits for the token behind each: N x T x size.

        Args:
            tokens: N x T; with a cache all tokens so far, of which those that the cache does not
                have are computed, and the last one is answered: N x 1 x size.
            cache: an empty list in the beginning; it is filled, in place.
        """
        known = cache[0][0].shape[2] if cache else 0
        vectors = self.embedding(tokens[:, known:])
        if self.ngrams is not None:
            vectors = vectors + self.ngrams(tokens, known)
        vectors = self.dropout(vectors)
        turns = self.turns[:, known : tokens.shape[1]]
        for number, layer in enumerate(self.layers):
            vectors = layer(vectors, turns, cache, number)
        if cache is not None:
            vectors = vectors[:, -1:]
        # The vectors of tokens are those of the answers, too (Press and Wolf, 2017).
        return functional.linear(self.norm(vectors), self.embedding.weight)

    def groups(self) -> list[list[nn.Module]]:
        """Vectors, and each layer; the last one with the norm."""
        first = [self.embedding, *([self.ngrams] if self.ngrams is not None else [])]
        made: list[list[nn.Module]] = [first, *([each] for each in self.layers)]
        made[-1].append(self.norm)
        return made


class NGramVectors(nn.Module):
    """Vectors of the last tokens together, by their hash: N x T x width.

    Args:
        lengths: of the n-grams.
        buckets: vectors for each length.
        inner: the width of such a vector.
        width: of what is given.
    """

    def __init__(self, lengths: Sequence[int], buckets: int, inner: int, width: int) -> None:
        super().__init__()
        self.lengths, self.buckets = tuple(lengths), buckets
        self.vectors = nn.ModuleList(nn.Embedding(buckets, inner) for _ in lengths)
        for each in self.vectors:
            nn.init.normal_(each.weight, std=0.02)
        self.outer = nn.Linear(inner * len(lengths), width, bias=False)

    def forward(self, tokens: Tensor, known: int = 0) -> Tensor:
        """Those of the tokens behind the first `known` ones."""
        begin = max(0, known - max(self.lengths) + 1)
        seen = tokens[:, begin:].long()
        hashes, found = seen, []
        for n in range(2, max(self.lengths) + 1):
            earlier = functional.pad(seen, (n - 1, 0))[:, : seen.shape[1]]
            hashes = (hashes * 1_000_003 + earlier + 1) % 2_147_483_647
            if n in self.lengths:
                vectors = self.vectors[self.lengths.index(n)]
                found.append(vectors(hashes[:, known - begin :] % self.buckets))
        made: Tensor = self.outer(torch.cat(found, -1))
        return made


class Block(nn.Module):
    """Attention to what came before, and a gated perceptron.

    Args:
        width: of a vector.
        heads: of the attention.
        dropout: behind the perceptron.
        layers: of the network: what is added in each is smaller, the more there are.
    """

    def __init__(self, width: int, heads: int, dropout: float, layers: int) -> None:
        super().__init__()
        self.heads, self.part = heads, dropout
        hidden = (8 * width // 3 + 31) // 32 * 32
        self.first, self.second = nn.RMSNorm(width), nn.RMSNorm(width)
        self.inner = nn.Linear(width, 3 * width, bias=False)
        self.outer = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        for each in (self.inner, self.gate):
            nn.init.normal_(each.weight, std=width**-0.5)
        for each in (self.outer, self.down):
            nn.init.normal_(each.weight, std=(2 * layers * width) ** -0.5)

    def forward(self, vectors: Tensor, turns: Tensor, cache: Cache | None, number: int) -> Tensor:
        """N x T x width."""
        n, t, width = vectors.shape
        parts = self.inner(self.first(vectors)).reshape(n, t, 3, self.heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        query, key = rotated(query, turns), rotated(key, turns)
        whole = True
        if cache is not None and number < len(cache):
            key = torch.cat([cache[number][0], key], 2)
            value = torch.cat([cache[number][1], value], 2)
            cache[number] = (key, value)
            whole = False
        elif cache is not None:
            cache.append((key, value))
        mask = None
        if not whole and t > 1:
            mask = torch.ones(t, key.shape[2], dtype=torch.bool, device=key.device).tril(
                key.shape[2] - t
            )
        looked = functional.scaled_dot_product_attention(
            query, key, value, mask, is_causal=whole and t > 1
        )
        vectors = vectors + self.outer(looked.transpose(1, 2).reshape(n, t, width))
        gate, up = self.gate(self.second(vectors)).chunk(2, -1)
        made = self.down(functional.silu(gate) * up)
        return vectors + functional.dropout(made, self.part, self.training)


def rebuild(**description: Any) -> nn.Module:
    """The network that a description tells of, with weights of chance."""
    from trainbus_text.lstm_model import LanguageLSTM

    if description.pop("kind", "gpt") == "lstm":
        return LanguageLSTM(**description)
    return GPT(**description)

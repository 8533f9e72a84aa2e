"""AWD-LSTM: an LSTM with dropout of weights, of whole words and of layers (Merity et al., 2017)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class AWDLSTM(nn.Module):
    """Vectors of tokens, and layers of LSTM that read them from left to right.

    Args:
        size: numbers of tokens.
        width: of the vector of a token, and of what the last layer gives.
        hidden: of the layers between.
        layers: how many.
        dropout: a factor of all of them (0.7 of those of Howard and Ruder, 2018, by default).
    """

    def __init__(
        self, size: int, width: int = 200, hidden: int = 400, layers: int = 2, dropout: float = 0.7
    ) -> None:
        super().__init__()
        self.width = width
        self.embedding = nn.Embedding(size, width, padding_idx=0)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        self.word_dropout, self.input_dropout = 0.02 * dropout, 0.25 * dropout
        self.layer_dropout, self.weight_dropout = 0.15 * dropout, 0.2 * dropout
        sizes = [width, *[hidden] * (layers - 1), width]
        self.layers = nn.ModuleList(
            nn.LSTM(before, after, batch_first=True) for before, after in pairwise(sizes)
        )

    def forward(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """N x T x width, and N x T: which are there."""
        there = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        vectors, _ = self.run(tokens, lengths)
        return vectors, there

    def run(
        self, tokens: Tensor, lengths: Tensor | None = None, states: list[Any] | None = None
    ) -> tuple[Tensor, list[Any]]:
        """N x T x width, and the state behind the last token of each layer.

        Args:
            tokens: N x T.
            lengths: of texts of unlike length; without it all have T.
            states: of each layer in the beginning.
        """
        vectors = self._embedded(tokens)
        vectors = _locked(vectors, self.input_dropout, self.training)
        found = []
        for number, layer in enumerate(self.layers):
            state = None if states is None else states[number]
            vectors, state = self._layer(layer, vectors, lengths, state)
            found.append(state)
            if number < len(self.layers) - 1:
                vectors = _locked(vectors, self.layer_dropout, self.training)
        return vectors, found

    def _embedded(self, tokens: Tensor) -> Tensor:
        """Vectors of tokens; in training some words are 0 wherever they stand."""
        weight = self.embedding.weight
        if self.training and self.word_dropout:
            kept = torch.rand(len(weight), 1, device=weight.device) >= self.word_dropout
            weight = weight * kept / (1 - self.word_dropout)
        return functional.embedding(tokens, weight, padding_idx=0)

    def _layer(
        self, layer: Any, vectors: Tensor, lengths: Tensor | None, state: Any
    ) -> tuple[Tensor, Any]:
        if self.training and self.weight_dropout:
            weights = {
                name: functional.dropout(each, self.weight_dropout)
                if name.startswith("weight_hh") else each
                for name, each in layer.named_parameters()
            }  # fmt: skip

            def run(*given: Any) -> Any:
                return torch.func.functional_call(layer, weights, given)
        else:
            run = layer
        if lengths is None:
            made, state = run(vectors, state)
            return made, state
        steps = vectors.shape[1]
        # A text without tokens is read as one of padding.
        packed = pack_padded_sequence(
            vectors, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False
        )
        made, state = run(packed, state)
        return pad_packed_sequence(made, batch_first=True, total_length=steps)[0], state

    def groups(self) -> list[list[nn.Module]]:
        """Vectors of tokens, and each layer."""
        return [[self.embedding], *([each] for each in self.layers)]


def _locked(vectors: Tensor, part: float, training: bool) -> Tensor:
    """Dropout that is the same at each step of a text (Gal and Ghahramani, 2016)."""
    if not training or not part:
        return vectors
    mask = torch.rand(vectors.shape[0], 1, vectors.shape[2], device=vectors.device) >= part
    return vectors * mask / (1 - part)

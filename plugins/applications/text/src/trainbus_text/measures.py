"""The next token as a target, and how well it is said: nats, bits, perplexity."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trainbus_data import Block
from trainbus_data.metrics import IGNORED, Counts


class NextToken(Block):
    """The token behind each of a window: int64, N x T; -100 where it does not count.

    Args:
        size: numbers of tokens.
        characters, bytes: of a token, on average, by which bits are told.
    """

    kind = "next"

    def __init__(self, size: int, characters: float = 1.0, bytes: float = 1.0) -> None:
        self.size, self.characters, self.bytes = size, characters, bytes

    def loss(self) -> Callable[[Any, Any], Tensor]:
        """The mean over the tokens that count, in nats."""
        return TokenLoss()

    def metrics(self) -> dict[str, Any]:
        """Over all tokens of a pass, each once."""
        return {
            "nats": Nats(lambda nats: nats),
            "bits_per_character": Nats(lambda nats: nats / math.log(2) / self.characters),
            "bits_per_byte": Nats(lambda nats: nats / math.log(2) / self.bytes),
            "perplexity": Nats(torch.exp),
        }

    def activation(self, output: Tensor) -> Tensor:
        """Probabilities N x T x size."""
        return output.softmax(-1)

    def read(self, probabilities: Tensor) -> Tensor:
        """The most probable tokens, N x T."""
        return probabilities.argmax(-1)

    def options(self) -> dict[str, Any]:
        """Sizes."""
        return {"size": self.size, "characters": self.characters, "bytes": self.bytes}


class TokenLoss:
    """Cross-entropy of the tokens that count; a batch weighs as much as it has of them."""

    __name__ = "cross-entropy of the next token"

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Of N x T x size, and N x T."""
        return functional.cross_entropy(
            output.flatten(0, 1).float(), target.flatten(), ignore_index=IGNORED
        )

    def counted(self, target: Tensor) -> Tensor:
        """How many tokens count."""
        return (target != IGNORED).sum()


class Nats(Counts):
    """What the next token costs over a whole pass, and something made of it.

    Args:
        shown: of the mean, in nats.
    """

    def __init__(self, shown: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._shown = shown

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count a batch."""
        loss = functional.cross_entropy(
            output.flatten(0, 1).float(), target.flatten(), ignore_index=IGNORED, reduction="none"
        )
        self.add(loss.double().sum(), (target != IGNORED).sum())

    def compute(self) -> Tensor:
        """Of the mean; NaN of nothing."""
        return self._shown(self.ratio())

"""How the next token is chosen of what a model says: greedy, by chance, the best few."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trainbus import UsageError


@dataclass(frozen=True)
class Choice:
    """How a token is chosen.

    Attributes:
        temperature: logits are divided by it; 0 takes the most probable token.
        top_k: of so many most probable tokens; None for all.
        top_p: of the fewest that have this probability together (Holtzman et al., 2019).
        min_p: of those that have at least this part of the highest probability.
        repetition_penalty: tokens that are there already are less probable by this factor of
            their logit (Keskar et al., 2019); 1 for not at all.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        number = self.temperature
        if not isinstance(number, (int, float)) or not 0 <= number < math.inf:
            raise UsageError(f"{number!r} is not a temperature: 0 means greedy, above 0 by chance")
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"top_k={self.top_k}: at least 1, or None for all tokens")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p={self.top_p}: above 0, at most 1")
        if not 0 <= self.min_p < 1:
            raise UsageError(f"min_p={self.min_p}: from 0, below 1")
        if not self.repetition_penalty > 0:
            raise UsageError(f"repetition_penalty={self.repetition_penalty}: above 0")

    def probabilities(self, logits: Tensor, seen: Tensor) -> Tensor:
        """Of each token to be chosen, (size,) float64; 0 for those that are out.

        Args:
            logits: (size,).
            seen: the tokens so far.
        """
        given = logits.double()
        given[0] = -math.inf  # unknown, and padding
        if self.repetition_penalty != 1:
            those = given[seen]
            factor = self.repetition_penalty
            given[seen] = torch.where(those > 0, those / factor, those * factor)
        if self.temperature == 0:
            return torch.nn.functional.one_hot(given.argmax(), len(given)).double()
        given = given / self.temperature
        if self.top_k is not None and self.top_k < len(given):
            given[given < given.topk(self.top_k).values[-1]] = -math.inf
        probabilities = given.softmax(0)
        if self.min_p:
            probabilities[probabilities < self.min_p * probabilities.max()] = 0
        if self.top_p < 1:
            ordered, places = probabilities.sort(descending=True)
            # The token that reaches the sum is one of them.
            out = ordered.cumsum(0) - ordered >= self.top_p * probabilities.sum()
            probabilities[places[out]] = 0
        return probabilities / probabilities.sum()

    def token(self, logits: Tensor, seen: Tensor, draw: torch.Generator) -> int:
        """The token that is chosen."""
        probabilities = self.probabilities(logits, seen)
        if self.temperature == 0:
            return int(probabilities.argmax())
        point = torch.rand((), generator=draw, dtype=torch.float64)
        place = torch.searchsorted(probabilities.cumsum(0), point, right=True)
        # Rounding may leave a point behind the end: the last one that is possible.
        return min(int(place), int(probabilities.nonzero()[-1]))


def draws(seed: int | None, number: int) -> torch.Generator:
    """The chance of one text of several: the same, however many are made with it."""
    if seed is None:
        seed = int(torch.randint(1 << 62, ()))
    data = hashlib.blake2b(f"{seed} {number}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(data, "little") >> 1)

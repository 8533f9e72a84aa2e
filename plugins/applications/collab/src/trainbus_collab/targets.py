"""What is learned of interactions: a rating, or which item comes next among all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trainbus_data import Block
from trainbus_data.metrics import Counts


class Codes(Block):
    """Codes of users or items: int64, N; 0 of new ones."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


class HistoryCodes(Block):
    """What a user has seen: int64, N x items, 0 where there is nothing."""

    kind = "history"


class ItemCode(Block):
    """The history again, which is left out where items are ranked."""

    kind = "seen"


class Rating(Block):
    """A number, in its own units.

    Args:
        span: the least and the greatest of training.
    """

    kind = "rating"
    outputs = 1

    def __init__(self, span: Sequence[float]) -> None:
        self.span = tuple(span)

    def loss(self) -> Callable[[Any, Any], Tensor]:
        """The mean squared error."""
        return squared_error

    def metrics(self) -> dict[str, Any]:
        """In units, over all rows."""
        return {"rmse": _Error(2), "mae": _Error(1)}

    def options(self) -> dict[str, Any]:
        """The span."""
        return {"span": list(self.span)}


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    """The mean of the squared differences."""
    return functional.mse_loss(output.reshape(target.shape), target)


class _Error(Counts):
    def __init__(self, power: int) -> None:
        super().__init__()
        self.power = power

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count a batch."""
        wrong = (output.reshape(target.shape).double() - target).abs() ** self.power
        self.add(wrong.sum(), torch.full_like(wrong.sum(), wrong.numel()))

    def compute(self) -> Tensor:
        """The root of the mean."""
        return self.ratio() ** (1 / self.power)


class NextItem(Block):
    """The code of the item that is to be found, from 1 on: int64, N.

    Args:
        items: how many there are.
    """

    kind = "item"

    def __init__(self, items: int) -> None:
        self.items = items

    def together(self, others: Sequence[Block]) -> Block:
        """This, with what was seen behind it."""
        return self

    def pack(self, targets: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Both as one target."""
        return tuple(targets)

    def loss(self) -> Callable[[Any, Any], Tensor]:
        """Cross-entropy over all items."""
        return FullSoftmax()

    def metrics(self) -> dict[str, Any]:
        """Over all items that were not seen, none of them sampled; of each interaction."""
        return {
            "recall@5": _Ranked(lambda rank: (rank < 5).double()),
            "ndcg@10": _Ranked(lambda rank: torch.where(rank < 10, 1 / (rank + 2.0).log2(), 0.0)),
            "mrr": _Ranked(lambda rank: 1 / (rank + 1.0)),
        }

    def options(self) -> dict[str, Any]:
        """How many items."""
        return {"items": self.items}


class FullSoftmax:
    """Cross-entropy of the item that came, over all items that were not seen."""

    __name__ = "cross-entropy over all items"

    def __call__(self, output: Tensor, target: Any) -> Tensor:
        """Of N x items, and (codes N, seen N x items)."""
        item, seen = target
        made = without_seen(output.float(), seen, keep=item)
        return functional.cross_entropy(made, item - 1)


def without_seen(scores: Tensor, seen: Tensor, keep: Tensor | None = None) -> Tensor:
    """Scores N x items, with -inf at codes N x any that were seen; one of each row may be kept."""
    wide = torch.cat([scores.new_zeros(len(scores), 1), scores], 1)
    wide = wide.scatter(1, seen, float("-inf"))[:, 1:]
    if keep is None:
        return wide
    place = (keep - 1)[:, None]
    return wide.scatter(1, place, scores.gather(1, place))


class _Ranked(Counts):
    """The mean of something of the rank of what is to be found; of equal scores half are before it.

    Args:
        of: gives it for ranks, from 0 on.
    """

    def __init__(self, of: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._of = of

    def update(self, output: Tensor, target: Any) -> None:
        """Count a batch."""
        item, seen = target
        values = self._of(ranks(output, item, seen))
        self.add(values.sum(), torch.full_like(values.sum(), values.numel()))

    def compute(self) -> Tensor:
        """The mean."""
        return self.ratio()


def ranks(scores: Tensor, item: Tensor, seen: Tensor) -> Tensor:
    """The rank of each item among all that were not seen, from 0 on: float64, N."""
    scores = without_seen(scores.double(), seen, keep=item)
    own = scores.gather(1, (item - 1)[:, None])
    return (scores > own).sum(1).double() + ((scores == own).sum(1).double() - 1) / 2

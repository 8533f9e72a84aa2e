"""How well items are ranked: over all of them, for each user, with what was done said beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trainbus import UsageError
from trainbus_collab.data import padded
from trainbus_collab.targets import without_seen

_BLOCK = 512
_TOP = 10


class Measured(dict[str, float]):
    """Errors by name; `protocol` says how they were measured, and is printed with them.

    Attributes:
        protocol: in words.
    """

    def __init__(self, values: dict[str, float], protocol: str) -> None:
        super().__init__(values)
        self.protocol = protocol

    def __repr__(self) -> str:
        said = ", ".join(f"{name} {value:.4g}" for name, value in self.items())
        return f"{said} ({self.protocol})"


def ranked(data: Any, scores_of: Callable[[Tensor], Tensor]) -> Measured:
    """Ranks of what validation has, for each user, among all items that were not seen.

    recall@5 and nDCG@10 (with the ideal of as many as there are), the reciprocal rank of the first
    one, average precision at 10; coverage is the part of all items that is in the ten best of
    anybody, novelty the mean surprise (-log2 of its part of all interactions) of those.

    Args:
        data: a `CollabData`.
        scores_of: gives N x items for histories N x any.
    """
    histories, wanted, _ = data.targets()
    asked = [n for n, items in enumerate(wanted) if bool((items > 0).any())]
    if not asked:
        raise UsageError("validate: no user of validation has an item that training knows")
    popular = torch.bincount(data.seen - 1, minlength=len(data.events["train"].item_names))
    surprise = -(popular.double().clamp(min=0.5) / popular.sum()).log2()
    sums: dict[str, float] = {}
    shown = torch.zeros(len(popular), dtype=torch.bool)
    for begin in range(0, len(asked), _BLOCK):
        rows = asked[begin : begin + _BLOCK]
        own = [histories[n] for n in rows]
        relevant = torch.zeros(len(rows), len(popular) + 1, dtype=torch.bool)
        for row, n in enumerate(rows):
            relevant[row, wanted[n]] = True
        relevant = relevant[:, 1:]
        scores = without_seen(scores_of(padded(own)), padded(own, len(popular)))
        order = torch.argsort(scores, dim=1, descending=True, stable=True)
        hits = relevant.gather(1, order)
        best = order[:, :_TOP]
        shown[best.flatten()] = True
        for name, values in {**_of_hits(hits), "novelty": surprise[best].mean(1)}.items():
            sums[name] = sums.get(name, 0.0) + float(values.sum())
    found = {name: value / len(asked) for name, value in sums.items()}
    found["coverage"] = float(shown.double().mean())
    cold_users = sum(not len(histories[n]) for n in asked)
    _, cold_items = data.cold()
    protocol = (
        f"{len(asked):,} users, all {len(popular):,} items ranked but those seen, none sampled; "
        f"{data.how}; {len(wanted) - len(asked):,} users without a known item left out, "
        f"{cold_users:,} without a history; {cold_items:.1%} of validation are new items"
    )
    return Measured(found, protocol)


def _of_hits(hits: Tensor) -> dict[str, Tensor]:
    """Of N x items in the order of their scores, true where they are to be found."""
    hits = hits.double()
    count = hits.sum(1)
    top = hits[:, :_TOP]
    places = torch.arange(1, top.shape[1] + 1, dtype=torch.float64)
    gains = 1 / (places + 1).log2()
    ideal = torch.stack([gains[: int(n)].sum() for n in count.clamp(max=top.shape[1]).tolist()])
    precise = top * top.cumsum(1) / places
    return {
        "recall@5": hits[:, :5].sum(1) / count,
        "recall@10": top.sum(1) / count,
        "ndcg@10": (top * gains).sum(1) / ideal,
        "mrr": 1 / (hits.argmax(1) + 1.0),
        "map@10": precise.sum(1) / count.clamp(max=top.shape[1]),
    }

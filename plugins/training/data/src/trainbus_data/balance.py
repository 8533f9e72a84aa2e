"""Unbalanced classes: how often each occurs, and how often its items are to be drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from trainbus.errors import nearest
from trainbus_data.blocks import Block
from trainbus_data.cells import text_of
from trainbus_data.errors import DataError
from trainbus_data.items import Items, Tensors

#: "balanced", or a weight for each label; those that are not named have 1.
Balance = Literal["balanced"] | Mapping[Any, float]


def class_counts(store: Items | Tensors, block: Block) -> Tensor:
    """How many items have each label, or how many pixels: (C,) float64.

    Args:
        store: the items of a stage; of masks in files all are read.
        block: of the target, which is the last part.

    Raises:
        DataError: the target has no classes.
    """
    if block.kind not in ("category", "categories", "mask") or not block.outputs:
        raise DataError(f"{type(block).__name__} has no classes that could be counted")
    total = torch.zeros(block.outputs, dtype=torch.float64)
    for codes in _codes(store, block):
        if block.kind == "categories" or codes.is_floating_point():
            total += codes.double().reshape(-1, block.outputs).sum(0)
            continue
        counted = codes[(codes >= 0) & (codes < block.outputs)].flatten()
        if (ignore := getattr(block, "ignore", None)) is not None:
            counted = counted[counted != ignore]
        total += torch.bincount(counted, minlength=block.outputs)
    return total


def class_weights(counts: Tensor, block: Block, balance: Balance) -> Tensor:
    """A weight for each class, (C,) float32.

    "balanced" is N / (C n) for a class that occurs n times (King and Zeng, 2001, as scikit-learn
    has it), and 1 for one that does not occur.

    Args:
        counts: how often each class occurs; see `class_counts`.
        block: of the target, whose vocabulary names the classes.
        balance: see `Balance`.

    Raises:
        DataError: a label is unknown, or a weight is no number above or equal to 0.
    """
    words = list(getattr(block, "vocab", ()))[: len(counts)]
    if balance == "balanced":
        there = counts > 0
        shares = counts.sum() / (there.sum() * counts.clamp(min=1))
        return torch.where(there, shares, 1.0).float()
    if not isinstance(balance, Mapping):
        raise DataError(
            f"{balance!r:.60}: give 'balanced', or a weight for labels: {{{words[0]!r}: 2.0}}"
        )
    texts = [text_of(word) for word in words]
    weights = torch.ones(len(counts))
    for word, weight in balance.items():
        if text_of(word) not in texts:
            raise DataError(
                f"a weight for {word!r}, which is no label{nearest(str(word), texts)} There are "
                f"{', '.join(map(repr, words[:8]))}"
            )
        if not isinstance(weight, (int, float)) or not 0 <= weight < float("inf"):
            raise DataError(f"the weight of {word!r} is {weight!r}; give a number, 0 or above")
        weights[texts.index(text_of(word))] = float(weight)
    return weights


def item_weights(store: Items | Tensors, block: Block, balance: Balance) -> Tensor:
    """How often each item is to be drawn in proportion to others, (N,) float64.

    Of several labels the greatest weight counts; an item without one has 1.

    Raises:
        DataError: the target has no labels, or all weights are 0.
    """
    if block.kind not in ("category", "categories"):
        raise DataError(
            f"sampling={balance!r:.40}: items are drawn by their label, and the target is "
            f"{type(block).__name__}"
        )
    each = class_weights(class_counts(store, block), block, balance).double()
    codes = torch.cat(list(_codes(store, block)))
    if codes.ndim == 1 and not codes.is_floating_point():
        found = each[codes]
    else:  # several labels, or a mixture
        found = (codes.double() * each).amax(dim=1)
        found = torch.where((codes > 0).any(dim=1), found, 1.0)
    if not found.sum() > 0:
        raise DataError(f"sampling={balance!r:.60}: no item has a weight above 0")
    return found


def _codes(store: Items | Tensors, block: Block) -> Sequence[Tensor] | Any:
    """The encoded targets: all of them, or one after the other."""
    if isinstance(store, Tensors):
        return [store.parts[-1].cpu()]
    return (block.encode(raw)[None] for raw in store.part(len(store.getters) - 1))

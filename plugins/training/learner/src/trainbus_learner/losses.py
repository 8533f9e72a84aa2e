"""Losses by name, and with a weight for each class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trainbus import UsageError
from trainbus.arguments import check_number
from trainbus.errors import nearest
from trainbus_data.balance import Balance, class_weights
from trainbus_learner.ignoring import ignored

#: What may be asked for by name, for targets with classes.
NAMES = ("cross_entropy", "focal")
_KINDS = ("category", "categories", "mask")


class ClassLoss:
    """Cross-entropy, or focal loss, of one class of several or of each of several labels.

    The focal loss (Lin et al., 2017) is cross-entropy times (1 - p)^gamma, p being the probability
    of what is right: what is known well counts little, so that rare classes are heard. With a
    weight for each class an error counts as many times as that of its target says, and the mean is
    over the weights; of several labels it is the positive examples that are weighted.

    Args:
        gamma: 0 is cross-entropy.
        weight: for each class, (C,).
        several: of several labels, on N x C zeros and ones, and not of one class.
        ignore_index: the class that does not count.
    """

    def __init__(
        self,
        gamma: float = 0.0,
        weight: Tensor | None = None,
        several: bool = False,
        ignore_index: int = -100,
    ) -> None:
        check_number(0, UsageError, gamma=gamma)
        self.gamma, self.weight, self.several = gamma, weight, several
        self.ignore_index = ignore_index
        #: "mean", or "none" for the loss of each item.
        self.reduction = "mean"
        name = "focal loss" if gamma else "cross-entropy"
        self.__name__ = f"{name} with weights of classes" if weight is not None else name

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss of outputs N x C x ..., and indices N x ... or probabilities like the outputs.

        In float32, whatever the outputs are in; 0 where nothing counts.
        """
        output = output.float()
        if self.weight is not None and self.weight.device != output.device:
            self.weight = self.weight.to(output.device)
        if self.several:
            values, counted = self._of_labels(output, target)
        else:
            values, counted = self._of_class(output, target)
        if self.reduction == "none":
            each = values.reshape(len(values), -1)
            return each.sum(1) / (counted > 0).reshape(len(each), -1).sum(1).clamp(min=1)
        return values.sum() / counted.sum().clamp(min=torch.finfo(values.dtype).tiny)

    def _of_class(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Of each place the loss, and what it counts."""
        logs = output.log_softmax(dim=1)
        by_class = -logs * (1 - logs.exp()) ** self.gamma if self.gamma else -logs
        if self.weight is None:
            weights = torch.ones_like(by_class[:1])
        else:
            weights = self.weight.view(1, -1, *[1] * (output.ndim - 2))
        if target.is_floating_point():  # a mixture of classes
            counted = (weights * target).sum(dim=1)
            return (by_class * weights * target).sum(dim=1), counted
        there = target != self.ignore_index
        right = target.masked_fill(~there, 0).unsqueeze(1)
        counted = (weights.expand_as(by_class).gather(1, right).squeeze(1)) * there
        return by_class.gather(1, right).squeeze(1) * counted, counted

    def _of_labels(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        values = functional.binary_cross_entropy_with_logits(
            output, target, pos_weight=self.weight, reduction="none"
        )
        if self.gamma:
            p = output.sigmoid()
            values = values * (1 - (p * target + (1 - p) * (1 - target))) ** self.gamma
        return values, torch.ones_like(values)

    def __repr__(self) -> str:
        return f"ClassLoss(gamma={self.gamma}, weight={self.weight}, several={self.several})"


def chosen(
    asked: Any, balance: Balance | None, target: Any, data: Any
) -> tuple[Callable[[Any, Any], Tensor] | None, str]:
    """The loss that was asked for by name or with weights of classes, and how that is said.

    Args:
        asked: a name, a function, or None for the usual one.
        balance: weights of classes: "balanced", or by label.
        target: the block of the target.
        data: a `Data`, whose labels are counted for "balanced"; or None.

    Returns:
        A function that was given as it is; None for the usual loss.

    Raises:
        UsageError: a name that is not known, or weights where there are no classes.
    """
    if isinstance(asked, str) and asked not in NAMES:
        raise UsageError(
            f"loss={asked!r}: there is no such loss{nearest(asked, NAMES)} By name there are "
            f"{', '.join(NAMES)}; or give a function of (output, target)"
        )
    if asked is not None and not isinstance(asked, str):
        if balance is not None:
            raise UsageError(
                f"class_weights={balance!r:.60} goes with a loss by name ({', '.join(NAMES)}) or "
                "the usual one; a function that you give has weights of its own"
            )
        if not callable(asked):
            raise UsageError(f"loss={asked!r:.60}: give a name, or a function of (output, target)")
        return asked, "given"
    if asked is None and balance is None:
        return None, ""
    if target.kind not in _KINDS:
        what = f"loss={asked!r}" if asked else f"class_weights={balance!r:.60}"
        raise UsageError(f"{what}: it is for classes, and the target is {type(target).__name__}")
    weight = None if balance is None else weights_of(balance, target, data)
    said = "given" if weight is None else f"weights: {_said(balance, weight, target)}"
    index = ignored(None, target)
    made = ClassLoss(
        2.0 if asked == "focal" else 0.0,
        weight,
        target.kind == "categories",
        -100 if index is None else index,
    )
    return made, said


def weights_of(balance: Balance, target: Any, data: Any) -> Tensor:
    """A weight for each class: those given, or by how often the classes occur in training.

    Of several labels "balanced" is the number of items without a label over those with it.
    """
    if data is None:
        raise UsageError(
            f"class_weights={balance!r:.60} is for the labels of a Data; with loaders give a loss "
            "with its weights: torch.nn.CrossEntropyLoss(weight=...)"
        )
    if balance != "balanced":
        return class_weights(torch.ones(target.outputs), target, balance)
    counts = torch.tensor([*data.class_counts().values()], dtype=torch.float64)
    if target.kind == "categories":
        return ((len(data.train_items) - counts) / counts.clamp(min=1)).clamp(min=0.01).float()
    return class_weights(counts, target, balance)


def _said(balance: Balance, weight: Tensor, target: Any) -> str:
    words = list(target.vocab)[: len(weight)]
    pairs = [f"{word} {each:.3g}" for word, each in zip(words, weight.tolist(), strict=True)]
    shown = ", ".join(pairs[:6]) + (", ..." if len(pairs) > 6 else "")
    return f"balanced, {shown}" if balance == "balanced" else shown

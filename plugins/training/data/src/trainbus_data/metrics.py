"""What is measured: functions of (output, target), and objects that count over a whole pass.

The objects count on the device of what they are given, and wait for nothing until `compute`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

#: The index that PyTorch's cross-entropy leaves out, where nothing else is said.
IGNORED = -100


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """The part that is right: outputs N x C x ..., and indices N x ... or probabilities N x C.

    Indices below 0 do not count, as in the loss; NaN where none counts.
    """
    wanted = target.argmax(dim=1) if target.ndim == output.ndim else target
    counted = wanted >= 0
    return ((output.argmax(dim=1) == wanted) & counted).sum() / counted.sum()


def error_rate(output: Tensor, target: Tensor) -> Tensor:
    """The part that is wrong."""
    return 1 - accuracy(output, target)


def top_5(output: Tensor, target: Tensor) -> Tensor:
    """The part whose class is among the five of the greatest outputs N x C."""
    best = output.topk(min(5, output.shape[1]), dim=1).indices
    return (best == target[:, None]).any(dim=1).float().mean()


def labels_accuracy(threshold: float = 0.5) -> Callable[[Tensor, Tensor], Tensor]:
    """The part of all labels of all items that is right, outputs being logits (N x C)."""

    def measure(output: Tensor, target: Tensor) -> Tensor:
        return ((output.sigmoid() > threshold) == (target > 0.5)).float().mean()

    return measure


def mean_absolute_error(output: Tensor, target: Tensor) -> Tensor:
    """The mean of the absolute differences."""
    return (output.reshape(target.shape) - target).abs().mean()


def mean_squared_error(output: Tensor, target: Tensor) -> Tensor:
    """The mean squared error; (N,) and N x 1 are the same, and nothing is broadcast."""
    return functional.mse_loss(output.reshape(target.shape), target)


class Counts:
    """The base of metrics that count: sums over a pass, on the device.

    What nothing was counted for is NaN, and neither perfect nor all wrong.
    """

    def __init__(self) -> None:
        self.sums: list[Tensor] = []

    def add(self, *parts: Tensor) -> None:
        """Add to each sum."""
        before = self.sums or [torch.zeros_like(part) for part in parts]
        self.sums = [old + new for old, new in zip(before, parts, strict=True)]

    def reset(self) -> None:
        """Begin again."""
        self.sums = []

    def ratio(self) -> Tensor:
        """The first sum over the second; NaN where nothing was counted."""
        return self.sums[0] / self.sums[1] if self.sums else torch.tensor(torch.nan)


class Accuracy(Counts):
    """The part that is right over a whole pass: outputs N x C x ..., indices or probabilities.

    Args:
        ignore: the index that does not count.
        best: right is a class among so many of the greatest outputs.
    """

    def __init__(self, ignore: int | None = IGNORED, best: int = 1) -> None:
        super().__init__()
        self.ignore = ignore
        self.best = best

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count a batch."""
        wanted = target.argmax(dim=1) if target.ndim == output.ndim else target
        if self.best == 1:
            right = output.argmax(dim=1) == wanted
        else:
            best = output.topk(min(self.best, output.shape[1]), dim=1).indices
            right = (best == wanted.unsqueeze(1)).any(dim=1)
        counted = wanted != self.ignore if self.ignore is not None else torch.ones_like(right)
        self.add((right & counted).sum(), counted.sum())

    def compute(self) -> Tensor:
        """Right ones over counted ones."""
        return self.ratio()


class ErrorRate(Accuracy):
    """The part that is wrong over a whole pass."""

    def compute(self) -> Tensor:
        """Wrong ones over counted ones."""
        return 1 - super().compute()


class F1(Counts):
    """The F1 score of several labels, all counted together (micro), from logits N x C."""

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__()
        self.threshold = threshold

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count a batch."""
        given, wanted = output.sigmoid() > self.threshold, target > 0.5
        self.add((given & wanted).sum(), given.sum() + wanted.sum())

    def compute(self) -> Tensor:
        """2 TP / (2 TP + FP + FN); NaN where there is neither a label nor a prediction."""
        return 2 * self.ratio()


class MacroF1(Counts):
    """The F1 score of each class over a whole pass, and their mean; of outputs N x C.

    Classes that neither occur nor are predicted are left out of the mean.

    Args:
        ignore: the index that does not count.
    """

    def __init__(self, ignore: int | None = IGNORED) -> None:
        super().__init__()
        self.ignore = IGNORED if ignore is None else ignore

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count right ones, predictions and targets of each class."""
        classes = output.shape[1]
        target = target.argmax(dim=1) if target.ndim == output.ndim else target
        counted = (target != self.ignore).flatten()[:, None]
        given = functional.one_hot(output.argmax(dim=1).flatten(), classes) * counted
        wanted = functional.one_hot(target.flatten().clamp(0, classes - 1), classes) * counted
        self.add((given & wanted).sum(0), given.sum(0) + wanted.sum(0))

    def compute(self) -> Tensor:
        """The mean over the classes."""
        if not self.sums:
            return torch.tensor(torch.nan)
        both, either = self.sums
        return (2 * both.double() / either.double()).nanmean().float()


class RootMeanSquare(Counts):
    """The root of the mean squared error over a whole pass."""

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count a batch."""
        squares = (output.reshape(target.shape) - target).square().sum()
        self.add(squares, torch.full_like(squares, target.numel()))

    def compute(self) -> Tensor:
        """The root of the mean."""
        return self.ratio().sqrt()


class CountedMean(Counts):
    """The mean of a loss over all that counts in a pass: a batch without any has no weight."""

    def update(self, loss: Tensor, counted: Tensor) -> None:
        """Take a batch: its mean loss, and over how many."""
        self.add(loss.detach() * counted, counted)

    def compute(self) -> Tensor:
        """The mean."""
        return self.ratio()

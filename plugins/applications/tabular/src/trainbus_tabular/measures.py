"""What is measured of tables, over all rows of a pass at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from trainbus_tabular.targets import TableTarget

#: Of what was predicted (probabilities, or numbers in units) and what is.
Measure = Callable[[Tensor, Tensor], Tensor]


class OverAll:
    """A measure that needs all rows: what is predicted and what is are kept until the end.

    Args:
        block: the target, whose probabilities and units these are.
        measure: of (N x outputs, target).
    """

    def __init__(self, block: TableTarget, measure: Measure) -> None:
        self.block, self.measure = block, measure
        self.reset()

    def reset(self) -> None:
        """Begin again."""
        self._given: list[Tensor] = []
        self._wanted: list[Tensor] = []

    def update(self, output: Tensor, target: Any) -> None:
        """Take a batch; weights that stand with the target do not count here."""
        target = target[0] if isinstance(target, tuple) else target
        self._given.append(self.block.activation(output.detach()))
        self._wanted.append(target)

    def compute(self) -> Tensor:
        """The measure; NaN where there is no row."""
        if not self._given:
            return torch.tensor(torch.nan)
        given, wanted = torch.cat(self._given), torch.cat(self._wanted)
        if self.block.kind == "number":
            shape = (len(given), -1)
            given = self.block.in_units(given.reshape(shape))
            wanted = self.block.in_units(wanted.reshape(shape))
        return self.measure(given, wanted)


def measures_of(target: str) -> dict[str, Measure]:
    """The measures of a kind of target, by name."""
    if target == "class":
        return {"accuracy": accuracy, "auc": auc, "log_loss": log_loss}
    if target == "ordinal":
        return {"accuracy": accuracy, "kappa": quadratic_kappa, "log_loss": log_loss}
    if target == "labels":
        return {"accuracy": labels_accuracy, "auc": labels_auc, "log_loss": labels_log_loss}
    return {"rmse": rmse, "mae": mae, "r2": r2}


def accuracy(given: Tensor, wanted: Tensor) -> Tensor:
    """The part of rows whose most probable class is right."""
    return (given.argmax(1) == wanted).float().mean()


def log_loss(given: Tensor, wanted: Tensor) -> Tensor:
    """The mean of -log of the probability of what is."""
    right = given.double().gather(1, wanted[:, None])
    return -right.clamp(min=1e-15).log().mean()


def auc(given: Tensor, wanted: Tensor) -> Tensor:
    """The area under the ROC curve; of several classes the mean, each against the others.

    Classes that do not occur are left out.
    """
    if given.shape[1] == 2:
        return area(given[:, 1], wanted == 1)
    return torch.stack(
        [area(each, wanted == place) for place, each in enumerate(given.T)]
    ).nanmean()


def area(scores: Tensor, positive: Tensor) -> Tensor:
    """How often a positive one has the greater score than a negative one; a tie is a half."""
    _, places, counts = scores.unique(return_inverse=True, return_counts=True)
    ranks = (counts.cumsum(0) - (counts - 1) / 2.0).double()[places]  # the mean rank of a tie
    yes = positive.sum().double()
    no = len(scores) - yes
    return (ranks[positive].sum() - yes * (yes + 1) / 2) / (yes * no)


def quadratic_kappa(given: Tensor, wanted: Tensor) -> Tensor:
    """Cohen's kappa with squared distances of classes."""
    classes = given.shape[1]
    table = torch.zeros(classes * classes, dtype=torch.float64, device=given.device)
    places = wanted * classes + given.argmax(1)
    table = table.scatter_add(0, places, torch.ones_like(places, dtype=torch.float64))
    table = table.view(classes, classes)
    steps = torch.arange(classes, dtype=torch.float64, device=given.device)
    cost = (steps[:, None] - steps).square()
    chance = table.sum(1, keepdim=True) @ table.sum(0, keepdim=True) / len(wanted)
    return 1 - (cost * table).sum() / (cost * chance).sum()


def labels_accuracy(given: Tensor, wanted: Tensor) -> Tensor:
    """The part of all labels of all rows that is right."""
    return ((given > 0.5) == (wanted > 0.5)).float().mean()


def labels_auc(given: Tensor, wanted: Tensor) -> Tensor:
    """The mean of the areas of all labels."""
    pairs = zip(given.T, wanted.T, strict=True)
    return torch.stack([area(scores, flags > 0.5) for scores, flags in pairs]).nanmean()


def labels_log_loss(given: Tensor, wanted: Tensor) -> Tensor:
    """The mean over labels and rows."""
    probabilities = given.double().clamp(1e-15, 1 - 1e-15)
    return torch.nn.functional.binary_cross_entropy(probabilities, wanted.double())


def rmse(given: Tensor, wanted: Tensor) -> Tensor:
    """The root of the mean squared error."""
    return (given - wanted).square().mean().sqrt()


def mae(given: Tensor, wanted: Tensor) -> Tensor:
    """The mean absolute error."""
    return (given - wanted).abs().mean()


def r2(given: Tensor, wanted: Tensor) -> Tensor:
    """1 - the squared error over that of the mean; of several numbers the mean of theirs."""
    spread = (wanted - wanted.mean(0)).square().sum(0)
    return (1 - (given - wanted).square().sum(0) / spread).mean()

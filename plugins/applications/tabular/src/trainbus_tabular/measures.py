"""What is measured of tables: over all rows of a pass, in the units of the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from trainbus_data import metrics, whole_metrics

if TYPE_CHECKING:
    from trainbus_tabular.targets import TableTarget


class LabelsAccuracy(metrics.Counts):
    """The part of all labels of all rows that is right, of logits N x C."""

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count a batch."""
        right = (output > 0) == (target > 0.5)
        self.add(right.sum(), right.new_tensor(right.numel(), dtype=right.sum().dtype))

    def compute(self) -> Tensor:
        """Right ones over all."""
        return self.ratio()


class Coverage(metrics.Counts):
    """How often what is right lies between the lowest and the highest quantile."""

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count a batch."""
        wanted = target[:, 0]
        inside = (output[:, 0] <= wanted) & (wanted <= output[:, -1])
        self.add(inside.sum(), inside.new_tensor(len(inside), dtype=inside.sum().dtype))

    def compute(self) -> Tensor:
        """Those inside over all."""
        return self.ratio()


class OfTable:
    """A metric of outputs and targets of a table.

    It sees logits by the temperature that the target has, numbers in their units, and no weights
    of rows.

    Args:
        block: the target.
        metric: with update, compute and reset.
    """

    def __init__(self, block: TableTarget, metric: Any) -> None:
        self.block, self.metric = block, metric

    def reset(self) -> None:
        """Begin again."""
        self.metric.reset()

    def update(self, output: Tensor, target: Any) -> None:
        """Take a batch."""
        wanted: Tensor = target[0] if isinstance(target, tuple) else target
        block = self.block
        if block.kind != "number":
            self.metric.update(output / block.temperature, wanted)
            return
        shape = (len(output), -1)
        given = block.in_units(block.activation(output).reshape(shape))
        self.metric.update(given, block.in_units(wanted.reshape(shape)))

    def compute(self) -> Tensor:
        """The metric over all that was taken."""
        found: Tensor = self.metric.compute()
        return found


def measures_of(block: TableTarget) -> dict[str, OfTable]:
    """New metrics for a target, by name."""
    if block.target == "class":
        made: dict[str, Any] = {
            "accuracy": metrics.Accuracy(),
            "auc": whole_metrics.AUC(),
            "log_loss": whole_metrics.LogLoss(),
        }
    elif block.target == "ordinal":
        made = {
            "accuracy": metrics.Accuracy(),
            "kappa": whole_metrics.QuadraticKappa(),
            "log_loss": whole_metrics.LogLoss(),
        }
    elif block.target == "labels":
        made = {
            "accuracy": LabelsAccuracy(),
            "auc": whole_metrics.AUC(),
            "log_loss": whole_metrics.LogLoss(),
        }
    elif block.levels is not None:
        made = {"pinball": whole_metrics.Pinball(block.levels), "coverage": Coverage()}
    else:
        made = {
            "rmse": metrics.RootMeanSquare(),
            "mae": whole_metrics.MeanAbsolute(),
            "r2": whole_metrics.R2(),
        }
    return {name: OfTable(block, metric) for name, metric in made.items()}

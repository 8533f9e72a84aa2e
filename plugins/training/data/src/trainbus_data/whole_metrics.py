"""Metrics of a whole pass, exact over batches of unequal size.

Sums are kept in float64; only those that rank all rows keep their scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainbus.arguments import check_number
from trainbus_data.errors import DataError
from trainbus_data.metrics import Counts


class LogLoss(Counts):
    """The mean of -log p of what is right, of logits N x C: of classes N, or of labels N x C."""

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count a batch."""
        given = output.double()
        if target.ndim == given.ndim:
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                given, target.double(), reduction="none"
            )
        else:
            loss = torch.nn.functional.cross_entropy(given, target, reduction="none")
        self.add(loss.sum(), _count(loss))

    def compute(self) -> Tensor:
        """The mean; NaN of nothing."""
        return _mean(self)


class Brier(Counts):
    """The mean squared difference of probabilities and what is (Brier, 1950), of logits.

    Of two classes that of the second alone, as scikit-learn has it; of more the sum over classes.
    """

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count a batch."""
        if target.ndim == output.ndim:
            squares = (output.double().sigmoid() - target).square()
        else:
            given = output.double().softmax(1)
            wanted = torch.nn.functional.one_hot(target, given.shape[1])
            squares = (given - wanted).square().sum(1)
            squares = squares / 2 if given.shape[1] == 2 else squares
        self.add(squares.sum(), _count(squares))

    def compute(self) -> Tensor:
        """The mean; NaN of nothing."""
        return _mean(self)


class MeanAbsolute(Counts):
    """The mean absolute error."""

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count a batch."""
        wrong = (output.reshape(target.shape).double() - target).abs()
        self.add(wrong.sum(), _count(wrong))

    def compute(self) -> Tensor:
        """The mean; NaN of nothing."""
        return _mean(self)


class Pinball(Counts):
    """The mean pinball loss of a quantile, or of several (Koenker and Bassett, 1978).

    Args:
        quantile: between 0 and 1; of several one for each column of the outputs.
    """

    def __init__(self, quantile: float | Sequence[float] = 0.5) -> None:
        for each in quantile if isinstance(quantile, Sequence) else [quantile]:
            check_number(None, DataError, "Pinball", above=0, below=1, quantile=each)
        super().__init__()
        self.quantile = quantile

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count a batch."""
        over = target.double() - output.reshape(target.shape)
        level = over.new_tensor(self.quantile)
        loss = torch.maximum(level * over, (level - 1) * over)
        self.add(loss.sum(), _count(loss))

    def compute(self) -> Tensor:
        """The mean; NaN of nothing."""
        return _mean(self)


class R2:
    """The part of the variance that is explained; of several outputs the mean of theirs.

    Means and squares of batches are joined without loss (Chan et al., 1979).
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin again."""
        self.count = 0
        self.mean: Tensor | None = None
        self.squares = self.wrong = torch.zeros(())

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count a batch."""
        wanted = target.double().reshape(len(target), -1)
        wrong = (output.double().reshape(wanted.shape) - wanted).square().sum(0)
        count, mean = len(wanted), wanted.mean(0)
        squares = (wanted - mean).square().sum(0)
        if self.mean is None:
            self.count, self.mean, self.squares, self.wrong = count, mean, squares, wrong
            return
        both, apart = self.count + count, mean - self.mean
        self.squares = self.squares + squares + apart.square() * (self.count * count / both)
        self.mean = self.mean + apart * (count / both)
        self.wrong, self.count = self.wrong + wrong, both

    def compute(self) -> Tensor:
        """1 - errors / variance; NaN of fewer than two rows."""
        if self.count < 2:
            return torch.tensor(torch.nan, dtype=torch.float64)
        return (1 - self.wrong / self.squares).mean()


class QuadraticKappa(Counts):
    """Kappa with quadratic weights (Cohen, 1968), of outputs N x C of classes in an order."""

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count the pairs of classes."""
        classes = output.shape[1]
        pairs = torch.bincount(target * classes + output.argmax(1), minlength=classes**2)
        self.add(pairs.reshape(classes, classes))

    def compute(self) -> Tensor:
        """Kappa; NaN of nothing."""
        if not self.sums:
            return torch.tensor(torch.nan, dtype=torch.float64)
        pairs = self.sums[0].double()
        steps = torch.arange(len(pairs), device=pairs.device)
        weights = (steps[:, None] - steps).square().double()
        chance = pairs.sum(1)[:, None] * pairs.sum(0) / pairs.sum()
        return 1 - (weights * pairs).sum() / (weights * chance).sum()


class _Ranked:
    """Keeps the score of each row, for each class against the others; or of labels."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin again."""
        self._scores: list[Tensor] = []
        self._wanted: list[Tensor] = []

    def update(self, output: Tensor, target: Tensor) -> None:
        """Take a batch: logits N x C and classes N, or N x C and labels of 0 and 1."""
        scores = output.detach()
        if target.ndim < scores.ndim:
            classes = scores.shape[1]
            if classes == 2:
                scores = (scores[:, 1].double() - scores[:, 0])[:, None]
                wanted = target[:, None] == 1
            else:
                scores = scores.double().softmax(1)
                wanted = torch.nn.functional.one_hot(target, classes).bool()
        else:
            wanted = target > 0.5
        self._scores.append(scores)
        self._wanted.append(wanted)

    def compute(self) -> Tensor:
        """The mean over classes that occur and are not all; NaN where there is none."""
        if not self._scores:
            return torch.tensor(torch.nan, dtype=torch.float64)
        scores, wanted = torch.cat(self._scores), torch.cat(self._wanted)
        each = [
            self.of_one(scores[:, c], wanted[:, c])
            for c in range(scores.shape[1])
            if 0 < int(wanted[:, c].sum()) < len(wanted)
        ]
        if not each:
            return torch.tensor(torch.nan, dtype=torch.float64)
        return torch.stack(each).mean()

    def of_one(self, scores: Tensor, wanted: Tensor) -> Tensor:
        """The value of one class."""
        raise NotImplementedError


class AUC(_Ranked):
    """The area under the ROC curve, ties counted half; of classes each against the others."""

    def of_one(self, scores: Tensor, wanted: Tensor) -> Tensor:
        """By the mean rank of what is right (Mann and Whitney, 1947)."""
        _, place, counts = scores.unique(return_inverse=True, return_counts=True)
        ends = counts.cumsum(0).double()
        ranks = (ends - (counts.double() - 1) / 2)[place]
        right = wanted.sum().double()
        return (ranks[wanted].sum() - right * (right + 1) / 2) / (right * (len(wanted) - right))


class AveragePrecision(_Ranked):
    """The area under precision over recall, without interpolation, as scikit-learn has it."""

    def of_one(self, scores: Tensor, wanted: Tensor) -> Tensor:
        """The sum of precision times the step of recall, over the different scores."""
        values, place, counts = scores.unique(return_inverse=True, return_counts=True)
        right = torch.zeros(len(values), dtype=torch.float64, device=scores.device)
        right.index_add_(0, place, wanted.double())
        right, counts = right.flip(0), counts.flip(0)
        precision = right.cumsum(0) / counts.cumsum(0)
        return (precision * right).sum() / right.sum()


def _count(values: Tensor) -> Tensor:
    return torch.tensor(float(values.numel()), dtype=torch.float64, device=values.device)


def _mean(counts: Counts) -> Tensor:
    if not counts.sums:
        return torch.tensor(torch.nan, dtype=torch.float64)
    return counts.sums[0] / counts.sums[1]

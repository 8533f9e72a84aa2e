"""Average precision of boxes, as COCO defines it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]
#: IoU from which a box is found, 0.50, 0.55, ..., 0.95; and the recalls at which precision counts.
THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())
_RECALLS = np.linspace(0.0, 1.0, 101)


class MeanAveragePrecision:
    """The mean average precision over classes and IoU thresholds (COCO, Lin et al., 2014).

    Of each image and class the 100 most certain boxes count. They take, the most certain first, the
    box of their class that they overlap most and that is not taken. Precision is made to fall with
    recall, and its mean at the recalls 0, 0.01, ..., 1 is the average precision. Boxes of all sizes
    count, and there are no crowds. What is measured is kept on the CPU until `compute`.

    Args:
        thresholds: of the IoU from which a box is found; the mean is over all of them.
        most: boxes of an image and a class that count.
    """

    def __init__(self, thresholds: Sequence[float] = THRESHOLDS, most: int = 100) -> None:
        self.thresholds = np.asarray(thresholds, dtype=np.float64)
        self.most = most
        self._images: list[tuple[Array, Array]] = []

    def update(self, output: Tensor, target: Tensor) -> None:
        """Take a batch.

        Args:
            output: N x D x 6, (x1, y1, x2, y2, class, score); NaN where there is none.
            target: N x K x 5, (x1, y1, x2, y2, class); NaN where there is none.
        """
        for found, true in zip(output.detach().cpu(), target.detach().cpu(), strict=True):
            self._images.append((_there(found), _there(true)))

    def reset(self) -> None:
        """Begin again."""
        self._images = []

    def compute(self) -> Tensor:
        """The mean over the classes that occur, and the thresholds; NaN where none occurs."""
        found = list(self.per_class().values())
        return torch.tensor(float(np.mean(found)) if found else float("nan"))

    def per_class(self) -> dict[int, float]:
        """The average precision of each class that occurs in the targets, by its index."""
        classes = {int(code) for _, true in self._images for code in true[:, 4]}
        return {code: float(np.mean(self._of_class(code))) for code in sorted(classes)}

    def _of_class(self, code: int) -> Array:
        """The average precision at each threshold."""
        scores, rights, count = [], [], 0
        for found, true in self._images:
            boxes = found[found[:, 4] == code]
            boxes = boxes[np.argsort(-boxes[:, 5], kind="mergesort")][: self.most]
            wanted = true[true[:, 4] == code]
            count += len(wanted)
            scores.append(boxes[:, 5])
            rights.append(self._right(boxes[:, :4], wanted[:, :4]))
        order = np.argsort(-np.concatenate(scores), kind="mergesort")
        right = np.concatenate(rights, axis=1)[:, order]
        return np.array([_average(row, count) for row in right])

    def _right(self, found: Array, true: Array) -> Array:
        """Which boxes take one, at each threshold: T x D."""
        right = np.zeros((len(self.thresholds), len(found)), dtype=bool)
        if not len(true):
            return right
        overlap = iou(found, true)
        free = np.ones((len(self.thresholds), len(true)), dtype=bool)
        least = np.minimum(self.thresholds, 1 - 1e-10)
        rows = np.arange(len(self.thresholds))
        for number, row in enumerate(overlap):
            # Of equal ones the last.
            values = np.where(free, row, -1.0)[:, ::-1]
            best = len(true) - 1 - values.argmax(axis=1)
            taken = values.max(axis=1) >= least
            right[:, number] = taken
            free[rows[taken], best[taken]] = False
        return right


def iou(one: Array, other: Array) -> Array:
    """Intersection over union of boxes (x1, y1, x2, y2): D x K."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    both = (high - low).clip(min=0).prod(axis=2)
    area = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (one, other)]
    return np.asarray(both / (area[0][:, None] + area[1][None] - both))


def _average(right: Array, count: int) -> float:
    """The mean of the precision at 101 recalls, of boxes with the most certain first."""
    hits = right.cumsum()
    recall = hits / count
    precision = hits / np.arange(1, len(right) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, _RECALLS, side="left")
    return float(np.where(places < len(right), np.append(precision, 0.0)[places], 0.0).mean())


def _there(rows: Tensor) -> Array:
    """The rows that are no padding, in float64."""
    return np.asarray(rows[~rows.isnan().any(dim=1)].double().numpy())

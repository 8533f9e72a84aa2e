"""Boxes with labels: what an image holds, what a detector found, and how both are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainbus_data.blocks import Block, Metric
from trainbus_data.errors import DataError
from trainbus_data.labels import Labels
from trainbus_vision.average_precision import MeanAveragePrecision, iou

#: The IoU from which a box is found, where one number says it.
FOUND = 0.5


class Box(NamedTuple):
    """A box with its label, in pixels; `score` is None where it is a target."""

    label: Any
    score: float | None
    x1: float
    y1: float
    x2: float
    y2: float

    def __str__(self) -> str:
        sure = "" if self.score is None else f" {self.score:.0%}"
        places = ", ".join(f"{value:.0f}" for value in self[2:])
        return f"{self.label}{sure} ({places})"


class Detections(Block):
    """The boxes of an image with their labels, as the one target that they are together.

    A target is N x K x 5, (x1, y1, x2, y2, index of the label), an output N x D x 6 with the score
    behind it, both in pixels of what the model sees, with NaN where there is none.

    Args:
        labels: the block with the vocabulary.
        min_score: of a predicted box that is shown, and counted among the mistakes.
    """

    kind = "boxes"
    in_picture = True
    overlays = True

    def __init__(self, labels: Labels, min_score: float = 0.5) -> None:
        self.labels, self.min_score = labels, min_score

    @property
    def vocab(self) -> list[Any]:
        """The labels, in the order of their indices."""
        return self.labels.vocab

    def pack(self, targets: Sequence[Tensor]) -> Tensor:
        """Boxes N x K x 4 and labels N x K as N x K x 5; NaN where one of both is missing."""
        boxes, labels = targets
        codes = torch.where(labels >= 0, labels.to(boxes.dtype), torch.nan)
        packed = torch.cat((boxes, codes[..., None]), dim=-1)
        return torch.where(packed.isnan().any(dim=-1, keepdim=True), torch.nan, packed)

    def decode(self, value: Tensor) -> list[Box]:
        """The boxes of an image; of predicted ones those with a score of `min_score`, and more."""
        rows = value[~value.isnan().any(dim=-1)].tolist()
        return [
            Box(self.vocab[int(row[4])], row[5] if len(row) > 5 else None, *row[:4])
            for row in rows
            if len(row) < 6 or row[5] >= self.min_score
        ]

    def restored(self, value: Tensor, corners: Tensor, size: tuple[float, float]) -> list[Box]:
        """Boxes in pixels of the image as it was given, cut at its edges."""
        scale = (corners[1] - corners[0]) / torch.tensor(size)
        boxes = (value.cpu()[:, :4] - corners[0].repeat(2)) / scale.repeat(2)
        limits = torch.tensor(size).repeat(2)
        boxes = torch.minimum(boxes.clamp(min=0), limits)
        return self.decode(torch.cat((boxes, value.cpu()[:, 4:]), dim=1))

    def draw(self, axes: Any, value: Any, color: str | None = None) -> None:
        """A frame for each box with its label; those of predictions are below, with the score."""
        from matplotlib.patches import Rectangle

        color = color or "tab:green"
        low, high = sorted(axes.get_ylim())
        for box in self.decode(value) if isinstance(value, Tensor) else value:
            left, top, right, bottom = (side - 0.5 for side in box[2:])
            target = box.score is None
            axes.add_patch(
                Rectangle(
                    (left, top), right - left, bottom - top, fill=False, edgecolor=color,
                    linewidth=1.5, linestyle="-" if target else "--",
                )
            )  # fmt: skip
            room = (top - low if target else high - bottom) > 0.08 * (high - low)
            above = target if room else not target  # at the edge inside of the box
            axes.text(
                left, top if target else bottom,
                str(box.label) if target else f"{box.label} {box.score:.0%}",
                fontsize=6, color="white", ha="left", va="bottom" if above else "top",
                bbox={"facecolor": color, "edgecolor": "none", "pad": 0.8}, clip_on=True,
            )  # fmt: skip

    def loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        """What is wrong in an image, to find the worst: a detector is trained by its own loss."""
        return Mistakes(self.min_score)

    def metrics(self) -> dict[str, Metric]:
        """The mean average precision of COCO, and that at an IoU of 0.5."""
        return {"map": MeanAveragePrecision(), "map_50": MeanAveragePrecision((FOUND,))}

    def needs(self) -> str:
        """A detector."""
        return f"boxes with one of {len(self.vocab)} labels each, as DetectionLearner's models do"

    def per_class(self, predictions: Tensor, targets: Tensor) -> dict[Any, dict[str, float]]:
        """Of each label `ap`, `ap_50`, and `precision` and `recall` of what is shown; `count`."""
        averages: list[dict[int, float]] = []
        for metric in self.metrics().values():
            metric.update(predictions, targets)
            averages.append(metric.per_class())
        shown = _shown(predictions, self.min_score)
        right, given, there = np.zeros((3, len(self.vocab)))
        for found, true in zip(shown, targets, strict=True):
            rows, wanted = _rows(found), _rows(true)
            for code in range(len(self.vocab)):
                mine, yours = rows[rows[:, 4] == code], wanted[wanted[:, 4] == code]
                right[code] += len(_pairs(mine, yours))
                given[code] += len(mine)
                there[code] += len(yours)
        return {
            word: {
                "ap": averages[0].get(code, float("nan")),
                "ap_50": averages[1].get(code, float("nan")),
                "precision": right[code] / given[code] if given[code] else float("nan"),
                "recall": right[code] / there[code] if there[code] else float("nan"),
                "count": int(there[code]),
            }
            for code, word in enumerate(self.vocab)
        }


class Mistakes:
    """What is wrong in an image: boxes that are missed or false, and 1 - IoU of those found.

    Args:
        min_score: predicted boxes that are less certain do not count.
    """

    def __init__(self, min_score: float = 0.5) -> None:
        self.min_score = min_score
        #: "mean", or "none" for each image.
        self.reduction = "mean"

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Of outputs N x D x 6 and targets N x K x 5."""
        values = []
        for found, true in zip(_shown(output, self.min_score), target, strict=True):
            rows, wanted = _rows(found), _rows(true)
            overlaps = [
                overlap
                for code in {*rows[:, 4].tolist(), *wanted[:, 4].tolist()}
                for overlap in _pairs(rows[rows[:, 4] == code], wanted[wanted[:, 4] == code])
            ]
            values.append(
                len(rows) + len(wanted) - 2 * len(overlaps) + sum(1 - x for x in overlaps)
            )
        each = torch.tensor(values, dtype=torch.float32)
        return each if self.reduction == "none" else each.mean()


def joined(boxes: Any, others: Sequence[Block]) -> Block | None:
    """The one target that boxes are with the labels behind them, if these are labels."""
    if len(others) == 1 and isinstance(others[0], Labels):
        return Detections(others[0], boxes.min_score)
    return None


def check_min_score(value: float) -> float:
    """A part of 1. Raises `DataError`."""
    if not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise DataError(f"Boxes(min_score={value!r}): give a number from 0 to 1")
    return float(value)


def _shown(output: Tensor, min_score: float) -> Tensor:
    """Predicted boxes, those that are not certain as if they were not there."""
    certain = output[..., 5:] >= min_score
    return torch.where(certain, output, torch.nan).detach().cpu()


def _rows(value: Tensor) -> Any:
    value = value.detach().cpu()
    return value[~value.isnan().any(dim=-1)].double().numpy()


def _pairs(found: Any, true: Any) -> list[float]:
    """The IoU of each box that takes one of its class, the most certain first."""
    if not len(found) or not len(true):
        return []
    overlap = iou(found[np.argsort(-found[:, 5], kind="mergesort"), :4], true[:, :4])
    pairs = []
    for row in overlap:
        best = int(row.argmax())
        if row[best] >= FOUND:
            pairs.append(float(row[best]))
            overlap[:, best] = -1.0
    return pairs

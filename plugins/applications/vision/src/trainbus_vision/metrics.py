"""What is measured of pixels and points, counted over a whole pass.

The objects count on the device of what they are given, and wait for nothing until `compute`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trainbus_data.metrics import Accuracy, Counts


class PixelAccuracy(Accuracy):
    """The part of the pixels that is right, from outputs N x C x H x W and masks N x H x W."""

    def __init__(self, ignore: int | None = None) -> None:
        super().__init__(ignore)


class MeanIoU(Counts):
    """Intersection over union of each class over the whole pass, and their mean.

    Classes that neither a target nor a prediction has are left out of the mean. (The index of
    Jaccard, 1901, summed over a data set as in PASCAL VOC, Everingham et al. 2010.)

    Args:
        classes: how many there are, C.
        ignore: the code of pixels that do not count.
    """

    def __init__(self, classes: int, ignore: int | None = None) -> None:
        super().__init__()
        self.classes = classes
        self.ignore = ignore

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count a batch: outputs N x C x H x W, masks N x H x W."""
        given = output.argmax(dim=1)
        # Pixels that do not count go to a row of their own: no boolean mask, whose size a device
        # would have to be asked for first.
        row = target.clamp(0, self.classes)
        if self.ignore is not None:
            row = torch.where(target == self.ignore, self.classes, row)
        cells = (row * self.classes + given).flatten()
        size = (self.classes + 1) * self.classes
        # scatter_add_ and not bincount, which waits for the device
        counts = torch.zeros(size, dtype=torch.int64, device=cells.device)
        counts.scatter_add_(0, cells, torch.ones_like(cells))
        self.add(counts.view(self.classes + 1, self.classes)[: self.classes])

    def per_class(self) -> Tensor:
        """The IoU of each class (C,), NaN for one that never occurred."""
        (matrix,) = self.sums
        both = matrix.diagonal().double()
        return both / (matrix.sum(0) + matrix.sum(1) - both)

    def compute(self) -> Tensor:
        """The mean over the classes that occurred; NaN where no pixel counts."""
        if not self.sums:
            return torch.tensor(torch.nan)
        return self.per_class().nanmean().float()


class PointDistance(Counts):
    """The mean distance in pixels of predicted from true points; missing ones (NaN) do not count.

    Args:
        pixels: makes points in pixels (N x K x 2) of a model's output.
    """

    def __init__(self, pixels: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.pixels = pixels

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count a batch: any output of the model, and points N x K x 2 in pixels."""
        there = ~target.isnan().any(dim=-1)
        difference = self.pixels(output) - target.nan_to_num()
        distance = difference.square().sum(dim=-1).sqrt()
        self.add(torch.where(there, distance, 0.0).sum(), there.sum())

    def compute(self) -> Tensor:
        """The sum of the distances over the number of points; NaN where none counts."""
        return self.ratio()

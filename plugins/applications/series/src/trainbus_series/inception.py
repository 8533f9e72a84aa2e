"""InceptionTime (Ismail Fawaz et al., 2020): convolutions of several lengths, side by side."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Inception(nn.Module):
    """Vectors N x 4 filters of series N x dimensions x steps: a mean over the steps there are.

    Args:
        dimensions: of a series.
        filters: of each branch.
        depth: of modules, a shortcut over each three.
        kernels: their lengths.
    """

    def __init__(
        self, dimensions: int, filters: int = 32, depth: int = 6,
        kernels: tuple[int, ...] = (39, 19, 9),
    ) -> None:  # fmt: skip
        super().__init__()
        width = filters * (len(kernels) + 1)
        self.modules_ = nn.ModuleList()
        self.shortcuts = nn.ModuleList()
        inputs = dimensions
        for place in range(depth):
            self.modules_.append(_Module(inputs if place == 0 else width, filters, kernels))
            if place % 3 == 2:
                self.shortcuts.append(
                    nn.Sequential(nn.Conv1d(inputs, width, 1, bias=False), nn.BatchNorm1d(width))
                )
                inputs = width
        self.width = width

    def forward(self, series: Tensor, mask: Tensor) -> Tensor:
        """Of N x dimensions x steps, and N x 1 x steps of 0 and 1."""
        made = series * mask
        before = made
        for place, module in enumerate(self.modules_):
            made = module(made) * mask
            if place % 3 == 2:
                made = torch.relu(made + self.shortcuts[place // 3](before)) * mask
                before = made
        return made.sum(2) / mask.sum(2).clamp(min=1)


class _Module(nn.Module):
    def __init__(self, inputs: int, filters: int, kernels: tuple[int, ...]) -> None:
        super().__init__()
        narrow = inputs > 1
        self.bottleneck = nn.Conv1d(inputs, filters, 1, bias=False) if narrow else nn.Identity()
        own = filters if narrow else inputs
        self.convolutions = nn.ModuleList(
            nn.Conv1d(own, filters, size, padding=size // 2, bias=False) for size in kernels
        )
        self.pooled = nn.Conv1d(inputs, filters, 1, bias=False)
        self.norm = nn.BatchNorm1d(filters * (len(kernels) + 1))

    def forward(self, series: Tensor) -> Tensor:
        narrow = self.bottleneck(series)
        parts = [each(narrow) for each in self.convolutions]
        parts.append(self.pooled(nn.functional.max_pool1d(series, 3, 1, 1)))
        return torch.relu(self.norm(torch.cat(parts, 1)))

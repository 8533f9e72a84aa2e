"""MiniRocket (Dempster et al., 2021) in torch: features of series that nothing is trained for."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_SIZE, _KERNELS = 9, 84
#: Dilations of a kernel, at most.
_DILATIONS = 32
_GOLDEN = (5**0.5 + 1) / 2


def kernels() -> Tensor:
    """The 84 kernels, 84 x 9: -1, and 2 at three places."""
    made = torch.full((_KERNELS, _SIZE), -1.0)
    for row, places in enumerate(combinations(range(_SIZE), 3)):
        made[row, list(places)] = 2.0
    return made


def dilations(steps: int, features: int) -> tuple[list[int], list[int]]:
    """The dilations for series of so many steps, and how many features each kernel has of each."""
    each = features // _KERNELS
    most = min(each, _DILATIONS)
    exponent = np.log2(max(steps - 1, _SIZE - 1) / (_SIZE - 1))
    sizes, counts = np.unique(
        np.logspace(0, exponent, most, base=2).astype(np.int32), return_counts=True
    )
    shares = (counts * (each / most)).astype(np.int32)
    for extra in range(each - int(shares.sum())):
        shares[extra % len(shares)] += 1
    return sizes.tolist(), shares.tolist()


class MiniRocket(nn.Module):
    """Features in [0, 1] of series N x dimensions x steps: how much of a convolution is above a
    threshold. `take` finds the thresholds.

    Args:
        dimensions, steps: of a series, at least 9 steps.
        features: about so many: a multiple of 84.
        seed: of the series whose convolutions give thresholds, and of the dimensions of a kernel.
    """

    biases: Tensor
    channels: Tensor

    def __init__(self, dimensions: int, steps: int, features: int = 10_000, seed: int = 0) -> None:
        super().__init__()
        self.sizes, self.shares = dilations(steps, features)
        self.dimensions, self.seed = dimensions, seed
        self.count = _KERNELS * sum(self.shares)
        self.register_buffer("kernels", kernels()[:, None], persistent=False)
        #: Thresholds, by dilation, kernel and feature.
        self.register_buffer("biases", torch.zeros(self.count))
        #: Which dimensions a kernel sees, dilations x 84 x dimensions of 0 and 1.
        self.register_buffer("channels", torch.ones(len(self.sizes), _KERNELS, dimensions))

    def take(self, series: Tensor) -> None:
        """Find the thresholds: quantiles of convolutions of series drawn from these."""
        draw = np.random.RandomState(self.seed)
        if self.dimensions > 1:
            self.channels.copy_(self._draw_channels(draw))
        count = sum(self.shares) * _KERNELS
        levels = ((np.arange(1, count + 1) * _GOLDEN) % 1).astype(np.float32)
        made = np.empty(count, np.float32)
        begin = 0
        for place, (size, share) in enumerate(zip(self.sizes, self.shares, strict=True)):
            rows = torch.as_tensor(draw.randint(len(series), size=_KERNELS))
            unique, which = rows.unique(return_inverse=True)
            found = self._convolved(series[unique], place, size)
            for kernel in range(_KERNELS):
                values = found[which[kernel], kernel].numpy()
                made[begin : begin + share] = np.quantile(values, levels[begin : begin + share])
                begin += share
        self.biases.copy_(torch.from_numpy(made))

    def _draw_channels(self, draw: Any) -> Tensor:
        most = min(self.dimensions, _SIZE)
        made = torch.zeros(len(self.sizes) * _KERNELS, self.dimensions)
        counts = (2 ** draw.uniform(0, np.log2(most + 1), len(made))).astype(np.int32)
        for row, count in enumerate(counts):
            made[row, draw.choice(self.dimensions, count, replace=False)] = 1.0
        return made.reshape(len(self.sizes), _KERNELS, self.dimensions)

    def _convolved(self, series: Tensor, place: int, size: int) -> Tensor:
        """N x 84 x steps: each kernel, summed over the dimensions that it sees."""
        count, dimensions, steps = series.shape
        made = nn.functional.conv1d(
            series.reshape(count * dimensions, 1, steps), self.kernels, dilation=size,  # type: ignore[arg-type]
            padding=(_SIZE - 1) * size // 2,
        ).reshape(count, dimensions, _KERNELS, -1)  # fmt: skip
        if dimensions == 1:
            return made[:, 0]
        return torch.einsum("ndks,kd->nks", made, self.channels[place])

    def forward(self, series: Tensor) -> Tensor:
        """N x features."""
        found, begin = [], 0
        for place, (size, share) in enumerate(zip(self.sizes, self.shares, strict=True)):
            made = self._convolved(series, place, size)
            biases = self.biases[begin : begin + share * _KERNELS].reshape(_KERNELS, share)
            begin += share * _KERNELS
            # Kernels take turns: with the zeros around a series, and without.
            padded = slice(place % 2, None, 2), slice(1 - place % 2, None, 2)
            edge = (_SIZE - 1) * size // 2
            inside = made[..., edge : made.shape[2] - edge]
            every: list[Tensor] = []
            for feature in range(share):
                bias = biases[:, feature, None]
                whole = (made[:, padded[0]] > bias[padded[0]]).float().mean(2)
                part = (inside[:, padded[1]] > bias[padded[1]]).float().mean(2)
                both = torch.stack([whole, part] if place % 2 == 0 else [part, whole], 2)
                every.append(both.flatten(1))
            found.append(torch.stack(every, 2).flatten(1))
        return torch.cat(found, 1)

"""Networks that say what a series is: rocket and inception."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trainbus import UsageError
from trainbus.errors import nearest
from trainbus_series.inception import Inception
from trainbus_series.rocket import MiniRocket

#: What may be asked for by name, with its source.
SERIES_ARCHS = {
    "rocket": "MiniRocket (Dempster et al., 2021) and a ridge regression",
    "inception": "InceptionTime, one network (Ismail Fawaz et al., 2020)",
}
#: The shortest series that kernels of length 9 fit.
_SHORTEST = 9


class SeriesModel(nn.Module):
    """Outputs N x outputs of (series N x dimensions x steps, lengths N).

    Args:
        dimensions, steps, outputs: of the data.
        arch: of `SERIES_ARCHS`.
        network: options of the network: features, seed, steps_too; filters, depth.
    """

    def __init__(
        self, dimensions: int, steps: int, outputs: int, arch: str = "rocket", **network: Any
    ) -> None:
        super().__init__()
        if arch not in SERIES_ARCHS:
            raise UsageError(
                f"arch={arch!r}: there is no such network{nearest(arch, SERIES_ARCHS)} There are "
                f"{', '.join(SERIES_ARCHS)}; or give a module that is called with (series, lengths)"
            )
        self.description = {
            "dimensions": dimensions, "steps": steps, "outputs": outputs, "arch": arch, **network,
        }  # fmt: skip
        made = {"rocket": Rocket, "inception": _Inception}[arch]
        self.body = made(dimensions, steps, **network)
        self.head = nn.Linear(self.body.width, outputs)

    def forward(self, series: Tensor, lengths: Tensor) -> Tensor:
        """Logits, or numbers."""
        return self.head(self.body(series, lengths))  # type: ignore[no-any-return]


def rebuild(**description: Any) -> SeriesModel:
    """The model that `SeriesModel.description` described."""
    return SeriesModel(**description)


class Rocket(nn.Module):
    """Features that nothing is trained for, standardized, of dimensions that are: see `MiniRocket`.

    Args:
        dimensions, steps: of a series.
        features: about so many, of series, and of their steps.
        steps_too: whether there are features of the steps from one value to the next, too.
        seed: of thresholds.
    """

    level: Tensor
    spread: Tensor
    centre: Tensor
    scale: Tensor

    def __init__(
        self, dimensions: int, steps: int, features: int = 10_000, steps_too: bool = False,
        seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.steps = max(steps, _SHORTEST + steps_too)
        if features < 84:
            raise UsageError(f"features={features}: at least 84, one for each kernel")
        self.of_values = MiniRocket(dimensions, self.steps, features, seed)
        self.of_steps = (
            MiniRocket(dimensions, self.steps - 1, features, seed + 1) if steps_too else None
        )
        self.width = self.of_values.count + (0 if self.of_steps is None else self.of_steps.count)
        self.register_buffer("level", torch.zeros(dimensions, 1))
        self.register_buffer("spread", torch.ones(dimensions, 1))
        self.register_buffer("centre", torch.zeros(self.width))
        self.register_buffer("scale", torch.ones(self.width))

    def _long_enough(self, series: Tensor) -> Tensor:
        series = (series - self.level) / self.spread
        missing = self.steps - series.shape[2]
        return nn.functional.pad(series, (0, missing)) if missing > 0 else series

    def raw(self, series: Tensor) -> Tensor:
        """N x width, in [0, 1]."""
        series = self._long_enough(series)
        made = self.of_values(series)
        if self.of_steps is None:
            return made
        return torch.cat([made, self.of_steps(series.diff(dim=2))], 1)

    def take(self, series: Tensor, block: int = 64) -> Tensor:
        """Find thresholds and scales on the series of training; returns their features."""
        with torch.no_grad():
            self.level.copy_(series.mean((0, 2))[:, None])
            self.spread.copy_(series.std((0, 2), correction=0).clamp(min=1e-6)[:, None])
            long = self._long_enough(series)
            self.of_values.take(long)
            if self.of_steps is not None:
                self.of_steps.take(long.diff(dim=2))
            made = torch.cat([self.raw(each) for each in series.split(block)])
            self.centre.copy_(made.mean(0))
            spread = made.std(0, correction=0)
            self.scale.copy_(torch.where(spread > 1e-6, spread + 1e-3, 1.0))
            return (made - self.centre) / self.scale

    def forward(self, series: Tensor, lengths: Tensor) -> Tensor:
        """N x width."""
        with torch.no_grad():
            return (self.raw(series) - self.centre) / self.scale


class _Inception(nn.Module):
    centre: Tensor
    scale: Tensor

    def __init__(self, dimensions: int, steps: int, **options: Any) -> None:
        super().__init__()
        self.net = Inception(dimensions, **options)
        self.width = self.net.width
        self.register_buffer("centre", torch.zeros(dimensions, 1))
        self.register_buffer("scale", torch.ones(dimensions, 1))

    def take(self, series: Tensor) -> None:
        """Take mean and deviation of each dimension of training."""
        self.centre.copy_(series.mean((0, 2))[:, None])
        self.scale.copy_(series.std((0, 2), correction=0).clamp(min=1e-6)[:, None])

    def forward(self, series: Tensor, lengths: Tensor) -> Tensor:
        steps = torch.arange(series.shape[2], device=series.device)
        mask = (steps < lengths[:, None])[:, None].to(series.dtype)
        made: Tensor = self.net((series - self.centre) / self.scale, mask)
        return made

"""What is forecast: the steps of the horizon, their loss, and how wrong a forecast of them is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from trainbus_data import Block, DataError
from trainbus_data.metrics import Counts

#: What an error costs, by name.
LOSSES = ("mse", "mae", "huber")
QUANTILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
#: What is added to the spread of a window: one that does not vary is not known to the point.
FLOOR = 0.1
#: The columns of what is known about the series of a window.
CENTRE, SCALE, NAIVE, SPREAD = range(4)


class History(Block):
    """The steps before: float32, N x lookback x channels, the first being the series."""

    kind = "history"


class Ahead(Block):
    """What is known ahead: float32, N x (lookback + horizon) x features."""

    kind = "ahead"


class Static(Block):
    """What is known of a series: float32, N x features."""

    kind = "static"


class About(Block):
    """Of the series of a window: its mean, its deviation, and the error of the season before, in
    its units; and how much the window itself varies, in deviations. float64, N x 4.
    """

    kind = "about"


class Horizon(Block):
    """The steps that are forecast: float32, N x horizon, in deviations; NaN where not known.

    Args:
        horizon: how many.
        loss: what an error costs: "mse", "mae" or "huber".
        quantiles: that a forecast has; the outermost are the interval whose coverage is measured.
        transform: "log", or nothing.
    """

    kind = "series"

    def __init__(
        self, horizon: int, loss: str = "mse", quantiles: Sequence[float] = QUANTILES,
        transform: str | None = None,
    ) -> None:  # fmt: skip
        if loss not in LOSSES:
            raise DataError(f"loss={loss!r}: one of {', '.join(LOSSES)}")
        levels = list(quantiles)
        if levels != sorted(set(levels)) or not levels or levels[0] <= 0 or levels[-1] >= 1:
            raise DataError(f"quantiles={levels!r}: between 0 and 1, each greater than the last")
        if transform not in (None, "log"):
            raise DataError(f"transform={transform!r}: 'log', or leave it out")
        self.horizon, self.loss_name, self.quantiles = horizon, loss, levels
        self.transform = transform
        #: Whether errors are told in deviations of the training part, or in units.
        self.scaled = False
        #: Where each quantile lies beside the forecast, quantiles x horizon, in what a window
        #: spreads; None before they are calibrated.
        self.offsets: Tensor | None = None

    def together(self, others: Sequence[Block]) -> Block:
        """This, with what is known about the series behind it."""
        return self

    def pack(self, targets: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Both as one target."""
        return tuple(targets)

    def loss(self) -> Callable[[Any, Any], Tensor]:
        """The mean over the steps that are known."""
        return KnownLoss(self.loss_name)

    def metrics(self) -> dict[str, Any]:
        """Over all windows and steps that are known."""
        return {
            "mse": Mean(self, _square),
            "mae": Mean(self, _absolute),
            "smape": Mean(self, _symmetric),
            "mase": Mean(self, _to_naive),
        }

    def of_quantiles(self) -> dict[str, Any]:
        """What is measured besides, of quantiles that are calibrated."""
        return {"coverage": Mean(self, _covered), "crps": Mean(self, _ranked)}

    def options(self) -> dict[str, Any]:
        """Horizon, loss, quantiles and transform."""
        return {
            "horizon": self.horizon, "loss": self.loss_name, "quantiles": self.quantiles,
            "transform": self.transform,
        }  # fmt: skip

    def in_units(self, values: Tensor, about: Tensor) -> Tensor:
        """Values in deviations, N x horizon, in the units of their series."""
        made = values * about[:, SCALE, None] + about[:, CENTRE, None]
        return made.exp() if self.transform == "log" else made

    def around(self, given: Tensor, spread: Tensor) -> Tensor:
        """The quantiles of forecasts, N x quantiles x horizon, in deviations."""
        assert self.offsets is not None
        return given[:, None] + self.offsets.to(given) * (spread[:, None, None] + FLOOR)

    def decode(self, value: Tensor) -> Any:
        """The numbers."""
        return value.tolist()


class KnownLoss:
    """The loss of the steps that are known; a batch weighs as much as it has of them.

    Args:
        name: "mse", "mae", or "huber" (Huber, 1964).
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.__name__ = f"{name} of the steps that are known, in deviations"
        #: "mean", or "none" for the loss of each window.
        self.reduction = "mean"

    def __call__(self, output: Tensor, target: Any) -> Tensor:
        """Of N x horizon, and (N x horizon, about)."""
        wanted = target[0]
        known = ~torch.isnan(wanted)
        wrong = torch.where(known, output.float() - wanted, 0.0)
        if self.name == "mse":
            cost = wrong.square()
        elif self.name == "mae":
            cost = wrong.abs()
        else:
            cost = torch.nn.functional.huber_loss(wrong, torch.zeros_like(wrong), reduction="none")
        if self.reduction == "none":
            return cost.sum(1) / known.sum(1).clamp(min=1)
        return cost.sum() / known.sum().clamp(min=1)

    def counted(self, target: Any) -> Tensor:
        """How many steps are known."""
        return (~torch.isnan(target[0])).sum()


class Mean(Counts):
    """The mean of something over all steps of all windows of a pass, in float64.

    Args:
        target: knows the scale and the interval.
        each: gives it for (forecast, what came, about, target), N x horizon; NaN does not count.
    """

    def __init__(self, target: Horizon, each: Callable[..., Tensor]) -> None:
        super().__init__()
        self.target, self._each = target, each

    def update(self, output: Tensor, target: Any) -> None:
        """Count a batch."""
        values = self._each(output.double(), target[0].double(), target[1], self.target)
        known = ~torch.isnan(values)
        self.add(torch.where(known, values, 0.0).sum(), known.sum())

    def compute(self) -> Tensor:
        """The mean; NaN of nothing."""
        return self.ratio()


def _wrong(given: Tensor, came: Tensor, about: Tensor, target: Horizon) -> Tensor:
    if target.scaled:
        return given - came
    return target.in_units(given, about) - target.in_units(came, about)


def _square(given: Tensor, came: Tensor, about: Tensor, target: Horizon) -> Tensor:
    return _wrong(given, came, about, target).square()


def _absolute(given: Tensor, came: Tensor, about: Tensor, target: Horizon) -> Tensor:
    return _wrong(given, came, about, target).abs()


def _symmetric(given: Tensor, came: Tensor, about: Tensor, target: Horizon) -> Tensor:
    """200 |y - f| / (|y| + |f|), of M4 (Makridakis et al., 2020), in units; of 0 and 0 it is 0."""
    given, came = target.in_units(given, about), target.in_units(came, about)
    size = given.abs() + came.abs()
    return torch.where(size > 0, 200 * (given - came).abs() / size, size)


def _to_naive(given: Tensor, came: Tensor, about: Tensor, target: Horizon) -> Tensor:
    """Hyndman and Koehler (2006); series that were like themselves a season before do not count."""
    naive = about[:, NAIVE, None]
    wrong = (target.in_units(given, about) - target.in_units(came, about)).abs()
    return torch.where(naive > 0, wrong / naive, torch.nan)


def _covered(given: Tensor, came: Tensor, about: Tensor, target: Horizon) -> Tensor:
    """Whether what came lies within the outermost quantiles."""
    all_ = target.around(given, about[:, SPREAD])
    inside = (came >= all_[:, 0]) & (came <= all_[:, -1])
    return torch.where(torch.isnan(came), torch.nan, inside.double())


def _ranked(given: Tensor, came: Tensor, about: Tensor, target: Horizon) -> Tensor:
    """The continuous ranked probability score, as twice the mean pinball loss of the quantiles
    (Gneiting and Raftery, 2007).
    """
    all_ = target.around(given, about[:, SPREAD])
    if not target.scaled:
        all_ = torch.stack([target.in_units(each, about) for each in all_.unbind(1)], 1)
        came = target.in_units(came, about)
    levels = all_.new_tensor(target.quantiles)[None, :, None]
    over = came[:, None] - all_
    return 2 * torch.maximum(levels * over, (levels - 1) * over).mean(1)

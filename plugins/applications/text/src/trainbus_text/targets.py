"""What is learned of a text: numbers in their units; classes and labels are those of the data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trainbus_data import Number
from trainbus_data.metrics import Counts


class ScaledNumber(Number):
    """One or several numbers, learned with mean 0 and deviation 1, and read in their own units.

    Args:
        outputs: how many.
        centre, scale: of each; by default those of the training part.
        names: of the columns.
    """

    def __init__(
        self,
        outputs: int = 1,
        centre: Sequence[float] | None = None,
        scale: Sequence[float] | None = None,
        names: Sequence[str] = (),
    ) -> None:
        super().__init__(outputs)
        self.centre = torch.tensor(list(centre or [0.0] * outputs), dtype=torch.float64)
        self.scale = torch.tensor(list(scale or [1.0] * outputs), dtype=torch.float64)
        self._given = centre is not None
        self.names = list(names)

    def setup(self, raws: Iterable[Any]) -> None:
        """Take mean and deviation of the training part."""
        if not self._given:
            values = torch.tensor(list(raws), dtype=torch.float64).reshape(-1, self.outputs)
            self.centre, spread = values.mean(0), values.std(0, correction=0)
            self.scale = torch.where(spread > 0, spread, 1.0)

    def problem(self, raw: Any) -> str | None:
        """None: rows without a number were left out."""
        return None

    def encode(self, raw: Any) -> Tensor:
        """(outputs,) float32."""
        values = torch.tensor(raw, dtype=torch.float64).reshape(self.outputs)
        return ((values - self.centre) / self.scale).float()

    def encode_all(self, raws: Any) -> Tensor:
        """N x outputs float32."""
        values = torch.tensor(list(raws), dtype=torch.float64).reshape(-1, self.outputs)
        return ((values - self.centre) / self.scale).float()

    def in_units(self, values: Tensor) -> Tensor:
        """Numbers as a model gives them, in their units; float64."""
        return values.double() * self.scale.to(values.device) + self.centre.to(values.device)

    def decode(self, value: Tensor) -> Any:
        """A number, or one for each name."""
        values: list[float] = self.in_units(value.reshape(-1)).tolist()
        if len(values) == 1:
            return values[0]
        return dict(zip(self.names, values, strict=True)) if self.names else values

    def metrics(self) -> dict[str, Any]:
        """The root of the mean squared error, and the mean absolute error, in units."""
        return {"rmse": _InUnits(self, 2), "mae": _InUnits(self, 1)}

    def options(self) -> dict[str, Any]:
        """Count, centres, scales and names."""
        return {
            "outputs": self.outputs, "centre": self.centre.tolist(), "scale": self.scale.tolist(),
            "names": self.names,
        }  # fmt: skip


class _InUnits(Counts):
    """The mean of powers of the error over a whole pass, and its root."""

    def __init__(self, target: ScaledNumber, power: int) -> None:
        super().__init__()
        self.target, self.power = target, power

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count a batch."""
        scale = self.target.scale.to(output.device)
        wrong = ((output.reshape(target.shape) - target).double() * scale).abs() ** self.power
        self.add(wrong.sum(), torch.full_like(wrong.sum(), wrong.numel()))

    def compute(self) -> Tensor:
        """The root of the mean."""
        return self.ratio() ** (1 / self.power)


class Smoothed:
    """Cross-entropy with smoothed labels (Szegedy et al., 2016).

    Args:
        smoothing: the part of each label that is spread over all.
    """

    def __init__(self, smoothing: float) -> None:
        self.smoothing = smoothing
        #: "mean", or "none" for the loss of each text.
        self.reduction = "mean"
        self.__name__ = f"cross-entropy, labels smoothed by {smoothing:g}"

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss of N x C and (N,)."""
        return functional.cross_entropy(
            output, target, label_smoothing=self.smoothing, reduction=self.reduction
        )

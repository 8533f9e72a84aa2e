"""TableTarget: what is learned of a row, with its loss, its metrics and its units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trainbus.arguments import is_number
from trainbus_data import Block, DataError
from trainbus_tabular.measures import measures_of

#: What the parts of `trainbus` that know kinds of targets take each for.
_KINDS = {
    "class": "category", "ordinal": "category", "labels": "categories",
    "number": "number", "numbers": "number", "count": "number", "quantiles": "number",
}  # fmt: skip
#: The quantiles that are learned where none are named.
LEVELS = (0.1, 0.5, 0.9)


def checked_levels(levels: Sequence[float]) -> list[float]:
    """The levels of quantiles, rising.

    Raises:
        DataError: one is not between 0 and 1, or there are two of one.
    """
    is_list = isinstance(levels, Sequence) and not isinstance(levels, str)
    if not is_list or not levels or not all(is_number(each) and 0 < each < 1 for each in levels):
        raise DataError(f"quantiles={levels!r}: give numbers between 0 and 1, (0.1, 0.5, 0.9)")
    if len(set(levels)) < len(levels):
        raise DataError(f"quantiles={levels!r}: give each once")
    return sorted(map(float, levels))


class TableTarget(Block):
    """The target of a table, in the units of the table.

    A model gives N x outputs: logits of classes or labels, scaled numbers, the logarithm of the
    mean of a count. A scaled number is (y - centre) / scale, of y or of log(1 + y).

    Args:
        target: "class", "labels", "number", "numbers", "count", "ordinal" or "quantiles".
        outputs: how many numbers a model gives for a row.
        vocab: the classes in their order, or the labels.
        names: the columns of the target.
        centre, scale: of each number; 0 and 1 by default.
        log: for each number, whether its logarithm is learned.
        temperature: by which logits are divided to make probabilities of them: see `calibrate`.
        margin: of each number, how far below and above an interval goes, in what is learned; of
            classes the least probability of one that is in a set.
        levels: of quantiles, rising; a model gives one number for each.
    """

    kind = "number"

    def __init__(
        self,
        target: str,
        outputs: int,
        vocab: Sequence[Any] | None = None,
        names: Sequence[str] = (),
        centre: Sequence[float] = (),
        scale: Sequence[float] = (),
        log: Sequence[bool] = (),
        temperature: float = 1.0,
        margin: Sequence[float] | None = None,
        levels: Sequence[float] | None = None,
    ) -> None:
        if target not in _KINDS:
            raise DataError(f"target={target!r}: one of {', '.join(_KINDS)}")
        self.target = target
        self.kind = _KINDS[target]
        self.outputs = outputs
        self.vocab = None if vocab is None else list(vocab)
        self.names = list(names)
        self.centre = torch.tensor(list(centre) or [0.0] * outputs, dtype=torch.float64)
        self.scale = torch.tensor(list(scale) or [1.0] * outputs, dtype=torch.float64)
        self.log = torch.tensor(list(log) or [False] * outputs)
        self.temperature = temperature
        self.margin = None if margin is None else list(margin)
        self.levels = None if levels is None else checked_levels(levels)
        if self.levels is not None and len(self.levels) != outputs:
            raise DataError(f"{outputs} outputs for the quantiles {self.levels}")

    @property
    def output_names(self) -> list[str]:
        """What each number that is predicted is called."""
        if self.levels is not None and self.names:
            return [f"{self.names[0]}_q{level:g}" for level in self.levels]
        return self.names

    # --- what outputs mean -----------------------------------------------------------------------

    def activation(self, output: Tensor) -> Tensor:
        """Probabilities of classes or labels, means of counts, scaled numbers."""
        if self.kind == "category":
            return (output / self.temperature).softmax(1)
        if self.kind == "categories":
            return (output / self.temperature).sigmoid()
        if self.target == "quantiles":  # that cross each other change places
            return output.sort(1).values
        return output.exp() if self.target == "count" else output

    def read(self, probabilities: Tensor) -> Tensor:
        """Indices, zeros and ones, or numbers as the target has them."""
        if self.kind == "category":
            return probabilities.argmax(1)
        return (probabilities > 0.5).float() if self.kind == "categories" else probabilities

    def in_units(self, values: Tensor) -> Tensor:
        """Numbers of the target (N x outputs, or one row) in the units of the table, float64."""
        if self.target == "count":
            return values.double()
        device = values.device
        values = values.double() * self.scale.to(device) + self.centre.to(device)
        return torch.where(self.log.to(device), values.expm1(), values)

    def decode(self, value: Tensor) -> Any:
        """A label, a list of labels, a number or a dictionary of numbers."""
        if self.kind == "category":
            return int(value) if self.vocab is None else self.vocab[int(value)]
        if self.kind == "categories":
            places = value.nonzero().flatten().tolist()
            return [place if self.vocab is None else self.vocab[place] for place in places]
        values = self.in_units(value.reshape(-1)).tolist()
        if len(values) == 1:
            return values[0]
        return dict(zip(self.output_names or map(str, range(len(values))), values, strict=True))

    def bounds(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The ends of the intervals around numbers of the target (N x outputs), in units."""
        margin = torch.tensor(self.margin, dtype=torch.float64)
        if self.target == "count":  # in units of the root, whose spread is even
            root = values.double().sqrt()
            return (root - margin).clamp(min=0).square(), (root + margin).square()
        return self.in_units(values.double() - margin), self.in_units(values.double() + margin)

    def decoded_set(self, probabilities: Tensor) -> list[Any]:
        """The classes that may be it, the most probable first; the first one always."""
        least = (self.margin or [1.0])[0]
        order = probabilities.argsort(descending=True).tolist()
        kept = [place for place in order if probabilities[place] >= least] or order[:1]
        return [place if self.vocab is None else self.vocab[place] for place in kept]

    def output_of(self, values: Tensor) -> Tensor:
        """What a model would give for numbers as the target has them."""
        return values.clamp(min=1e-3).log() if self.target == "count" else values

    # --- how they are learned --------------------------------------------------------------------

    def loss(self) -> Callable[[Any, Any], Tensor]:
        """The mean over rows, weighted where the target has weights with it."""
        return TableLoss(self.target, self.levels)

    def metrics(self) -> dict[str, Any]:
        """Over all rows of a pass, numbers in the units of the table."""
        return dict(measures_of(self))

    def options(self) -> dict[str, Any]:
        """JSON values that make an equal one."""
        made: dict[str, Any] = {"target": self.target, "outputs": self.outputs}
        if self.vocab is not None:
            made["vocab"] = self.vocab
        if self.names:
            made["names"] = self.names
        if self.kind == "number" and self.target != "count":
            made |= {
                "centre": self.centre.tolist(), "scale": self.scale.tolist(),
                "log": self.log.tolist(),
            }  # fmt: skip
        if self.temperature != 1:
            made["temperature"] = self.temperature
        if self.levels is not None:
            made["levels"] = self.levels
        if self.margin is not None:
            made["margin"] = self.margin
        return made

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> TableTarget:
        """What `options` described.

        Raises:
            DataError: they describe none.
        """
        try:
            return cls(**options)
        except TypeError as error:
            raise DataError(f"this is no target of a table: {error}") from None


class TableLoss:
    """The loss of outputs, and of a target with or without weights.

    Cross-entropy of classes and of labels, squared error of scaled numbers, the likelihood of
    Poisson for counts, the pinball loss of quantiles (Koenker and Bassett, 1978). Of classes in an
    order the ranked probability score is added (Epstein, 1969): what is far from right costs more.

    Args:
        target: the kind of target.
        levels: of quantiles.
    """

    def __init__(self, target: str, levels: Sequence[float] | None = None) -> None:
        self.target = target
        self.levels = levels
        #: "mean", or "none" for the loss of each row.
        self.reduction = "mean"
        self.__name__ = {
            "class": "cross-entropy", "labels": "binary cross-entropy", "count": "Poisson",
            "ordinal": "cross-entropy and ranked probability score", "quantiles": "pinball loss",
        }.get(target, "squared error")  # fmt: skip

    def __call__(self, output: Tensor, target: Any) -> Tensor:
        """The loss of N x outputs, and N or N x outputs; or of these and N weights."""
        weight = None
        if isinstance(target, tuple):
            target, weight = target
        if self.target == "class" and weight is None and self.reduction == "mean":
            return functional.cross_entropy(output, target)
        each = self._each(output, target)
        if self.reduction == "none":
            return each
        return each.mean() if weight is None else (each * weight).sum() / weight.sum()

    def _each(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss of each row."""
        if self.target in ("class", "ordinal"):
            each = functional.cross_entropy(output, target, reduction="none")
            if self.target == "class":
                return each
            steps = torch.arange(output.shape[1], device=output.device)
            reached = (steps >= target[:, None]).float()
            return each + (output.softmax(1).cumsum(1) - reached).square().sum(1)
        target = target.reshape(output.shape)
        if self.target == "labels":
            values = functional.binary_cross_entropy_with_logits(output, target, reduction="none")
        elif self.target == "count":
            values = functional.poisson_nll_loss(output, target, reduction="none")
        elif self.levels is not None:
            over, levels = target - output, output.new_tensor(self.levels)
            values = torch.maximum(levels * over, (levels - 1) * over)
        else:
            values = (output - target).square()
        return values.mean(1)

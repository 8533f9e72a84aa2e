"""Which metrics a learner measures: those of its target, or those that were asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trainbus import UsageError
from trainbus.errors import nearest
from trainbus_learner.plain import PlainTarget
from trainbus_learner.task import name_of

Metrics = Mapping[str, Any] | Sequence[Any]


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """The part that is right: outputs N x C x ..., indices N x ..., or probabilities N x C."""
    wanted = target.argmax(dim=1) if target.ndim == output.ndim else target
    return (output.argmax(dim=1) == wanted).float().mean()


def error_rate(output: Tensor, target: Tensor) -> Tensor:
    """The part that is wrong."""
    return 1 - accuracy(output, target)


def top_5(output: Tensor, target: Tensor) -> Tensor:
    """The part whose class is among the five of the greatest outputs N x C."""
    best = output.topk(min(5, output.shape[1]), dim=1).indices
    return (best == target[:, None]).any(dim=1).float().mean()


def labels_accuracy(output: Tensor, target: Tensor) -> Tensor:
    """The part of all labels of all items that is right, of logits N x C."""
    return ((output > 0) == (target > 0.5)).float().mean()


def mae(output: Tensor, target: Tensor) -> Tensor:
    """The mean absolute error."""
    return (output.reshape(target.shape) - target).abs().mean()


def mse(output: Tensor, target: Tensor) -> Tensor:
    """The mean squared error."""
    return functional.mse_loss(output.reshape(target.shape), target)


class RootMeanSquare:
    """The root of the mean squared error over all of a pass."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self._sum: Tensor | float = 0.0
        self._count = 0

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count a batch; the device is not waited for."""
        self._sum = self._sum + (output.reshape(target.shape) - target).square().sum()
        self._count += target.numel()

    def compute(self) -> Tensor:
        """The root of the mean."""
        return torch.as_tensor(self._sum / max(1, self._count)).sqrt()


class MacroF1:
    """The F1 score of each class over all of a pass, and their mean; of outputs N x C.

    Classes that neither occur nor are predicted are left out of the mean.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self._counts: Tensor | None = None

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count right ones, predictions and targets of each class; the device is not waited for."""
        classes = output.shape[1]
        given = functional.one_hot(output.argmax(dim=1).flatten(), classes)
        wanted = functional.one_hot(target.flatten(), classes)
        counts = torch.stack([(given & wanted).sum(0), given.sum(0) + wanted.sum(0)])
        self._counts = counts if self._counts is None else self._counts + counts

    def compute(self) -> Tensor:
        """The mean over the classes."""
        if self._counts is None:
            return torch.tensor(0.0)
        both, either = self._counts.double()
        mean: Tensor = (2 * both / either).nanmean().float()
        return mean


#: What may be asked for by name, for each kind of target.
NAMED: dict[str, dict[str, Callable[[], Any]]] = {
    "category": {
        "accuracy": lambda: accuracy,
        "error_rate": lambda: error_rate,
        "top_5": lambda: top_5,
        "f1": MacroF1,
    },
    "mask": {"accuracy": lambda: accuracy, "error_rate": lambda: error_rate},
    "categories": {"accuracy": lambda: labels_accuracy},
    "number": {"mae": lambda: mae, "mse": lambda: mse, "rmse": RootMeanSquare},
}
#: What is measured where nothing was asked for, with plain loaders.
_USUAL = {"category": ["accuracy"], "categories": ["accuracy"], "number": []}


def chosen(asked: Metrics | None, target: Any) -> tuple[dict[str, Any], str]:
    """The metrics by name, and why it is these.

    Args:
        asked: a mapping; a list of names, functions, and objects; or None for those of the target.
        target: the block of the target.

    Raises:
        UsageError: a name that is not known for such targets.
    """
    plain = isinstance(target, PlainTarget)
    own = {} if plain else dict(target.metrics())
    known = {**{name: make() for name, make in NAMED.get(target.kind, {}).items()}, **own}
    if asked is None:
        if plain:
            names = _USUAL[target.kind]
            return {name: known[name] for name in names}, f"usual for a {target.kind} target"
        return own, f"those of {type(target).__name__}"
    if isinstance(asked, Mapping):
        return dict(asked), "given"
    if isinstance(asked, str) or not isinstance(asked, Sequence):
        raise UsageError(f"metrics={asked!r:.80}: give a list of names, or a mapping by name")
    found: dict[str, Any] = {}
    for each in asked:
        if not isinstance(each, str):
            found[name_of(each).lower() if hasattr(each, "compute") else name_of(each)] = each
        elif each in known:
            found[each] = known[each]
        else:
            raise UsageError(
                f"metrics: there is no {each!r} for a {target.kind} target{nearest(each, known)} "
                f"By name there are {', '.join(known) or 'none'}; give functions as "
                "{'name': function of (output, target)}"
            )
    return found, "given"

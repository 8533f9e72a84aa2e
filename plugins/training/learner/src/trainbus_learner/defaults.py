"""What a learner chooses where nothing was said, and how it is written."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from importlib.metadata import entry_points
from typing import Any

from torch import nn

from trainbus import Trainer, UsageError, optimizer_named
from trainbus_data.words import instead
from trainbus_learner.groups import Rates

logger = logging.getLogger("trainbus")
#: Fewer steps from scratch than these do not get a network of so many parameters far.
_FEW_STEPS, _MANY_PARAMETERS = 100, 1_000_000
#: The usual rate of Adam; and the first rate of fine-tuning, found by fastai on many data.
LR, FINE_TUNE_LR = 1e-3, 2e-3
USUAL = "usual for AdamW"
NAME = "AdamW"
OPTIMIZER = (
    "AdamW, betas 0.9 and 0.99, eps 1e-5, weight decay 0.01 but for biases and norms (the default)"
)


def rate(lr: Rates | None, optimizer: Any) -> tuple[Rates, str]:
    """The learning rate to use where a fit says none, and why."""
    if lr is not None:
        return lr, "given"
    if isinstance(optimizer, partial) and "lr" in optimizer.keywords:
        return optimizer.keywords["lr"], "from the optimizer given"
    if isinstance(optimizer, str):
        optimizer = optimizer_named(optimizer)
    if getattr(optimizer, "takes_model", False):  # its rate may be of another size than AdamW's
        own = (
            getattr(optimizer, "lr", None) or inspect.signature(optimizer).parameters["lr"].default
        )
        return own, "usual for the optimizer given"
    return LR, USUAL


def check_options(options: Mapping[str, Any], own: Iterable[str]) -> None:
    """Refuse what neither a learner nor a trainer takes. Raises `UsageError`."""
    known = set(inspect.signature(Trainer.__init__).parameters) - {"self"}
    for name in options:
        if name == "epochs":
            raise UsageError("Learner(epochs=...): give the epochs to fit, or another verb")
        if name not in known:
            raise UsageError(
                f"Learner({name}=...): neither Learner nor Trainer has such an argument"
                f"{_elsewhere(name) or instead(name, {*known, *own})}"
            )


def _elsewhere(name: str) -> str:
    """What is said where the data are made, and not to a learner."""
    where = {"bs": "batch_size", "batch_size": "batch_size", "num_workers": "num_workers"}
    return f"; {where[name]}= goes to what makes the data" if name in where else ""


def title(network: str, data: Any) -> str:
    """What runs are called: the network, and the data if they have a name (a folder, a file)."""
    words = (network, getattr(data, "name", ""))
    return "-".join(re.sub(r"[^\w.]+", "-", word).strip("-.") for word in words if word)[:60]


def check_optimizer(optimizer: Any) -> None:
    """Refuse what makes no optimizer. Raises `UsageError`."""
    if isinstance(optimizer, str):
        return
    if optimizer is not None and (not callable(optimizer) or isinstance(optimizer, nn.Module)):
        raise UsageError(
            f"Learner(optimizer={type(optimizer).__name__}): give what makes an optimizer of "
            "groups of parameters: torch.optim.SGD, functools.partial(torch.optim.SGD, "
            "momentum=0.9), or the name of an installed one, 'muon'"
        )


def installed(plugin: str) -> bool:
    """Whether a distribution offers a plugin of this name; it is not imported."""
    return bool(entry_points(group="trainbus.plugins", name=plugin))


def written(lr: Rates) -> str:
    """Learning rates as they were given."""
    return f"{lr:g}" if isinstance(lr, (int, float)) else str(lr)


def each_rate(rates: Sequence[float]) -> str:
    """The learning rates of groups, or the one that all have."""
    return f"{rates[-1]:.3g}" if len(set(rates)) == 1 else ", ".join(f"{r:.3g}" for r in rates)


def counted(parameters: Iterable[nn.Parameter]) -> str:
    """How many numbers there are, and how many of them are trained."""
    those = list(parameters)
    total = sum(p.numel() for p in those)
    trained = sum(p.numel() for p in those if p.requires_grad)
    return f"{total:,} parameters" + ("" if trained == total else f", {trained:,} of them trained")


def say_if_few_steps(model: nn.Module, loader: Any, epochs: int) -> None:
    """Say it if a training from scratch is too short for so large a network."""
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    each = len(loader) if hasattr(loader, "__len__") else _FEW_STEPS
    if parameters < _MANY_PARAMETERS or epochs * each >= _FEW_STEPS:
        return
    logger.warning(
        "%d steps are few for %.3g million parameters from scratch: more epochs, smaller batches "
        "or a smaller network learn more, or weights to begin with (weights=)",
        epochs * each, parameters / 1e6,
    )  # fmt: skip

"""What cannot work is refused when an optimizer is built, in one sentence."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from trainbus.errors import UsageError

if TYPE_CHECKING:
    from trainbus_optim.blocks import Block

logger = logging.getLogger("trainbus")

#: Numbers that are averaged with: from 0 up to, not including, 1.
_AVERAGING = {"beta", "betas", "alpha", "rho", "shampoo_beta"}
#: Numbers that may be negative.
_SIGNED = {"b2_decay", "beta2_decay", "r", "weight_lr_power"}


def check_number(name: str, value: Any, where: str) -> None:
    """Refuse a value that no step can be made with. Raises `UsageError`."""
    if isinstance(value, (tuple, list)):
        for each in value:
            _check_one(name, each, f"{where}({name}={value!r})")
        return
    _check_one(name, value, f"{where}({name}={value!r})")


def _check_one(name: str, value: Any, what: str) -> None:
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise UsageError(f"{what}: give one number, or a tensor with one element")
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UsageError(f"{what}: give a number")
    if name in _AVERAGING and not 0 <= value < 1:
        raise UsageError(
            f"{what}: give numbers from 0 up to, not including, 1: with 1 an average never moves"
        )
    if value < 0 and name not in _SIGNED:
        hint = "; to go up instead of down, say maximize=True" if name == "lr" else ""
        raise UsageError(f"{what}: give 0 or more{hint}")


def check_order(blocks: Sequence[Block]) -> None:
    """Refuse chains that mean nothing; say what is most likely a mistake. Raises `UsageError`."""
    names = [each.name for each in blocks]
    decays = [each.name for each in blocks if each.role in ("decay", "l2")]
    if len(decays) > 1:
        raise UsageError(
            f"the chain {', '.join(names)} decays twice ({' and '.join(decays)}); take one of them "
            "out: decay(...) is AdamW's, l2(...) adds to the gradient"
        )
    scales = [each.name for each in blocks if each.role == "moments"]
    if len(scales) > 1:
        raise UsageError(
            f"the chain {', '.join(names)} makes two directions of one gradient "
            f"({' and '.join(scales)}); take one of them out"
        )
    steps = [index for index, each in enumerate(blocks) if each.role == "step"]
    if len(steps) > 1 or any(
        each.role not in ("weights", "step") for index in steps for each in blocks[index:]
    ):
        last = blocks[steps[0]].name
        raise UsageError(
            f"the chain {', '.join(names)}: {last} makes the step itself; put it at the end, once"
        )
    after = [index for index, each in enumerate(blocks) if each.role == "weights"]
    if any(each.role != "weights" for index in after for each in blocks[index:]):
        raise UsageError(
            f"the chain {', '.join(names)}: {blocks[after[0]].name} looks at the weights after the "
            "step; put it at the end"
        )
    _tell_unusual(blocks, names)


def _tell_unusual(blocks: Sequence[Block], names: list[str]) -> None:
    moments = next((i for i, each in enumerate(blocks) if each.role == "moments"), None)
    if moments is None:
        return
    for index, each in enumerate(blocks):
        if each.role == "l2" and index > moments:
            logger.warning(
                "optim: in %s coupled decay (l2) comes after the moments, where it is scaled by "
                "nothing; usual is l2 before them, or decay after them", ", ".join(names),
            )  # fmt: skip
        if each.role == "decay" and index < moments:
            logger.warning(
                "optim: in %s decay comes before the moments, and what they make of the gradient "
                "does not contain it; usual is after them", ", ".join(names),
            )  # fmt: skip
        if each.role == "gradient" and index > moments:
            logger.warning(
                "optim: in %s %s comes after the moments, and works on the update; usual is "
                "before them, on the gradient", ", ".join(names), each.name,
            )  # fmt: skip

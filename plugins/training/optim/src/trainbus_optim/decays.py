"""Weight decay."""

from __future__ import annotations

from typing import Any

from trainbus_optim.blocks import block
from trainbus_optim.program import Tracer
from trainbus_optim.update import Update


@block(
    per_group=["weight_decay"], reach="affine", role="decay",
    formula="p = p - lr weight_decay p, in the same step",
)  # fmt: skip
def decay(t: Tracer, update: Update, weight_decay: Any = 0.01) -> Any:
    """Decoupled decay, AdamW's (Loshchilov and Hutter, 2019)."""
    return update if t.is_zero("weight_decay") else update.decayed(weight_decay)


@block(per_group=["weight_decay"], role="l2", formula="g = g + weight_decay p, before the moments")
def l2(t: Tracer, update: Update, weight_decay: Any = 0.0) -> Any:
    """Coupled decay: the `weight_decay` of SGD and Adam."""
    if t.is_zero("weight_decay"):
        return update
    return update.over(update.direction().add(t.parameter, weight_decay))


@block(
    per_group=["weight_decay"], reach="affine", role="decay",
    formula="p = p - (lr / largest lr so far) weight_decay p",
)  # fmt: skip
def independent_decay(t: Tracer, update: Update, weight_decay: Any = 1e-4) -> Any:
    """Decay that does not depend on the peak of the learning rate (Wortsman et al., 2024)."""
    largest = t.running("lr_max", 0.0, t.largest("lr_max", t.lr))
    return update if t.is_zero("weight_decay") else update.decayed(weight_decay / largest)


@block(
    per_group=["weight_decay"], role="decay", formula="p = p - lr weight_decay p where u p > 0"
)  # fmt: skip
def cautious_decay(t: Tracer, update: Update, weight_decay: Any = 0.01) -> Any:
    """Decay only where the update shrinks the parameter as well (Chen et al., 2025)."""
    if t.is_zero("weight_decay"):
        return update
    direction = update.tensor()
    mask = (direction * t.parameter).sign_().clamp_(low=0.0).mul_(t.parameter)
    return direction.add_(mask, alpha=weight_decay)

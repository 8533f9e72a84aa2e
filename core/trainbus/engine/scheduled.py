"""A scheduler, and when it is stepped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trainbus.arguments import check_whole
from trainbus.errors import UsageError

Per = Literal["step", "epoch", "validation"]


@dataclass(frozen=True)
class Scheduled:
    """A scheduler, and when it is stepped; `configure_optimizer` may return some.

        return optimizer, Scheduled(StepLR(optimizer, 30), per="epoch")

    Args:
        scheduler: of torch, or one alike: timm's, that of transformers.
        per: after each optimizer step, epoch or validation.
        monitor: the metric that `ReduceLROnPlateau` goes by, each time that it was measured.
        every: it is stepped after so many steps, or epochs, at once.

    Raises:
        UsageError: it is no scheduler, or one of the arguments cannot be.
    """

    scheduler: Any
    per: Per = "step"
    monitor: str = "valid/loss"
    every: int = 1

    def __post_init__(self) -> None:
        if not is_scheduler(self.scheduler):
            raise UsageError(
                f"Scheduled({self.scheduler!r:.80}): give a scheduler, with step, state_dict and "
                "optimizer"
            )
        if self.per not in ("step", "epoch", "validation"):
            raise UsageError(f"Scheduled(per={self.per!r}): give 'step', 'epoch' or 'validation'")
        check_whole(1, UsageError, "Scheduled", every=self.every)
        if self.every > 1 and self.per == "validation":
            raise UsageError("Scheduled(every=...) counts steps or epochs, and no validations")


def is_scheduler(value: object) -> bool:
    """Whether it is a scheduler, of torch or of another library."""
    methods = (getattr(value, name, None) for name in ("step", "state_dict", "load_state_dict"))
    return all(map(callable, methods)) and hasattr(value, "optimizer")


def parted(given: Any) -> tuple[list[Any], list[Scheduled]]:
    """What `configure_optimizer` returned, as optimizers (or what stands for one) and schedulers.

    One optimizer; several; schedulers among them; a list of each; or a dict of `optimizer` and
    `scheduler`.
    """
    if isinstance(given, Scheduled):
        return [], [given]
    if is_scheduler(given):
        return [], [Scheduled(given)]
    if isinstance(given, Mapping) and "optimizer" in given:
        known = {"optimizer", "scheduler", "lr_scheduler"}
        if more := given.keys() - known:
            raise UsageError(
                f"configure_optimizer returned a dict with {', '.join(map(repr, sorted(more)))}; "
                "it has 'optimizer' and 'scheduler', a Scheduled(...) where more is to be said"
            )
        given = [given[key] for key in sorted(known, reverse=True) if key in given]
    if not isinstance(given, (list, tuple)):
        return [] if given is None else [given], []
    parts = [parted(each) for each in given]
    return [one for ones, _ in parts for one in ones], [one for _, ones in parts for one in ones]

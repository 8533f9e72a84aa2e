"""What the plugin `checkpoint` takes, and what it will not save."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from trainbus.arguments import check_number, check_whole
from trainbus.builtin.monitor import SECTION as MONITOR
from trainbus.checkpoints import states
from trainbus.errors import PluginError
from trainbus.storage.untrusted import fields, listed, maybe, number, pair, text

if TYPE_CHECKING:
    from trainbus.engine.run import Run

_NAMES = listed(text(form=states.FORM))
#: What the plugin keeps in a checkpoint.
SECTION = fields(
    {
        "monitor": maybe(MONITOR),
        "best": listed(pair(number, text(form=states.FORM))),
        "last": _NAMES,
        "superseded": _NAMES,
    }
)


def check_options(
    mode: str,
    on_error: str,
    every_minutes: float | None,
    threshold: float | None,
    **counts: int | None,
) -> None:
    """Refuse options that cannot be. Raises `PluginError`, which names the option."""
    if mode not in ("min", "max"):
        raise PluginError(f"mode={mode!r}: give 'min' or 'max'")
    if on_error not in ("raise", "warn"):
        raise PluginError(f"on_error={on_error!r}: give 'raise' or 'warn'")
    for name, count in counts.items():
        if count is not None:
            check_whole(1, **{name: count})
    if every_minutes is not None:
        check_number(above=0, every_minutes=every_minutes)
    if threshold is not None:
        check_number(threshold=threshold)


def is_finite(run: Run) -> bool:
    """Whether each number of the weights is."""
    import torch

    return all(bool(torch.isfinite(p.detach()).all()) for p in run.task.parameters())


def is_over(minutes: float | None, since: float, after: str) -> bool:
    """Whether so many minutes are over inside an epoch, since a time of the monotonic clock."""
    return minutes is not None and after == "train_batch" and monotonic() - since >= 60 * minutes

"""What the plugin `checkpoint` takes, and what it will not save."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainbus.arguments import check_number, check_whole
from trainbus.errors import PluginError

if TYPE_CHECKING:
    from trainbus.engine.run import Run


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

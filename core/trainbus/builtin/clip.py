"""Limit the norm of the gradients before each optimizer step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainbus.arguments import check_number
from trainbus.events.markers import hookimpl

if TYPE_CHECKING:
    from trainbus.engine.run import Run


class Clip:
    """Scale the gradients of an optimizer so that their norm is at most `norm`.

    All of them together count as one vector (Pascanu, Mikolov and Bengio, 2013).
    """

    def __init__(self, norm: float = 1.0) -> None:
        check_number(above=0, norm=norm)
        self.norm = norm

    @hookimpl
    def on_before_optimizer_step(self, run: Run) -> None:
        """Clip the gradients that `run.optimizer` is about to use; the device is not waited for."""
        import torch

        assert run.optimizer is not None
        parameters = [p for group in run.optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, self.norm)

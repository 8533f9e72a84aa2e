"""Limit the gradients before each optimizer step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainbus.arguments import check_number
from trainbus.errors import PluginError
from trainbus.events.markers import hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from trainbus.devices.peers import Peers
    from trainbus.engine.run import Run


class Clip:
    """Scale the gradients of an optimizer so that their norm is at most `norm`.

    All of them together count as one vector (Pascanu, Mikolov and Bengio, 2013).

    Args:
        norm: the greatest norm; 1.0 by default.
        value: in place of it, the greatest size of each number of a gradient.
    """

    def __init__(self, norm: float | None = None, value: float | None = None) -> None:
        if norm is not None and value is not None:
            raise PluginError(f"norm={norm}, value={value}: give one of them")
        norm = 1.0 if norm is None and value is None else norm
        for name, limit in {"norm": norm, "value": value}.items():
            if limit is not None:
                check_number(above=0, **{name: limit})
        self.norm = norm
        self.value = value

    @hookimpl
    def on_before_optimizer_step(self, run: Run) -> None:
        """Clip the gradients that `run.optimizer` is about to use; the device is not waited for."""
        import torch

        assert run.optimizer is not None
        parameters = [p for group in run.optimizer.param_groups for p in group["params"]]
        if self.value is not None:
            torch.nn.utils.clip_grad_value_(parameters, self.value)
        else:
            assert self.norm is not None
            _clip_norm(parameters, self.norm, run.peers)


def _clip_norm(parameters: list[Any], norm: float, peers: Peers) -> None:
    """As `torch.nn.utils.clip_grad_norm_`, with the norm of 16-bit gradients in float32.

    In float16 it overflows above 65,504, and all gradients would become 0.
    """
    import torch

    gradients = [p.grad for p in parameters if p.grad is not None]
    if peers.world_size > 1:  # each process may have a part of every gradient
        torch.nn.utils.clip_grads_with_norm_(parameters, norm, peers.norm(gradients))
        return
    if not any(each.dtype in (torch.float16, torch.bfloat16) for each in gradients):
        torch.nn.utils.clip_grad_norm_(parameters, norm)
        return
    norms = [torch.linalg.vector_norm(each, dtype=_wide(each)) for each in gradients]
    total = torch.linalg.vector_norm(torch.stack([n.to(norms[0].device) for n in norms]))
    torch.nn.utils.clip_grads_with_norm_(parameters, norm, total)


def _wide(gradient: Tensor) -> Any:
    import torch

    return torch.float64 if gradient.dtype is torch.float64 else torch.float32

"""The plugin `optim`: numbers of the steps, logged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainbus.errors import PluginError
from trainbus.events.markers import hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from trainbus.engine.run import Run


class Optim:
    """Log how large steps are: of every so many, the norm of the update beside that of the weights.

    Chains add what their blocks compute anyway: the ratios of `trust_ratio`, the norm that
    `clip_norm` measured. The device is not waited for. Steps in between cost nothing.

    Args:
        watch: steps from one that is measured to the next; 0 for none.
    """

    #: It looks at steps and changes none.
    computes = False

    def __init__(self, watch: int = 50) -> None:
        if watch < 0:
            raise PluginError(f"watch={watch}: give steps, or 0 for no measurement")
        self.watch = watch
        self._before: list[Tensor] = []

    @hookimpl
    def on_fit_start(self, run: Run) -> None:
        """Say what the optimizers are."""
        for optimizer in run.optimizers:
            if hasattr(optimizer, "explain"):
                run.header.setdefault("optimizer", repr(optimizer))

    @hookimpl
    def on_before_optimizer_step(self, run: Run) -> None:
        """Keep the weights before a step that is measured."""
        if self.watch and run.global_step % self.watch == 0:
            self._before = [each.detach().clone() for each in _stepped(run)]

    @hookimpl
    def on_after_optimizer_step(self, run: Run) -> None:
        """Log the step's size."""
        if not self._before:
            return
        before, self._before = self._before, []
        after = [each.detach() for each in _stepped(run)]
        if len(before) != len(after):
            return
        changes = [a - b for a, b in zip(after, before, strict=True)]
        step, weights = _norm(changes), _norm(before)
        values = {"optim/update_norm": step, "optim/update_ratio": step / weights.clamp(min=1e-12)}
        for name, numbers in getattr(run.optimizer, "watched", {}).items():
            if name == "gradient_norm":
                values["optim/gradient_norm"] = _norm(numbers)
            else:
                values[f"optim/{name}"] = _mean(numbers)
        run.log(values)


def _stepped(run: Run) -> list[Any]:
    assert run.optimizer is not None
    return [
        p for group in run.optimizer.param_groups for p in group["params"] if p.grad is not None
    ]


def _norm(tensors: list[Any]) -> Any:
    import torch

    norms = torch._foreach_norm(tensors)
    return torch.linalg.vector_norm(torch.stack([n.float().to(norms[0].device) for n in norms]))


def _mean(numbers: list[Any]) -> Any:
    import torch

    return torch.stack([each.float().to(numbers[0].device) for each in numbers]).mean()

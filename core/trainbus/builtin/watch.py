"""What the optimizers do: rates, norms of gradients, and how far a step moves the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainbus.events.markers import hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from trainbus.devices.peers import Peers
    from trainbus.engine.run import Run

#: Numbers of the groups that are logged, as torch calls them.
_NUMBERS = ("lr", "weight_decay", "momentum")


class Watch:
    """Log learning rates, weight decay and momentum, norms of gradients, sizes of updates.

    Nothing is computed in a step whose values are not recorded (`log_every`), and the device is not
    waited for. Norms are those of the gradients as they come from the backward pass, before `clip`.

    Args:
        rates: `lr`, `weight_decay` and `momentum` (the first of betas); of several groups
            `lr/NAME` or `lr/0`.
        gradients: `grad_norm`, of all gradients as one vector.
        updates: `update_ratio`: the norm of what a step adds to the weights, divided by theirs;
            about 0.001 is usual. It keeps a copy of the weights during the steps that record.
        layers: norms and ratios by parameter as well: `grad_norm/encoder.weight`.
    """

    observer = True

    def __init__(
        self,
        rates: bool = True,
        gradients: bool = True,
        updates: bool = False,
        layers: bool = False,
    ) -> None:
        self.rates = rates
        self.gradients = gradients
        self.updates = updates
        self.layers = layers
        self._names: dict[int, str] = {}
        #: The weights before the step at work, with their names, where it is to be measured.
        self._before: list[tuple[str, Tensor, Tensor]] = []

    @hookimpl
    def on_fit_start(self, run: Run) -> None:
        """Learn the names of the parameters."""
        self._names = {id(p): name for name, p in run.task.named_parameters()}
        self._before = []

    @hookimpl(before=["clip", "nonfinite"])
    def on_before_optimizer_step(self, run: Run) -> None:
        """Log what the optimizer is about to use."""
        if (run.global_step + (not run.stepped)) % run.trainer.log_every:
            return
        number = run.optimizers.index(run.optimizer)
        several = f"/{number}" if len(run.optimizers) > 1 else ""
        groups = run.optimizer.param_groups
        if self.rates:
            run.log(_rates(groups, several))
        parameters = [p for group in groups for p in group["params"] if p.grad is not None]
        if self.gradients and parameters:
            named = [(self._named(p), p.grad) for p in parameters]
            run.log(_norms(run.peers, "grad_norm", several, named, self.layers))
        if self.updates:
            self._before = [
                (self._named(p), p, p.detach().clone()) for p in parameters if p.numel()
            ]

    @hookimpl
    def on_after_optimizer_step(self, run: Run) -> None:
        """Log how far the step went."""
        if not self._before:
            return
        import torch

        before, self._before = self._before, []
        old = _norm_of_each(run.peers, [each for _, _, each in before])
        moved = torch._foreach_sub([p.detach() for _, p, _ in before], [e for _, _, e in before])
        new = _norm_of_each(run.peers, list(moved))
        tiny = torch.finfo(old[0].dtype).tiny
        run.log(update_ratio=torch.stack(new).norm() / torch.stack(old).norm().clamp_min(tiny))
        if self.layers:
            run.log(
                {
                    f"update_ratio/{name}": up / down.clamp_min(tiny)
                    for (name, _, _), up, down in zip(before, new, old, strict=True)
                }
            )

    def _named(self, parameter: Tensor) -> str:
        return self._names.get(id(parameter), "unnamed")


def _rates(groups: list[dict[str, Any]], several: str) -> dict[str, Any]:
    """The numbers of the groups by name; groups that all have one value are one."""
    found: dict[str, Any] = {}
    for key in _NUMBERS:
        values = [_value(group, key) for group in groups]
        known = [each for each in values if each is not None]
        if not known:
            continue
        if len(groups) == 1 or all(each is known[0] or each == known[0] for each in values):
            found[f"{key}{several}"] = known[0]
            continue
        for index, (group, value) in enumerate(zip(groups, values, strict=True)):
            if value is not None:
                found[f"{key}{several}/{group.get('name', index)}"] = value
    return found


def _value(group: dict[str, Any], key: str) -> Any:
    if key == "momentum" and "betas" in group:
        return group["betas"][0]
    return group.get(key)


def _norm_of_each(peers: Peers, tensors: list[Tensor]) -> list[Tensor]:
    """The norm of each tensor, whole; where a process has parts of them that is a meeting each."""
    import torch

    if peers.world_size > 1:
        return [peers.norm([each]) for each in tensors]
    return list(torch._foreach_norm(tensors))


def _norms(
    peers: Peers, name: str, several: str, named: list[tuple[str, Any]], layers: bool
) -> dict[str, Tensor]:
    import torch

    each = _norm_of_each(peers, [value.detach() for _, value in named])
    found = {f"{name}{several}": torch.stack([n.float() for n in each]).norm()}
    if layers:
        found |= {f"{name}/{key}": norm for (key, _), norm in zip(named, each, strict=True)}
    return found

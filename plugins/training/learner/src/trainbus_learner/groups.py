"""Groups of parameters: which there are, their learning rates, what is frozen, the optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from trainbus import UsageError

#: One for all groups; (lowest, highest), spread over them; or a list with one for each.
Rates = float | tuple[float, float] | list[float]
Groups = Callable[[nn.Module], Sequence[Any]]

#: AdamW (Loshchilov and Hutter, 2017) with a weight decay of 0.01. The second beta and epsilon are
#: fastai's: a shorter memory of squares suits a rate that moves (fast.ai, "AdamW and
#: super-convergence is now the fastest way to train neural nets", 2018), and a larger epsilon is
#: safe in half precision.
BETAS, EPSILON, WEIGHT_DECAY = (0.9, 0.99), 1e-5, 0.01


class ParameterGroups:
    """The parameters of a model in groups, the body first and the head last.

    Args:
        model: whose parameters.
        make: gives lists of parameters or of modules, or both, for the model; None for one group.

    Raises:
        UsageError: a parameter is in no group, or in two.
    """

    def __init__(self, model: nn.Module, make: Groups | None = None) -> None:
        self.model = model
        if make is None:
            self.groups = [list(model.parameters())]
        else:
            self.groups = [_parameters(group) for group in make(model)]
            _check(model, self.groups)
        #: What the user froze: it stays so.
        self._frozen_by_user = {id(p) for p in model.parameters() if not p.requires_grad}
        self._norms = {id(p) for norm in _norms(model) for p in norm.parameters(recurse=False)}
        self._undecayed = undecayed(model)
        #: Groups before this one are frozen.
        self.frozen_to = 0

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def names(self) -> list[str]:
        """`model`; `body` and `head`; `body 0`, `body 1` and `head`."""
        if len(self) == 1:
            return ["model"]
        bodies = len(self) - 1
        return [*("body" if bodies == 1 else f"body {i}" for i in range(bodies)), "head"]

    # --- what is frozen ------------------------------------------------------------------------

    def freeze_to(self, n: int) -> None:
        """Freeze the groups before `n`; below 0 it counts from the end, 0 freezes nothing.

        Norm layers are not frozen: their scales and shifts are trained, and their statistics
        follow the data (new data have other statistics than those that the body knows).
        """
        if len(self) < 2 and n:
            raise UsageError(
                "there is one group of parameters, and nothing in it that could be frozen for "
                "the rest: give groups=, a function of the model that returns lists of parameters "
                "or modules, the body first: groups=lambda model: [[model.body], [model.head]]"
            )
        if not isinstance(n, int) or not -len(self) <= n < len(self):
            raise UsageError(
                f"freeze_to({n!r}): there are {len(self)} groups ({', '.join(self.names)}); give "
                f"a whole number from {-len(self)} to {len(self) - 1}"
            )
        self.frozen_to = n % len(self)
        for index, group in enumerate(self.groups):
            for parameter in group:
                if id(parameter) not in self._frozen_by_user:
                    trained = index >= self.frozen_to or id(parameter) in self._norms
                    parameter.requires_grad_(trained)
                    if not trained:
                        parameter.grad = None

    # --- learning rates ------------------------------------------------------------------------

    def rates(self, lr: Rates) -> list[float]:
        """One learning rate for each group.

        A pair (low, high) is spread geometrically, from the body to the head: each group learns
        by the same factor faster than the one before it (discriminative fine-tuning, Howard and
        Ruder, 2018).

        Raises:
            UsageError: it is not a number, a pair, or a list of the right length, above 0.
        """
        count = len(self)
        given = [lr] if isinstance(lr, (int, float)) else lr
        if (
            not isinstance(given, (list, tuple))
            or not given
            or not all(isinstance(rate, (int, float)) and 0 < rate < float("inf") for rate in given)
        ):
            raise UsageError(
                f"lr={lr!r}: give a number above 0, a pair (lowest, highest), or a list with one "
                "for each group"
            )
        if isinstance(lr, tuple):
            if len(lr) != 2:
                raise UsageError(f"lr={lr!r}: a tuple is a pair (lowest, highest); else a list")
            low, high = lr
            steps = max(1, count - 1)
            return [high * (low / high) ** ((count - 1 - i) / steps) for i in range(count)]
        if isinstance(lr, list) and len(lr) != count:
            raise UsageError(
                f"lr={lr!r}: {len(lr)} learning rates for {count} groups of parameters "
                f"({', '.join(self.names)}); give one for each, or a pair (lowest, highest)"
            )
        return [float(rate) for rate in given] * (1 if isinstance(lr, list) else count)

    # --- the optimizer -------------------------------------------------------------------------

    def optimizer_groups(self, rates: Sequence[float]) -> list[dict[str, Any]]:
        """What an optimizer is made of: each group in two parts, with and without weight decay.

        Biases, norms and whatever else has at most one dimension get no decay: pulling them to
        zero does not regularize (He et al., "Bag of tricks", 2018, section 3.1). Neither does what
        a module names in `without_decay`.
        """
        made = []
        # Equal rates are one, with one name: one column in a table.
        names = self.names if len(set(rates)) > 1 else ["model"] * len(self)
        for place, decayed, params in self._halves():
            group = {"params": params, "lr": rates[place], "name": names[place]}
            made.append(group if decayed else {**group, "weight_decay": 0.0})
        return made

    def places(self) -> list[int]:
        """For each of `optimizer_groups` the group that it is of."""
        return [place for place, _, _ in self._halves()]

    def _halves(self) -> Iterator[tuple[int, bool, list[nn.Parameter]]]:
        """The group, whether it gets weight decay, and the parameters; without empty ones."""
        for place, group in enumerate(self.groups):
            decayed = [p for p in group if p.ndim > 1 and id(p) not in self._undecayed]
            kept = {id(p) for p in decayed}
            plain = [p for p in group if id(p) not in kept]
            if decayed:
                yield place, True, decayed
            if plain:
                yield place, False, plain


def default_optimizer(parameters: Iterable[nn.Parameter]) -> Callable[..., Optimizer]:
    """AdamW, in one kernel where torch has one for the device of the parameters."""
    fused = all(p.device.type in ("cpu", "cuda", "mps", "xpu") for p in parameters) and all(
        torch.is_floating_point(p) for p in parameters
    )
    return partial(
        torch.optim.AdamW, betas=BETAS, eps=EPSILON, weight_decay=WEIGHT_DECAY,
        fused=fused or None, foreach=None if fused else True,
    )  # fmt: skip


def undecayed(model: nn.Module) -> set[int]:
    """The ids of parameters without weight decay, whatever their dimensions are.

    Those of norms, and those that a module names among its own: `without_decay = ("bias",)`.
    """
    found = {id(p) for norm in _norms(model) for p in norm.parameters(recurse=False)}
    for module in model.modules():
        for name in getattr(module, "without_decay", ()):
            found.add(id(module.get_parameter(name)))
    return found


def _norms(model: nn.Module) -> list[nn.Module]:
    """The norm layers of a model: torch's of any kind, and others that are called so.

    A module that is called so and has a weight of more dimensions is a layer that normalizes it.
    """
    return [
        module
        for module in model.modules()
        if "norm" in type(module).__name__.lower()
        and (
            isinstance(module, (nn.LayerNorm, nn.RMSNorm))  # over the last dimensions
            or all(p.squeeze().ndim < 2 for p in module.parameters(recurse=False))
        )
    ]


def _parameters(group: Any) -> list[nn.Parameter]:
    members = [group] if isinstance(group, (nn.Module, nn.Parameter)) else list(group)
    found: list[nn.Parameter] = []
    for member in members:
        if isinstance(member, nn.Module):
            found.extend(member.parameters())
        elif isinstance(member, nn.Parameter):
            found.append(member)
        else:
            raise UsageError(
                f"groups: a group has a {type(member).__name__} in it; give lists of parameters "
                "or modules"
            )
    return found


def _check(model: nn.Module, groups: Sequence[Sequence[nn.Parameter]]) -> None:
    seen: dict[int, int] = {}
    for index, group in enumerate(groups):
        for parameter in group:
            if id(parameter) in seen:
                raise UsageError(
                    f"groups: a parameter of shape {tuple(parameter.shape)} is in group "
                    f"{seen[id(parameter)]} and in group {index}; each belongs to one"
                )
            seen[id(parameter)] = index
    missing = [name for name, p in model.named_parameters() if id(p) not in seen]
    if missing:
        some = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise UsageError(f"groups: {len(missing)} parameters are in no group: {some}")
    empty = [str(index) for index, group in enumerate(groups) if not group]
    if empty:
        raise UsageError(f"groups: group {', '.join(empty)} has no parameter")

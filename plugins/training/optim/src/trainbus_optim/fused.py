"""Chains that torch has a fused kernel for, and that kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainbus_optim.recipe import Recipe

#: Devices with fused kernels, and whether they know Adagrad.
_DEVICES = {"cpu", "cuda", "mps", "xpu", "hpu", "mtia"}
_ADAGRAD_DEVICES = {"cpu"}
#: The blocks that a kernel does, and which.
_KERNELS: dict[tuple[str, ...], str] = {
    ("adam",): "adam",
    ("l2", "adam"): "adam",
    ("adam", "decay"): "adamw",
    ("momentum",): "sgd",
    ("l2", "momentum"): "sgd",
    ("adagrad",): "adagrad",
    ("l2", "adagrad"): "adagrad",
}


@dataclass(frozen=True)
class Kernel:
    """A fused kernel, and the blocks before and after those that it does.

    Args:
        name: adam, adamw, sgd or adagrad.
        start: the first of its blocks.
        stop: the first block after them.
    """

    name: str
    start: int
    stop: int


def recognised(recipe: Recipe) -> tuple[Kernel | None, str]:
    """The fused kernel for a recipe; or None, and why there is none."""
    blocks = recipe.blocks
    start = 0
    while start < len(blocks) and blocks[start].role == "gradient":
        start += 1
    stop = start
    while stop < len(blocks) and blocks[stop].role != "weights":
        stop += 1
    names = tuple(each.name for each in blocks[start:stop])
    if names in _KERNELS:
        return Kernel(_KERNELS[names], start, stop), ""
    known = {name for names in _KERNELS for name in names}
    other = next((name for name in names if name not in known), "")
    if other:
        return None, f"{other} has no fused kernel"
    return None, f"{', '.join(names) or 'no block'} together have no fused kernel"


def unsupported(kernel: Kernel, parameters: Sequence[Tensor]) -> str:
    """Why these parameters cannot be given to a fused kernel; empty if they can."""
    devices = _ADAGRAD_DEVICES if kernel.name == "adagrad" else _DEVICES
    for each in parameters:
        if each.device.type not in devices:
            return f"there is no fused kernel for {each.device.type}"
        if not torch.is_floating_point(each):
            return f"fused kernels take no {str(each.dtype).removeprefix('torch.')}"
    return ""


def run(
    kernel: Kernel, group: dict[str, Any], keys: Sequence[dict[str, str]], first: bool,
    lists: dict[str, list[Tensor]], scale: Tensor | None, found_inf: Tensor | None,
) -> None:  # fmt: skip
    """One step with a fused kernel of torch.

    Args:
        kernel: which.
        group: the numbers.
        keys: for each of the kernel's blocks the keys in the group.
        first: whether it is the first step (SGD sets its momentum then).
        lists: `p`, `g`, `step` and the states.
        scale: of the gradients, by a GradScaler.
        found_inf: 1.0 where nothing is to be changed.
    """
    names: dict[str, str] = {}
    for each in keys:
        names |= each
    common = {
        "lr": group["lr"], "maximize": group["maximize"], "grad_scale": scale,
        "found_inf": found_inf,
        "weight_decay": group[names["weight_decay"]] if "weight_decay" in names else 0.0,
    }  # fmt: skip
    parameters, gradients = lists["p"], lists["g"]
    if kernel.name == "sgd":
        momentum = group[names["momentum"]]
        torch._fused_sgd_(
            parameters, gradients, lists["momentum_buffer"] if momentum else [],
            momentum=momentum, dampening=group[names["dampening"]],
            nesterov=group[names["nesterov"]], is_first_step=bool(momentum) and first, **common,
        )  # fmt: skip
        return
    eps = group[names["eps"]]
    if kernel.name == "adagrad":
        torch._fused_adagrad_(
            parameters, gradients, lists["sum"], lists["step"],
            lr_decay=group[names["lr_decay"]], eps=eps, **common,
        )  # fmt: skip
    else:
        beta1, beta2 = group[names["betas"]]
        function = torch._fused_adam_ if kernel.name == "adam" else torch._fused_adamw_
        amsgrad = group[names["amsgrad"]]
        function(
            parameters, gradients, lists["exp_avg"], lists["exp_avg_sq"],
            lists["max_exp_avg_sq"] if amsgrad else [], lists["step"], amsgrad=amsgrad,
            beta1=beta1, beta2=beta2, eps=eps, **common,
        )  # fmt: skip

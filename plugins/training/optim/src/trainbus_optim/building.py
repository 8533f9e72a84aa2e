"""The arguments of a chain: one recipe of all that is given, and the kernel that is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from trainbus.errors import UsageError
from trainbus_optim.blocks import Block
from trainbus_optim.recipe import CHAIN_OPTIONS, Recipe

KERNELS = ("auto", "fused", "foreach", "wide", "deep", "compiled")


def kernel_of(kernel: str, compile: bool, flags: dict[str, Any]) -> str:
    """The kernel that is asked for, also in torch's words. Raises `UsageError`."""
    for name in ("capturable", "differentiable"):
        if flags.pop(name, False):
            other = "kernel='fused'" if name == "capturable" else "torch.optim's own class"
            raise UsageError(
                f"{name}=True is not supported: the numbers of a step are computed on the host; "
                f"use {other}"
            )
    if flags.pop("fused", None):
        kernel = "fused"
    if flags.pop("foreach", None):
        kernel = "foreach"
    if flags:
        raise UsageError(
            f"Chain has no argument {sorted(flags)[0]!r}; it has lr, {', '.join(CHAIN_OPTIONS)}"
        )
    if compile:
        kernel = "compiled"
    if kernel not in KERNELS:
        raise UsageError(f"kernel={kernel!r}: give one of {', '.join(KERNELS)}")
    return kernel


def together(blocks: Iterable[Block | Recipe], lr: Any) -> Recipe:
    """One recipe of blocks and recipes. Raises `UsageError`."""
    given = list(blocks)
    for each in given:
        if not isinstance(each, (Block, Recipe)):
            raise UsageError(
                f"Chain takes blocks, and was given {type(each).__name__}; call the block: "
                "Chain(model, adam(), decay(0.1), lr=1e-3)"
            )
    if len(given) == 1 and isinstance(given[0], Recipe):
        recipe = given[0]
        return recipe if lr is None else replace(recipe, lr=lr)
    flat: list[Block] = []
    others = takes = None
    for each in given:
        if isinstance(each, Recipe):
            # What a recipe could decay, and does not, would stand beside the chain's own decay.
            flat += [
                b
                for b in each.blocks
                if b.role not in ("decay", "l2") or b.numbers.get("weight_decay") != 0
            ]
            others, takes = each.others or others, each.takes or takes
        else:
            flat.append(each)
    return Recipe("chain", tuple(flat), lr, others, takes)

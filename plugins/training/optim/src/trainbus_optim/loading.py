"""States of a chain, and of torch's own classes: whether they fit, and in which type they stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trainbus.errors import UsageError

if TYPE_CHECKING:
    from trainbus_optim.chain import Chain
    from trainbus_optim.recipe import Recipe


def blocks_of(recipe: Recipe) -> str:
    """The names of the blocks, in one word for each."""
    return ", ".join(each.name for each in recipe.blocks)


def fitted(optimizer: Chain, state_dict: dict[str, Any]) -> None:
    """Refuse a state of another chain, and say what differs. Raises `UsageError`."""
    groups = state_dict.get("param_groups")
    if not isinstance(groups, list) or not isinstance(state_dict.get("state"), dict):
        raise UsageError("this is no state of an optimizer: it has no 'state' and 'param_groups'")
    here = [len(group["params"]) for group in optimizer.param_groups]
    there = [len(group["params"]) for group in groups]
    if here != there:
        raise UsageError(
            f"the state is of groups with {there} parameters, and this optimizer has groups with "
            f"{here}; make it with the same groups"
        )
    for number, (mine, saved) in enumerate(zip(optimizer.param_groups, groups, strict=True)):
        recipe = optimizer.recipe_of(mine)
        own = blocks_of(recipe)
        what = f"the state of group {number}"
        if saved.get("blocks", own) != own:
            raise UsageError(
                f"{what} is of the chain {saved['blocks']}, and this one is {own}; go on with the "
                "former, or begin with a new state"
            )
        needed = {**recipe.defaults, **{k: v for k, v in saved.items() if k != "params"}}
        program = recipe.traced({**mine, **needed}, 1)[0]
        for index in saved["params"]:
            kept = state_dict["state"].get(index)
            missing = [
                name
                for name, each in program.kept.items()
                if kept and each.elementwise and name not in kept
            ]
            if missing:
                raise UsageError(
                    f"{what} has {', '.join(sorted(kept))} for a parameter, and {own} needs "
                    f"{', '.join(sorted(program.kept))}: it is of another optimizer"
                )


def restored_types(optimizer: Chain, state_dict: dict[str, Any]) -> None:
    """Give states the types that they were saved in, which torch makes those of the parameters."""
    for mine, saved in zip(optimizer.param_groups, state_dict["param_groups"], strict=True):
        for parameter, index in zip(mine["params"], saved["params"], strict=True):
            kept = state_dict["state"].get(index)
            if kept is None or parameter not in optimizer.state:
                continue
            loaded = optimizer.state[parameter]
            for name, value in kept.items():
                if isinstance(value, Tensor) and loaded[name].dtype != value.dtype:
                    device = parameter.device if value.ndim else loaded[name].device
                    loaded[name] = value.to(device, copy=True)
                elif isinstance(value, Tensor) and loaded[name] is value:
                    loaded[name] = value.clone(memory_format=torch.preserve_format)

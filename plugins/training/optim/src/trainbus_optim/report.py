"""What an optimizer is, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from trainbus_optim.chain import Chain


def line(optimizer: Chain) -> str:
    """The chain, its kernel and why, its groups, in one line."""
    names = ", ".join(each.name for each in optimizer.recipe.blocks) or "gradient"
    others = optimizer.recipe.others
    title = f"{optimizer.recipe.name}({names})"
    if others is not None:
        title += f" and {others.name}({', '.join(each.name for each in others.blocks)})"
    kinds = []
    for kind, why in optimizer.kernels():
        text = f"{kind} ({why})" if why else kind
        if text not in kinds:
            kinds.append(text)
    sizes = " + ".join(str(len(group["params"])) for group in optimizer.param_groups)
    count = len(optimizer.param_groups)
    return f"{title}: {', '.join(kinds)}; {count} group{'s' * (count > 1)}, {sizes} tensors"


def explained(optimizer: Chain) -> str:
    """Formulas; for each group its kernel and values; for each parameter its state and bytes."""
    lines = [line(optimizer), ""]
    recipes = [optimizer.recipe, *filter(None, [optimizer.recipe.others])]
    for recipe in recipes:
        for each in recipe.blocks:
            slow = "" if each.traced else "  [plain code, once for each parameter: slower]"
            lines.append(f"{each.name:16} {each.formula or each.reach}{slow}")
    for number, (group, (kind, why)) in enumerate(
        zip(optimizer.param_groups, optimizer.kernels(), strict=True)
    ):
        recipe = optimizer.recipe_of(group)
        values = ", ".join(f"{key}={_short(group[key])}" for key in sorted(recipe.defaults))
        lines += ["", f"group {number}: {kind}{f' ({why})' if why else ''}; {values}"]
        program = recipe.traced(group, 1)[0]
        for index, parameter in enumerate(group["params"]):
            name = optimizer.names.get(id(parameter), f"parameter {index}")
            size = parameter.numel() * parameter.element_size()
            state = optimizer.state.get(parameter) or {}
            kept = ", ".join(program.kept) or "nothing"
            held = sum(v.numel() * v.element_size() for v in state.values() if _is_tensor(v))
            amount = f"{held:,}" if state else f"about {size * _lists(program):,}"
            reason = optimizer.reasons.get(id(parameter), "")
            shape = "x".join(map(str, parameter.shape)) or "one number"
            lines.append(
                f"  {name:32} {shape:>14}  keeps {kept}: {amount} bytes"
                f"{f'  ({reason})' if reason else ''}"
            )
    return "\n".join(lines)


def _lists(program: Any) -> int:
    return sum(each.elementwise for each in program.kept.values())


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)

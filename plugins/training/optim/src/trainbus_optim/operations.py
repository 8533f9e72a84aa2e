"""The operations of a program: how each is done with lists, with one tensor, and compiled.

In each form `{t}` is the target, `{a}` and `{b}` the operands, `{s}` the number. The forms for
lists are calls of torch's foreach functions; those for one tensor have the same order of
operations, and give the same bits.
"""

from __future__ import annotations

from typing import NamedTuple


class Operation(NamedTuple):
    """One operation.

    Args:
        wide: for lists of tensors.
        deep: for one tensor; what is new is written to the tensor `{t}`.
        pure: for one tensor, an expression for a compiler.
        makes: whether the target is new.
    """

    wide: str
    deep: str
    pure: str
    makes: bool = False


def _in_place(name: str, arguments: str, pure: str, deep: str = "") -> Operation:
    return Operation(
        f"torch._foreach_{name}_({{t}}{', ' * bool(arguments)}{arguments})",
        f"{{t}}.{name}_({deep or arguments})", pure,
    )  # fmt: skip


def _new(name: str, arguments: str, pure: str, deep: str = "") -> Operation:
    return Operation(
        f"{{t}} = torch._foreach_{name}({arguments})",
        f"torch.{name}({deep or arguments}, out={{t}})", pure, True,
    )  # fmt: skip


def _reduction(wide: str, deep: str) -> Operation:
    return Operation(f"{{t}} = {wide}", f"{{t}} = {deep}", deep, True)


OPERATIONS: dict[str, Operation] = {
    # in place
    "mul_": _in_place("mul", "{a}", "{t} * {a}"),
    "mul_number_": _in_place("mul", "{s}", "{t} * {s}"),
    "div_": _in_place("div", "{a}", "{t} / {a}"),
    "div_number_": _in_place("div", "{s}", "{t} / {s}"),
    "add_": _in_place("add", "{a}", "{t} + {a}"),
    "add_number_": _in_place("add", "{s}", "{t} + {s}"),
    "add_scaled_": _in_place("add", "{a}, alpha={s}", "{t} + {a} * {s}"),
    "sub_": _in_place("sub", "{a}", "{t} - {a}"),
    "lerp_": _in_place("lerp", "{a}, {s}", "{t} + ({a} - {t}) * {s}"),
    "addcmul_": _in_place(
        "addcmul", "{a}, {b}, value={s}", "{t} + {a} * {b} * {s}", "{a}, {b}, value={s}"
    ),
    "addcdiv_": _in_place(
        "addcdiv", "{a}, {b}, value={s}", "{t} + {a} / {b} * {s}", "{a}, {b}, value={s}"
    ),
    "maximum_": Operation(
        "torch._foreach_maximum_({t}, {a})", "torch.maximum({t}, {a}, out={t})",
        "torch.maximum({t}, {a})",
    ),
    "minimum_": Operation(
        "torch._foreach_minimum_({t}, {a})", "torch.minimum({t}, {a}, out={t})",
        "torch.minimum({t}, {a})",
    ),
    "clamp_min_": Operation(
        "torch._foreach_clamp_min_({t}, {s})", "{t}.clamp_(min={s})",
        "torch.clamp({t}, min={s})",
    ),
    "clamp_max_": Operation(
        "torch._foreach_clamp_max_({t}, {s})", "{t}.clamp_(max={s})",
        "torch.clamp({t}, max={s})",
    ),
    "sqrt_": _in_place("sqrt", "", "{t}.sqrt()"),
    "abs_": _in_place("abs", "", "{t}.abs()"),
    "sign_": _in_place("sign", "", "{t}.sign()"),
    "neg_": _in_place("neg", "", "-{t}"),
    "reciprocal_": _in_place("reciprocal", "", "{t}.reciprocal()"),
    "copy_": Operation("torch._foreach_copy_({t}, {a})", "{t}.copy_({a})", "{a} + 0"),
    # new
    "sqrt": _new("sqrt", "{a}", "{a}.sqrt()"),
    "abs": _new("abs", "{a}", "{a}.abs()"),
    "sign": _new("sign", "{a}", "{a}.sign()"),
    "neg": _new("neg", "{a}", "-{a}"),
    "clone": Operation(
        "{t} = torch._foreach_clone({a})", "{t}.copy_({a})", "{a} + 0", True
    ),
    "add": _new("add", "{a}, {b}", "{a} + {b}"),
    "add_number": _new("add", "{a}, {s}", "{a} + {s}"),
    "add_scaled": _new("add", "{a}, {b}, alpha={s}", "{a} + {b} * {s}"),
    "sub": _new("sub", "{a}, {b}", "{a} - {b}"),
    "mul": _new("mul", "{a}, {b}", "{a} * {b}"),
    "mul_number": _new("mul", "{a}, {s}", "{a} * {s}"),
    "div": _new("div", "{a}, {b}", "{a} / {b}"),
    "div_number": _new("div", "{a}, {s}", "{a} / {s}"),
    "lerp": _new("lerp", "{a}, {b}, {s}", "{a} + ({b} - {a}) * {s}"),
    "addcmul": _new("addcmul", "{a}, {b}, {b}, value={s}", "{a} + {b} * {b} * {s}"),
    "maximum": _new("maximum", "{a}, {b}", "torch.maximum({a}, {b})"),
    # one number for each tensor, on its device
    "norm": _reduction("torch._foreach_norm({a})", "torch.linalg.vector_norm({a})"),
    "norm1": _reduction("torch._foreach_norm({a}, 1)", "torch.linalg.vector_norm({a}, 1)"),
    "dot": _reduction(
        "[(x * y).sum() for x, y in zip({a}, {b})]", "({a} * {b}).sum()"
    ),
    "root_size": _reduction(
        "[x.new_tensor(x.numel() ** 0.5) for x in {a}]", "{a}.new_tensor({a}.numel() ** 0.5)"
    ),
    "size": _reduction(
        "[x.new_tensor(float(x.numel())) for x in {a}]", "{a}.new_tensor(float({a}.numel()))"
    ),
}  # fmt: skip

#: Operations that need all of a tensor.
WHOLE = {"norm", "norm1", "dot", "root_size", "size", "call"}

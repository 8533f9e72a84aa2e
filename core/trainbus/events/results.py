"""What a listener's code says of its result, and what is said of one that nobody can use."""

from __future__ import annotations

import dis
from typing import Any

from trainbus.errors import PluginError

_NOTHING = "LOAD_CONST", None


def gives(function: Any) -> bool | None:
    """Whether a `return` of a function written with `def` has a value.

    False where each `return`, written or not, gives None. None where that cannot be told: of a
    `lambda`, whose value may be none that anybody meant; of what is no function; of one that raises
    and so has a word in what comes after it without any result.
    """
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    if code is None or code.co_name == "<lambda>":
        return None
    previous: tuple[str, Any] = ("", None)
    returns = raises = False
    for each in dis.get_instructions(code):
        if each.opname in ("RETURN_VALUE", "RETURN_CONST"):
            returns = True
            given = ("LOAD_CONST", each.argval) if each.opname == "RETURN_CONST" else previous
            if given != _NOTHING or each.is_jump_target:
                return True
        raises |= each.opname == "RAISE_VARARGS"
        if each.opname not in ("NOP", "RESUME"):
            previous = each.opname, each.argval
    return False if returns and not raises else None


def unwanted(who: str, hook: str, arguments: tuple[str, ...], value: Any) -> PluginError:
    """The error for a result of an event, which nobody takes."""
    mend = (
        "change what it may change (`run.batch = ...`, for example)" if "run" in arguments else ""
    )
    return PluginError(
        f"{who}, {hook}: it returned {_a(value)}, which nobody takes, since {hook} is an event; "
        f"{mend + ', and ' if mend else ''}return nothing"
    )


def lost(who: str, hook: str, value: Any) -> PluginError:
    """The error for a wrapper that let the result of an action go."""
    return PluginError(
        f"{who}, {hook}: this wrapper returned nothing where the others gave {_a(value)}; write "
        "`result = yield`, then `return result`"
    )


def check_answer(where: str, hook: str, function: Any) -> None:
    """Refuse a listener that never says whether it did what others would do after it."""
    if gives(function) is False:
        raise PluginError(
            f"{where}: it returns nothing, so {hook} would be done once more after it; return True "
            f"when it is done. To do something else at that moment, wrap {hook} "
            "(@hookimpl(wrapper=True)) or listen to an event"
        )


def _a(value: Any) -> str:
    return f"a value of the type {type(value).__name__}"

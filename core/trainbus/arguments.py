"""Numbers that people give, checked where they are given."""

from __future__ import annotations

from numbers import Integral, Real

from trainbus.errors import PluginError


def is_whole(value: object, least: int | None = None) -> bool:
    """Whether it is a whole number, of at least `least`; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        return False
    return least is None or int(value) >= least


def is_number(value: object) -> bool:
    """Whether it is a number; NaN, True and False are none."""
    return not isinstance(value, bool) and isinstance(value, Real) and value == value


def check_whole(
    least: int | None = None,
    error: type[Exception] = PluginError,
    where: str = "",
    /,
    **given: object,
) -> None:
    """Refuse what is no whole number: `check_whole(1, patience=patience)`.

    Args:
        least: the smallest that is right; None for any.
        error: what is raised, with a sentence.
        where: the function that they were given to.
        given: values by the names of their arguments.
    """
    bound = "" if least is None else f" of at least {least}"
    for name, value in given.items():
        if not is_whole(value, least):
            raise error(f"{_said(where, name, value)}: give a whole number{bound}")


def check_number(
    least: float | None = None,
    error: type[Exception] = PluginError,
    where: str = "",
    /,
    *,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    **given: object,
) -> None:
    """Refuse what is no number, or outside of bounds: `check_number(0, below=1, decay=decay)`.

    Args:
        least: the smallest that is right; None for any.
        error: what is raised, with a sentence.
        where: the function that they were given to.
        above, most, below: the other bounds, which the value is greater than, at most, less than.
        given: values by the names of their arguments.
    """
    bounds = [
        ("of at least", least, float.__ge__),
        ("greater than", above, float.__gt__),
        ("of at most", most, float.__le__),
        ("less than", below, float.__lt__),
    ]
    asked = [(words, bound, holds) for words, bound, holds in bounds if bound is not None]
    for name, value in given.items():
        right = is_number(value) and all(
            holds(float(value), float(bound))  # type: ignore[arg-type]
            for _, bound, holds in asked
        )
        if not right:
            said = " and ".join(f"{words} {bound:g}" for words, bound, _ in asked)
            raise error(f"{_said(where, name, value)}: give a number {said}".rstrip())


def _said(where: str, name: str, value: object) -> str:
    said = f"{name}={value!r:.80}"
    return f"{where}({said})" if where else said

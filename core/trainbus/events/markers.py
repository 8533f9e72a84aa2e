"""`@hookspec` declares a hook, `@hookimpl` listens to one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, overload

import pluggy

F = TypeVar("F", bound=Callable[..., Any])

Kind = Literal["event", "action", "record", "contribution"]
#: What `every=n` counts at a hook: optimizer steps (asked before or after the step was made),
#: epochs, or the batches of a pass without steps.
Cadence = Literal["step", "step_end", "epoch", "batch"]

_pluggy_spec = pluggy.HookspecMarker("trainbus")
_pluggy_impl = pluggy.HookimplMarker("trainbus")


@dataclass(frozen=True, slots=True)
class SpecOptions:
    """What trainbus knows of a hook beyond pluggy."""

    kind: Kind = "event"
    cadence: Cadence | None = None
    #: A failure of any listener is raised, an observer's too.
    strict: bool = False
    #: It is called for every listener, whatever failed before, and no failure goes further.
    final: bool = False
    #: Its listeners may change what is computed.
    computes: bool = False


@dataclass(frozen=True, slots=True)
class ImplOptions:
    """What a listener declares beyond pluggy's options."""

    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    every: int | None = None
    once: bool = False
    rank_zero: bool = False


def spec_options(function: object) -> SpecOptions:
    """The options that `@hookspec` left on a declaration."""
    return getattr(function, "trainbus_spec_options", SpecOptions())


def impl_options(function: object) -> ImplOptions:
    """The options that `@hookimpl` left on a listener."""
    return getattr(function, "trainbus_impl_options", ImplOptions())


@overload
def hookspec(function: F, /) -> F: ...
@overload
def hookspec(
    *,
    kind: Kind = ...,
    cadence: Cadence | None = ...,
    strict: bool = ...,
    final: bool = ...,
    computes: bool = ...,
) -> Callable[[F], F]: ...
def hookspec(
    function: F | None = None,
    /,
    *,
    kind: Kind = "event",
    cadence: Cadence | None = None,
    strict: bool = False,
    final: bool = False,
    computes: bool = False,
) -> F | Callable[[F], F]:
    """Declare a hook. An `action` returns its first result that is not None; others notify.

    Args:
        kind: what becomes of the listeners' results, and of their failures.
        cadence: what `@hookimpl(every=n)` counts.
        strict: a failure of any listener is raised, an observer's too.
        final: it is called for every listener, whatever failed before, and no failure goes further.
        computes: its listeners may change what is computed (see `EventBus.computing`).
    """
    options = SpecOptions(kind, cadence, strict, final, computes)

    def mark(declaration: F) -> F:
        declaration.trainbus_spec_options = options  # type: ignore[attr-defined]
        return _pluggy_spec(declaration, firstresult=kind == "action")

    return mark if function is None else mark(function)


@overload
def hookimpl(function: F, /) -> F: ...
@overload
def hookimpl(
    *,
    before: Iterable[str] = ...,
    after: Iterable[str] = ...,
    every: int | None = ...,
    once: bool = ...,
    rank_zero: bool = ...,
    wrapper: bool = ...,
    tryfirst: bool = ...,
    trylast: bool = ...,
    optionalhook: bool = ...,
    specname: str | None = ...,
) -> Callable[[F], F]: ...
def hookimpl(
    function: F | None = None,
    /,
    *,
    before: Iterable[str] = (),
    after: Iterable[str] = (),
    every: int | None = None,
    once: bool = False,
    rank_zero: bool = False,
    wrapper: bool = False,
    tryfirst: bool = False,
    trylast: bool = False,
    optionalhook: bool = False,
    specname: str | None = None,
) -> F | Callable[[F], F]:
    """Mark a function or method as a listener of the hook it is named after.

    Args:
        before: names of plugins whose listeners of this hook come later; absent ones do not matter.
        after: names of plugins whose listeners of this hook come first.
        every: call it at the `every`-th, `2*every`-th, ... optimizer step (batch hooks), epoch
            (epoch hooks) or batch (validation, test and prediction batches).
        once: call it at most once in a run.
        rank_zero: call it in the first process only.
        wrapper: it is a generator around the others: `result = yield`, then `return result`.
        tryfirst: before those that ask for nothing.
        trylast: after those that ask for nothing.
        optionalhook: no error if no such hook is declared.
        specname: the hook's name, where the function has another.
    """
    for option, names in (("before", before), ("after", after)):
        if isinstance(names, str):
            raise TypeError(f"@hookimpl({option}={names!r}): give a list of names, [{names!r}]")
    if every is not None and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
        raise ValueError(f"@hookimpl(every={every!r}): give a whole number of at least 1")
    options = ImplOptions(tuple(before), tuple(after), every, once, rank_zero)

    def mark(listener: F) -> F:
        # Below @staticmethod or @classmethod the function itself bears the marker.
        target: Any = getattr(listener, "__func__", listener)
        target.trainbus_impl_options = options
        _pluggy_impl(
            target,
            wrapper=wrapper,
            tryfirst=tryfirst,
            trylast=trylast,
            optionalhook=optionalhook,
            specname=specname,
        )
        return listener

    return mark if function is None else mark(function)

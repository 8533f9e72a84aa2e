"""`@hookspec` declares a hook, `@hookimpl` listens to one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, TypeVar, Unpack, overload

import pluggy

from trainbus.arguments import check_whole

F = TypeVar("F", bound=Callable[..., Any])

Kind = Literal["event", "action", "record", "contribution"]
#: What `every=n` counts at a hook: optimizer steps (asked before or after the step was made),
#: epochs, or the batches of a pass without steps.
Cadence = Literal["step", "step_end", "epoch", "batch"]

_pluggy_spec = pluggy.HookspecMarker("trainbus")
_pluggy_impl = pluggy.HookimplMarker("trainbus")
#: The options of a listener that are not pluggy's.
_OWN = ("before", "after", "every", "once", "rank_zero")


@dataclass(frozen=True, slots=True)
class SpecOptions:
    """What `@hookspec` says of a hook."""

    #: What becomes of the listeners' results, and of their failures.
    kind: Kind = "event"
    #: What `@hookimpl(every=n)` counts.
    cadence: Cadence | None = None
    #: A failure of any listener is raised, an observer's too.
    strict: bool = False
    #: It is called for every listener, whatever failed before, and no failure goes further.
    final: bool = False
    #: Its listeners may change what is computed.
    computes: bool = False
    #: It tells of an end: a listener that raises a `Control` keeps it from nobody.
    reaches_all: bool = False
    #: An action whose result says that it is done: a listener without any would have it done twice.
    answers: bool = False


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
def hookspec(**options: Any) -> Callable[[F], F]: ...
def hookspec(function: F | None = None, /, **options: Any) -> F | Callable[[F], F]:
    """Declare a hook. An `action` returns its first result that is not None; others notify.

    Args:
        function: its name and arguments are those of the hook.
        options: the attributes of `SpecOptions`.
    """
    spec = SpecOptions(**options)

    def mark(declaration: F) -> F:
        declaration.trainbus_spec_options = spec  # type: ignore[attr-defined]
        return _pluggy_spec(declaration, firstresult=spec.kind == "action")

    return mark if function is None else mark(function)


class _Listening(TypedDict, total=False):
    before: Iterable[str]
    after: Iterable[str]
    every: int | None
    once: bool
    rank_zero: bool
    wrapper: bool
    tryfirst: bool
    trylast: bool
    optionalhook: bool
    specname: str | None


@overload
def hookimpl(function: F, /) -> F: ...
@overload
def hookimpl(**options: Unpack[_Listening]) -> Callable[[F], F]: ...
def hookimpl(function: F | None = None, /, **options: Unpack[_Listening]) -> F | Callable[[F], F]:
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
    given: dict[str, Any] = dict(options)
    own = {name: given.pop(name) for name in _OWN if name in given}
    for name in ("before", "after"):
        if isinstance(names := own.get(name, ()), str):
            raise TypeError(f"@hookimpl({name}={names!r}): give a list of names, [{names!r}]")
        own[name] = tuple(names)
    every = own.get("every")
    if every is not None:
        check_whole(1, ValueError, "@hookimpl", every=every)

    def mark(listener: F) -> F:
        # Below @staticmethod or @classmethod the function itself bears the marker.
        target: Any = getattr(listener, "__func__", listener)
        target.trainbus_impl_options = ImplOptions(**own)
        _pluggy_impl(target, **given)
        return listener

    return mark if function is None else mark(function)

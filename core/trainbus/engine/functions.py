"""A function as a plugin: `@trainer.on("train_batch_end")`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType, SimpleNamespace
from typing import Any

from trainbus.errors import PluginError, nearest
from trainbus.events.event_bus import EventBus
from trainbus.events.markers import hookimpl


def listen(bus: EventBus, event: str, function: Callable[..., Any], **options: Any) -> None:
    """Register a function as the listener of a hook.

    Args:
        bus: where.
        event: a hook, with or without its `on_`.
        function: called with those of the hook's arguments that it names.
        options: those of `@hookimpl`.

    Raises:
        PluginError: there is no such hook, or the function cannot listen to it.
    """
    base = name = getattr(function, "__name__", "function")
    number = 1
    while name in bus.plugins:
        number += 1
        name = f"{base}_{number}"
    # A copy bears the marker, so that one function may listen to several hooks.
    marked = hookimpl(**options)(_copy(function))
    bus.register(SimpleNamespace(**{hook_named(bus, event): marked}), name, "trainer.on")


def hook_named(bus: EventBus, event: str) -> str:
    """The hook that an event's name means."""
    hook = event if event in bus.hooks else f"on_{event}"
    if hook not in bus.hooks:
        known = [name.removeprefix("on_") for name in bus.hooks]
        raise PluginError(f"trainer.on({event!r}): no such hook{nearest(event, known)}")
    return hook


def _copy(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of its own that does the same, to bear a marker of its own."""
    if isinstance(function, FunctionType):
        copy = FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__,
            function.__closure__,
        )  # fmt: skip
        copy.__kwdefaults__ = function.__kwdefaults__
        return copy

    # Any other callable: a function with its parameters, as listeners are called by their names.
    parameters = ", ".join(inspect.signature(function).parameters)
    made: Callable[..., Any] = eval(f"lambda {parameters}: call({parameters})", {"call": function})
    return made

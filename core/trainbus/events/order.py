"""In which order the listeners of one hook are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

import pluggy

from trainbus.errors import PluginError
from trainbus.events.markers import impl_options
from trainbus.events.plugin import Plugin


def in_order(
    hook: str, impls: Sequence[pluggy.HookImpl], plugins: Mapping[str, Plugin]
) -> list[pluggy.HookImpl]:
    """Wrappers first; within them and within the others `tryfirst`, plain, `trylast`.

    Within those the order of registration counts; and over all that, `before` and `after`.

    Args:
        hook: its name, for messages.
        impls: its listeners.
        plugins: those that are registered, by name, in the order of registration.

    Raises:
        PluginError: `before` and `after` contradict each other.
    """
    position = {name: i for i, name in enumerate(plugins)}
    found = sorted(impls, key=lambda impl: (
        not impl.wrapper, impl.trylast - impl.tryfirst, position[impl.plugin_name]
    ))  # fmt: skip
    wrappers = sum(impl.wrapper for impl in found)
    parts = found[:wrappers], found[wrappers:]
    return [impl for part in parts for impl in _constrained(hook, part, plugins)]


def _constrained(
    hook: str, impls: list[pluggy.HookImpl], plugins: Mapping[str, Plugin]
) -> list[pluggy.HookImpl]:
    """`impls` with each `before` and `after` kept, and otherwise in the order given."""
    options = [impl_options(impl.function) for impl in impls]
    if not any(option.before or option.after for option in options):
        return impls
    numbers = range(len(impls))
    # A plugin that has a name of its own is also meant by that of its kind.
    names = [{impl.plugin_name, plugins[impl.plugin_name].kind} for impl in impls]
    #: For each listener, by number, those that come before it.
    waits: dict[int, set[int]] = {
        i: {
            j
            for j in numbers
            if not names[j].isdisjoint(options[i].after)
            or not names[i].isdisjoint(options[j].before)
        }
        for i in numbers
    }
    try:
        TopologicalSorter(waits).prepare()
    except CycleError as error:
        cycle = " before ".join(impls[i].plugin_name for i in error.args[1])
        raise PluginError(f"{hook}: before/after contradict each other: {cycle}") from None
    ordered, left = [], list(numbers)
    while left:
        first = next(i for i in left if waits[i].isdisjoint(left))
        left.remove(first)
        ordered.append(impls[first])
    return ordered

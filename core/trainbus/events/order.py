"""In which order the listeners of one hook are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

import pluggy

from trainbus.errors import PluginError
from trainbus.events.markers import impl_options


def in_order(
    hook: str, impls: Sequence[pluggy.HookImpl], position: Mapping[str, int]
) -> list[pluggy.HookImpl]:
    """Wrappers first; within them and within the others `tryfirst`, plain, `trylast`.

    Within those the order of registration counts; and over all that, `before` and `after`.

    Args:
        hook: its name, for messages.
        impls: its listeners.
        position: the order of registration, by the plugins' names.

    Raises:
        PluginError: `before` and `after` contradict each other.
    """
    found = sorted(impls, key=lambda impl: (
        not impl.wrapper, impl.trylast - impl.tryfirst, position[impl.plugin_name]
    ))  # fmt: skip
    wrappers = sum(impl.wrapper for impl in found)
    return [*_constrained(hook, found[:wrappers]), *_constrained(hook, found[wrappers:])]


def _constrained(hook: str, impls: list[pluggy.HookImpl]) -> list[pluggy.HookImpl]:
    """`impls` with each `before` and `after` kept, and otherwise in the order given."""
    options = [impl_options(impl.function) for impl in impls]
    if not any(option.before or option.after for option in options):
        return impls
    numbers = range(len(impls))
    #: For each listener, by number, those that come before it.
    waits: dict[int, set[int]] = {
        i: {
            j
            for j in numbers
            if impls[j].plugin_name in options[i].after or impls[i].plugin_name in options[j].before
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

"""What may be registered: hooks, plugins and their listeners, checked before anything changes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict
from types import ModuleType
from typing import Any

from trainbus.errors import PluginError, nearest
from trainbus.events.compiler import Hook
from trainbus.events.markers import impl_options, spec_options
from trainbus.events.plugin import Plugin, marker
from trainbus.events.results import check_answer


def declared_by(namespace: object, by: str, taken: Collection[str]) -> dict[str, Hook]:
    """The hooks that a class or module declares with `@hookspec`, by name.

    Args:
        namespace: the class or module.
        by: who declares them, for messages.
        taken: names that no hook may have.

    Raises:
        PluginError: it is neither a class nor a module, declares nothing, or a name that is taken.
    """
    if not isinstance(namespace, (ModuleType, type)):
        raise PluginError(f"{by}: register_hookspecs returns a class or module, not {namespace!r}")
    found = {}
    for name, declaration in vars(namespace).items():
        if not hasattr(declaration, "trainbus_spec_options"):
            continue
        if name in taken:
            raise PluginError(f"{by} declares the hook {name!r}, which exists already")
        arguments = tuple(inspect.signature(declaration).parameters)
        if isinstance(namespace, type) and arguments[:1] == ("self",):
            arguments = arguments[1:]
        options = asdict(spec_options(declaration))
        found[name] = Hook(name=name, arguments=arguments, **options)
    if not found:
        raise PluginError(
            f"{by}, register_hookspecs: {namespace!r} declares no hook; mark them @hookspec"
        )
    return found


def namespace_of(plugin: Plugin) -> object:
    """What a plugin's `register_hookspecs` returns. Raises `PluginError` where it fails."""
    try:
        return plugin.object.register_hookspecs()  # type: ignore[attr-defined]
    except Exception as error:
        raise PluginError(
            f"{plugin}, register_hookspecs: {type(error).__name__}: {error}"
        ) from error


def check_identity(plugin: Plugin, known: Mapping[str, Plugin]) -> None:
    """Refuse a class, a name that is taken, and an object that is registered already."""
    if isinstance(plugin.object, type):
        raise PluginError(f"{plugin} is the class {plugin.object.__name__}; did you forget `()`?")
    if other := known.get(plugin.name):
        raise PluginError(f"two plugins are named {plugin.name!r}: {other} and {plugin}")
    for other in known.values():
        if other.object is plugin.object:
            raise PluginError(f"{plugin} is already registered as {other.name!r}")


def listeners_of(plugin: Plugin, hooks: Mapping[str, Hook]) -> dict[str, Callable[..., Any]]:
    """The listeners of a plugin, by its attributes; raises for what would never be called.

    pluggy takes some of that in silence, and calls some of it wrongly.
    """
    found = {}
    for attribute in dir(plugin.object):
        if attribute.startswith("__"):
            continue
        options = marker(plugin.object, attribute)
        if options is None:
            _check_unmarked(plugin, attribute, hooks)
        else:
            _check_listener(plugin, attribute, options, hooks)
            found[attribute] = getattr(plugin.object, attribute)
    return found


def _check_unmarked(plugin: Plugin, attribute: str, hooks: Mapping[str, Hook]) -> None:
    if attribute not in hooks:
        return
    if not inspect.isroutine(inspect.getattr_static(plugin.object, attribute)):
        return
    bases = type(plugin.object).__mro__[1:]
    if any(hasattr(vars(base).get(attribute), "trainbus_impl") for base in bases):
        raise PluginError(
            f"{plugin}: {type(plugin.object).__name__}.{attribute} overrides a listener "
            "without @hookimpl, so it would never be called; mark it too"
        )
    if attribute.startswith("on_"):
        raise PluginError(
            f"{plugin}: {attribute} is named like a hook but not marked; put @hookimpl above it"
        )


def _check_listener(
    plugin: Plugin, attribute: str, options: dict[str, Any], hooks: Mapping[str, Hook]
) -> None:
    name = options["specname"] or attribute
    where = f"{plugin}, listener {attribute}"
    hook = hooks.get(name)
    if hook is None:
        if options["optionalhook"]:
            return
        raise PluginError(f"{where}: no hook {name!r} is declared{nearest(name, hooks)}")
    function = getattr(plugin.object, attribute)
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise PluginError(f"{where}: a coroutine is never awaited; make it a plain function")
    if options["hookwrapper"]:
        raise PluginError(f"{where}: use @hookimpl(wrapper=True), `result = yield`")
    if options["wrapper"] != inspect.isgeneratorfunction(function):
        raise PluginError(
            f"{where}: a wrapper is a generator (`result = yield`, then `return result`) and "
            "is marked @hookimpl(wrapper=True); here is one without the other"
        )
    if hook.answers and not options["wrapper"]:
        check_answer(where, name, function)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (
            parameter.KEYWORD_ONLY,
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        ):
            raise PluginError(
                f"{where}: the parameter {parameter} receives nothing; the hook is "
                f"{name}({', '.join(hook.arguments)})"
            )
        if parameter.name not in hook.arguments and parameter.default is parameter.empty:
            raise PluginError(
                f"{where}: {name} has no argument {parameter.name!r}"
                f"{nearest(parameter.name, hook.arguments)} "
                f"The hook is {name}({', '.join(hook.arguments)})"
            )
    mine = impl_options(function)
    if plugin.name in (*mine.before, *mine.after):
        name = plugin.name
        raise PluginError(f"{where}: before/after contradict each other: {name} before {name}")
    if mine.every is not None and hook.cadence is None:
        raise PluginError(f"{where}: every={mine.every} counts nothing at {name}")
    limited = mine.once or mine.rank_zero or mine.every is not None
    if limited and hook.arguments[:1] != ("run",):
        raise PluginError(f"{where}: every, once and rank_zero need a hook that receives the run")


def misspelt_names(
    plugin: Plugin, listeners: Mapping[str, Callable[..., Any]], known: Mapping[str, Plugin]
) -> Iterator[str]:
    """What is said of names in `before` and `after` that are like those of a registered plugin.

    Absent ones do not matter, so this is no error.
    """
    names = {*known, *(each.kind for each in known.values())}
    for attribute, function in listeners.items():
        options = impl_options(function)
        for where in ("before", "after"):
            for name in getattr(options, where):
                if name not in names and (mend := nearest(name, names, 0.8)) != ".":
                    yield (
                        f"{plugin}, listener {attribute}: {where}=[{name!r}] names no plugin that "
                        f"is active{mend}"
                    )


def listens(task: object, hooks: Mapping[str, Hook]) -> bool:
    """Whether a task has listeners, or methods that look as if they were meant as such."""
    members = [item for kind in type(task).__mro__ for item in vars(kind).items()]
    return any(
        hasattr(value, "trainbus_impl") or (name.startswith("on_") and name in hooks)
        for name, value in members
    )

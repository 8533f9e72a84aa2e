"""The event bus: who listens to what, in which order, and one fast function per hook."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import pluggy

from trainbus.errors import Control, PluginError, nearest, together
from trainbus.events.checks import (
    check_identity,
    declared_by,
    listeners_of,
    misspelt_names,
    namespace_of,
)
from trainbus.events.compiler import Compiled, Hook, Listener, Opened
from trainbus.events.markers import Kind, impl_options
from trainbus.events.order import in_order
from trainbus.events.plugin import Plugin, marker
from trainbus.events.timing import Timing, Timings

logger = logging.getLogger("trainbus")

#: In a silence, for every plugin, or for every hook.
_ALL = ""


class _Listeners:
    """What pluggy sees of a plugin: its listeners alone, so that it runs none of its properties."""

    def __init__(self, functions: Mapping[str, Callable[..., Any]]) -> None:
        vars(self).update(functions)


class EventBus:
    """Registers plugins and calls their listeners.

    Each declared hook is an attribute: a function of the hook's arguments, or None when nobody
    listens, so that a call reads `if bus.on_epoch_end: bus.on_epoch_end(run)`. pluggy's lists hold
    the order. A hook is compiled when it is first read after a change.
    """

    #: The record hook whose listeners are called by whoever delivers records, and not by the bus.
    delivery_hook = ""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self._manager = pluggy.PluginManager("trainbus")
        self._plugins: dict[str, Plugin] = {}
        self._hooks: dict[str, Hook] = {}
        self._namespaces: set[object] = set()
        self._compiled: dict[str, Compiled] = {}
        self._timings = Timings()
        #: Pairs of a plugin and a hook that are not called: muted, paused, or set aside.
        self._silenced: set[tuple[str, str]] = set()
        #: Those that are not called in any run.
        self._never: set[tuple[str, str]] = set()

    def __getattr__(self, name: str) -> Any:
        # Only for what is no attribute: a hook that was not read since something changed.
        hooks = self.__dict__.get("_hooks", {})
        if name not in hooks:
            raise AttributeError(f"no hook {name!r} is declared{nearest(name, hooks)}")
        call = self._compile(name).call
        setattr(self, name, call)
        return call

    # --- who listens ---------------------------------------------------------------------------

    @property
    def hooks(self) -> dict[str, Hook]:
        """The declared hooks by name, in the order of their declaration."""
        return self._hooks

    @property
    def plugins(self) -> dict[str, object]:
        """The registered plugins by name, in order of registration."""
        return {name: plugin.object for name, plugin in self._plugins.items()}

    def declare(self, namespace: object, by: str = "") -> None:
        """Make hooks of the functions of a class or module that are marked `@hookspec`.

        Args:
            namespace: the class or module; declared once, however often it is given.
            by: who declares them, for messages.

        Raises:
            PluginError: it declares no hook, or one that exists already.
        """
        hooks = self._new_hooks(namespace, by or repr(namespace), self._hooks)
        self._add_hooks([namespace], self._hooks | hooks)

    def register(self, plugin: object, name: str, origin: str = "") -> None:
        """Add a plugin; at once, also in the middle of a run. Raises `PluginError`."""
        self.register_all([Plugin(name, plugin, origin)])

    def register_all(self, plugins: Iterable[Plugin]) -> None:
        """Add several plugins, whose new hooks all of them may use; on an error, none of them."""
        fresh, known, hooks = list(plugins), dict(self._plugins), dict(self._hooks)
        namespaces: list[object] = []
        for plugin in fresh:
            check_identity(plugin, known)
            known[plugin.name] = plugin
            if marker(plugin.object, "register_hookspecs") is not None:
                namespaces.append(namespace_of(plugin))
                hooks |= self._new_hooks(namespaces[-1], str(plugin), hooks)
        added, failures = {}, []
        for plugin in fresh:
            try:
                added[plugin.name] = _Listeners(listeners_of(plugin, hooks))
            except PluginError as error:
                failures.append(error)
        if failures:
            raise together(failures)
        heard = self._check_order(added, known, hooks)
        for plugin in fresh:
            for problem in misspelt_names(plugin, vars(added[plugin.name]), known):
                logger.warning("%s", problem)

        # From here on nothing is refused.
        self._add_hooks(namespaces, hooks)
        self._plugins = known
        for name, listeners in added.items():
            self._manager.register(listeners, name)
        self._sort(heard)

    def unregister(self, plugin: object) -> None:
        """Remove a plugin, given itself or its name; at once, also in the middle of a run."""
        for name, known in self._plugins.items():
            if plugin == name or plugin is known.object:
                heard = self._hooks_of(name)
                del self._plugins[name]
                self._manager.unregister(name=name)
                self._sort(heard)
                return
        raise PluginError(f"cannot unregister {plugin!r}: registered are {', '.join(self.plugins)}")

    def order(self) -> dict[str, list[str]]:
        """For each hook that is listened to, its plugins in the order of the calls."""
        return {
            hook: names
            for hook in self._hooks
            if (names := [impl.plugin_name for impl in self._impls(hook)])
        }

    def who(self, name: str) -> str:
        """A registered plugin and its distribution, for messages."""
        return str(self._plugins[name])

    def computing(self) -> list[str]:
        """The plugins that may change what is computed; loggers and observers are not among them.

        Such a plugin wraps or replaces an action of the step, or listens where the batch, the loss
        or the gradients may be changed; its attribute `computes` overrules that.
        """
        actions = {name for name, hook in self._hooks.items() if hook.computes}
        loggers, found = self.logger_names, []
        for name, plugin in self._plugins.items():
            watches = getattr(plugin.object, "observer", False) or name in loggers
            computes = not watches and not actions.isdisjoint(self._hooks_of(name))
            if getattr(plugin.object, "computes", computes) and not plugin.core:
                found.append(name)
        return found

    # --- loggers -------------------------------------------------------------------------------

    @property
    def logger_names(self) -> list[str]:
        """The plugins that listen to the delivery hook."""
        if not self.delivery_hook:
            return []
        return [impl.plugin_name for impl in self._impls(self.delivery_hook)]

    @property
    def loggers(self) -> dict[str, dict[str, Callable[..., Any]]]:
        """The record hooks of each logger, as functions that raise.

        The bus does not call them: whoever delivers the records does, on threads of its own.
        """
        records = [hook for hook in self._hooks.values() if hook.kind == "record"]
        found: dict[str, dict[str, Callable[..., Any]]] = {}
        for name in self.logger_names:
            found[name] = {}
            for hook in records:
                mine = [each for each in self._listeners(hook) if each.plugin == name]
                if function := Compiled(hook, mine, lambda *_failure: True).call:
                    found[name][hook.name] = function
        return found

    # --- registration, step by step ------------------------------------------------------------

    def _new_hooks(self, namespace: object, by: str, known: Mapping[str, Hook]) -> dict[str, Hook]:
        """The hooks that a namespace declares beside the known ones; none if it is known itself."""
        if any(namespace is each for each in self._namespaces):
            return {}  # a plugin comes back; its hooks stayed, since others may listen to them
        return declared_by(namespace, by, {*known, *dir(type(self))})

    def _add_hooks(self, namespaces: Iterable[Any], hooks: dict[str, Hook]) -> None:
        for namespace in namespaces:
            if namespace not in self._namespaces:
                self._manager.add_hookspecs(namespace)
                self._namespaces.add(namespace)
        self._hooks = hooks

    def _check_order(
        self,
        added: Mapping[str, _Listeners],
        known: Mapping[str, Plugin],
        hooks: Mapping[str, Hook],
    ) -> set[str]:
        """The hooks that have new listeners; raises where a listener or the order cannot be."""
        impls: dict[str, list[pluggy.HookImpl]] = {}
        for hook in hooks.keys() - self._hooks.keys():  # optional listeners may wait for a new hook
            impls[hook] = self._impls(hook)
            for impl in impls[hook]:
                listeners_of(known[impl.plugin_name], hooks)
        for name, listeners in added.items():
            for attribute, function in vars(listeners).items():
                options: Any = marker(listeners, attribute)
                hook = options["specname"] or attribute
                if hook in hooks:
                    impl = pluggy.HookImpl(listeners, name, function, options)
                    impls.setdefault(hook, self._impls(hook)).append(impl)
        for hook, those in impls.items():
            in_order(hook, those, known)
        return set(impls)

    def _sort(self, hooks: Collection[str]) -> None:
        """Write the order into pluggy's lists, which stay the one truth and are read in reverse."""
        for hook in hooks:
            caller = getattr(self._manager.hook, hook)
            caller._hookimpls[:] = in_order(hook, self._impls(hook), self._plugins)[::-1]
        self._changed(hooks)

    def _impls(self, hook: str) -> list[pluggy.HookImpl]:
        caller = getattr(self._manager.hook, hook, None)
        return caller.get_hookimpls()[::-1] if caller is not None else []

    def _hooks_of(self, plugin: str) -> list[str]:
        callers = self._manager.get_hookcallers(self._manager.get_plugin(plugin)) or ()
        return [caller.name for caller in callers if caller.name in self._hooks]

    # --- one fast function per hook ------------------------------------------------------------

    def _changed(self, hooks: Collection[str]) -> None:
        """Forget the code of these hooks; it is written again when it is asked for."""
        if self.delivery_hook in hooks:  # who is a logger hears no record from the bus
            hooks = {*hooks, *(name for name, hook in self._hooks.items() if hook.kind == "record")}
        for name in hooks:
            self._compiled.pop(name, None)
            self.__dict__.pop(name, None)

    def _compile(self, name: str) -> Compiled:
        compiled = self._compiled.get(name)
        if compiled is None:
            hook = self._hooks[name]
            listeners = self._listeners(hook)
            if hook.kind == "record":
                loggers = self.logger_names
                listeners = [each for each in listeners if each.plugin not in loggers]
            timings = self._timings if self._timings.users else None
            compiled = self._compiled[name] = Compiled(hook, listeners, self._failed, timings)
        return compiled

    def _listeners(self, hook: Hook) -> list[Listener]:
        listeners = []
        for impl in self._impls(hook.name):
            plugin = self._plugins[impl.plugin_name]
            silences = {(plugin.name, _ALL), (plugin.name, hook.name), (_ALL, hook.name)}
            if silences & (self._never if hook.final else self._never | self._silenced):
                continue
            observes = getattr(plugin.object, "observer", False) and hook.kind == "event"
            isolated = hook.final or hook.kind == "record" or (observes and not hook.strict)
            keywords = tuple(name for name in impl.kwargnames if name in hook.arguments)
            listeners.append(Listener(
                hook.name, plugin.name, str(plugin), impl.function, tuple(impl.argnames), keywords,
                impl.wrapper, impl_options(impl.function), bool(isolated), plugin.core,
            ))  # fmt: skip
        return listeners

    def open(self, hook: str, *arguments: Any) -> Opened:
        """The first half of a hook's wrappers: each runs up to its `yield`."""
        return self._compile(hook).open(*arguments)

    def close(
        self, hook: str, opened: Opened, result: Any, error: BaseException | None = None
    ) -> Any:
        """The second half: each wrapper gets the result, or the error; returns the last word."""
        return self._compile(hook).close(opened, result, error)

    # --- silences and failures -----------------------------------------------------------------

    def mute(self, *kinds: Kind) -> Callable[[], None]:
        """Call no listener of these kinds; returns the function that ends it."""
        hooks = [name for name, hook in self._hooks.items() if hook.kind in kinds]
        added = {(_ALL, name) for name in hooks} - self._silenced
        self._silenced |= added
        self._changed(hooks)

        def unmute() -> None:
            self._silenced -= added
            self._changed(hooks)

        return unmute

    def silence(self, plugin: str, hooks: Iterable[str]) -> None:
        """Never call a plugin's listeners of these hooks; whatever it is, and in every run."""
        self._never.update((plugin, hook) for hook in hooks)
        self._changed([*hooks])

    def name_of(self, plugin: object) -> str:
        """The name that a registered plugin has here. Raises `KeyError`."""
        for name, record in self._plugins.items():
            if record.object is plugin:
                return name
        raise KeyError(plugin)

    def pause(self, plugin: str, *hooks: str) -> None:
        """Call the listeners that a plugin has of these hooks no more, for the rest of the run.

        For a plugin that finds at the start of a run that it has nothing to do there.
        """
        for hook in hooks:
            if hook not in self._hooks:
                raise PluginError(
                    f"{self.who(plugin)}: no hook {hook!r}{nearest(hook, self._hooks)}"
                )
        self._silenced.update((plugin, hook) for hook in hooks)
        self._changed(hooks)

    def recall(self) -> None:
        """Forget the failures of an earlier run and call again what it set aside or paused."""
        self.errors = []
        for plugin, hook in [each for each in self._silenced if each[0] != _ALL]:
            self._silenced.remove((plugin, hook))
            if plugin in self._plugins:
                self._changed(self._hooks_of(plugin))

    def _failed(self, listener: Listener, error: Exception) -> bool:
        """Name the plugin in its error; True when the error is to end the run."""
        final = self._hooks[listener.hook].final
        if isinstance(error, Control) and not final:
            error.by = error.by or str(self._plugins[listener.plugin])
            return True
        # Whoever fires a hook does not answer for those who listen to it: the innermost does.
        culprit: Listener = vars(error).setdefault("trainbus_listener", listener)
        who = f"{culprit.who}, {culprit.hook}"
        if not listener.isolated:
            if not any("raised by" in note for note in getattr(error, "__notes__", ())):
                error.add_note(f"raised by {who}")
            return True
        del vars(error)["trainbus_listener"]
        report = f"{who}: {type(error).__name__}: {error}"
        self.errors.append(report)
        logger.debug("%s", report, exc_info=error)
        if final:
            logger.warning("%s", report)
        else:
            whole = self._is_observer(culprit.plugin)
            what = "it" if whole else "this listener"
            logger.warning("%s; %s is set aside, the run goes on without it", report, what)
            self._silenced.add((culprit.plugin, _ALL if whole else culprit.hook))
            self._changed(self._hooks_of(culprit.plugin))
        return False

    def _is_observer(self, name: str) -> bool:
        """Whether a plugin only looks on: what others do for the training goes on."""
        plugin = self._plugins.get(name)  # unregistered, perhaps, while it was called
        if plugin is None or not getattr(plugin.object, "observer", False):
            return False
        return all(self._hooks[hook].kind != "action" for hook in self._hooks_of(name))

    # --- time ----------------------------------------------------------------------------------

    def enable_timings(self) -> Callable[[], None]:
        """Measure every listener from now on; returns the function that ends it.

        Several may measure at once, and share what was measured since the first began.
        """
        if not self._timings.users:
            self._timings.clear()
            self._changed(self._hooks)
        self._timings.users += 1
        measuring = True

        def disable() -> None:
            nonlocal measuring
            if measuring:
                measuring = False
                self._timings.users -= 1
                if not self._timings.users:
                    self._changed(self._hooks)

        return disable

    def timings(self) -> list[Timing]:
        """Calls and seconds per plugin and hook, the most expensive first; empty when off."""
        return self._timings.sorted() if self._timings.users else []

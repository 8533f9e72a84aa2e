"""The event bus: who listens to what, in which order, and one fast function per hook."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from graphlib import CycleError, TopologicalSorter
from heapq import heappop, heappush
from types import ModuleType
from typing import Any

import pluggy

from trainbus import hookspecs
from trainbus.errors import Control, PluginError, nearest, together
from trainbus.events.checks import Member, check_listeners, marker
from trainbus.events.compiler import Hook, Listener, Opened, Timing, Wrappers, compile_hook
from trainbus.events.markers import Kind, impl_options, spec_options

logger = logging.getLogger("trainbus")

#: A failure here never hides how the run ended.
FINAL_HOOKS = frozenset({"on_exception", "on_run_end"})
#: A failure here stops the run before its first step, also that of an observer.
START_HOOKS = frozenset({"on_run_start", "on_fit_start"})


class Bus:
    """Registers plugins and calls their listeners.

    Each hook is an attribute: a function of the hook's arguments, or None when nobody listens, so
    that a call reads `if bus.on_epoch_end: bus.on_epoch_end(run)`. pluggy's lists hold the order;
    they are compiled anew whenever a plugin comes or goes.
    """

    def __init__(self) -> None:
        self.errors: list[str] = []
        self._manager = pluggy.PluginManager("trainbus")
        self._members: dict[str, Member] = {}
        self._hooks: dict[str, Hook] = {}
        self._namespaces: set[object] = set()
        self._wrappers: dict[str, Wrappers] = {}
        self._timings: dict[tuple[str, str], Timing] | None = None
        self._timers = 0
        self._muted: frozenset[Kind] = frozenset()
        #: Listeners that failed or pause: (plugin, hook), or (plugin, "") for all of a plugin.
        self._set_aside: set[tuple[str, str]] = set()
        self._add_hookspecs(hookspecs, Member("core", None, core=True))
        self._compile()

    def __getattr__(self, name: str) -> Any:
        known = self.__dict__.get("_hooks", {})
        raise AttributeError(f"no hook {name!r} is declared{nearest(name, known)}")

    # --- who listens ---------------------------------------------------------------------------

    @property
    def hooks(self) -> dict[str, Hook]:
        """The declared hooks by name: the core's in firing order, then those of plugins."""
        return self._hooks

    @property
    def plugins(self) -> dict[str, object]:
        """The registered plugins by name, in order of registration."""
        return {name: member.plugin for name, member in self._members.items()}

    def register(self, plugin: object, name: str, origin: str = "") -> None:
        """Add a plugin; at once, also in the middle of a run. Raises `PluginError`."""
        self.register_all([Member(name, plugin, origin)])

    def register_all(self, members: Iterable[Member]) -> None:
        """Add several plugins, whose new hooks all of them may use; on an error, none of them."""
        added: list[Member] = []
        known, namespaces = set(self._hooks), set(self._namespaces)
        try:
            fresh = list(members)
            for member in fresh:
                self._admit(member, added)
                added.append(member)
                self._members[member.name] = member
            failures = []
            for member in fresh:
                try:
                    check_listeners(member, self._hooks)
                except PluginError as error:
                    failures.append(error)
            if failures:
                raise together(failures)
            for member in fresh:
                with _as_plugin_error(member):
                    self._manager.register(member.plugin, member.name)
            self._sort()
        except Exception:
            for member in added:
                self._remove(member.name)
            for name in [name for name in self._hooks if name not in known]:
                del self._hooks[name]
                if caller := getattr(self._manager.hook, name, None):
                    caller.spec = None  # pluggy has no other way to take a declaration back
            self._namespaces &= namespaces
            self._sort()
            raise
        self._compile()

    def unregister(self, plugin: object) -> None:
        """Remove a plugin, given itself or its name; at once, also in the middle of a run."""
        for name, member in self._members.items():
            if plugin == name or plugin is member.plugin:
                self._remove(name)
                self._sort()
                self._compile()
                return
        raise PluginError(f"cannot unregister {plugin!r}: registered are {', '.join(self.plugins)}")

    def order(self) -> dict[str, list[str]]:
        """For each hook that is listened to, its plugins in the order of the calls."""
        return {
            hook: names
            for hook in self._hooks
            if (names := [impl.plugin_name for impl in self._impls(hook)])
        }

    @property
    def loggers(self) -> dict[str, dict[str, Callable[..., Any]]]:
        """The record hooks of each plugin that listens to `on_log_start`, as functions that raise.

        The bus does not call them: whoever delivers the records does, on threads of its own.
        """
        records = [hook for hook in self._hooks.values() if hook.kind == "record"]
        found: dict[str, dict[str, Callable[..., Any]]] = {}
        for name in self._logger_names():
            found[name] = {}
            for hook in records:
                mine = [each for each in self._listeners(hook) if each.plugin == name]
                if function := compile_hook(hook, mine, lambda *_failure: True):
                    found[name][hook.name] = function
        return found

    def who(self, name: str) -> str:
        """A registered plugin and its distribution, for messages."""
        return str(self._members[name])

    def _logger_names(self) -> list[str]:
        return [impl.plugin_name for impl in self._impls("on_log_start")]

    def _remove(self, name: str) -> None:
        del self._members[name]
        if self._manager.has_plugin(name):
            self._manager.unregister(name=name)

    def _admit(self, member: Member, added: list[Member]) -> None:
        if isinstance(member.plugin, type):
            raise PluginError(
                f"{member} is the class {member.plugin.__name__}; did you forget `()`?"
            )
        if other := self._members.get(member.name):
            raise PluginError(f"two plugins are named {member.name!r}: {other} and {member}")
        for other in self._members.values():
            if other.plugin is member.plugin:
                raise PluginError(f"{member} is already registered as {other.name!r}")
        if marker(member.plugin, "register_hookspecs") is not None:
            try:
                namespace = member.plugin.register_hookspecs()  # type: ignore[attr-defined]
            except Exception as error:
                raise PluginError(
                    f"{member}, register_hookspecs: {type(error).__name__}: {error}"
                ) from error
            self._add_hookspecs(namespace, member)

    def _add_hookspecs(self, namespace: object, member: Member) -> None:
        if not isinstance(namespace, (ModuleType, type)):
            raise PluginError(
                f"{member}: register_hookspecs returns a class or module, not {namespace!r}"
            )
        if namespace in self._namespaces:
            return  # a plugin comes back; its hooks stayed, since others may listen to them
        declarations = {
            name: declaration
            for name, declaration in vars(namespace).items()
            if hasattr(declaration, "trainbus_spec_options")
        }
        if not declarations:
            raise PluginError(
                f"{member}, register_hookspecs: {namespace!r} declares no hook; mark them @hookspec"
            )
        for name in declarations:
            if name in self._hooks or hasattr(type(self), name):
                raise PluginError(f"{member} declares the hook {name!r}, which exists already")
        for name, declaration in declarations.items():
            options = spec_options(declaration)
            arguments = tuple(inspect.signature(declaration).parameters)
            if isinstance(namespace, type) and arguments[:1] == ("self",):
                arguments = arguments[1:]
            self._hooks[name] = Hook(name, arguments, options.kind, options.cadence)
        with _as_plugin_error(member):
            self._manager.add_hookspecs(namespace)
        self._namespaces.add(namespace)

    # --- in which order ------------------------------------------------------------------------

    def _impls(self, hook: str) -> list[pluggy.HookImpl]:
        caller: pluggy.HookCaller = getattr(self._manager.hook, hook)
        return caller.get_hookimpls()[::-1]

    def _sort(self) -> None:
        """Write the order into pluggy's lists, which stay the one truth.

        Wrappers outside; within them and within the others `tryfirst`, plain, `trylast`; within
        those the order of registration; and over all that, `before` and `after`.
        """
        position = {name: i for i, name in enumerate(self._members)}
        for hook in self._hooks:
            impls = self._impls(hook)
            if len(impls) < 2:
                continue
            impls.sort(key=lambda impl: (
                not impl.wrapper, impl.trylast - impl.tryfirst, position[impl.plugin_name]
            ))  # fmt: skip
            wrappers = sum(impl.wrapper for impl in impls)
            # pluggy offers no way to order by name; the list is read in reverse.
            caller = getattr(self._manager.hook, hook)
            caller._hookimpls[:] = [
                *self._constrained(hook, impls[:wrappers]),
                *self._constrained(hook, impls[wrappers:]),
            ][::-1]

    def _constrained(self, hook: str, impls: list[pluggy.HookImpl]) -> list[pluggy.HookImpl]:
        """`impls` with each `before` and `after` kept and otherwise in the order given."""
        options = [impl_options(impl.function) for impl in impls]
        if not any(option.before or option.after for option in options):
            return impls
        index: dict[str, list[int]] = {}
        for i, impl in enumerate(impls):
            index.setdefault(impl.plugin_name, []).append(i)
        sorter: TopologicalSorter[int] = TopologicalSorter(dict.fromkeys(range(len(impls)), ()))
        for i, option in enumerate(options):
            for name in option.before:
                for other in index.get(name, ()):
                    sorter.add(other, i)
            for name in option.after:
                sorter.add(i, *index.get(name, ()))
        try:
            sorter.prepare()
        except CycleError as error:
            cycle = " before ".join(impls[i].plugin_name for i in error.args[1])
            raise PluginError(f"{hook}: before/after contradict each other: {cycle}") from None
        ordered, ready = [], list(sorter.get_ready())
        ready.sort()
        while ready:
            i = heappop(ready)
            ordered.append(impls[i])
            sorter.done(i)
            for following in sorter.get_ready():
                heappush(ready, following)
        return ordered

    # --- one fast function per hook ------------------------------------------------------------

    def _compile(self) -> None:
        timing = None if self._timings is None else self._timing
        loggers = set(self._logger_names())
        for name, hook in self._hooks.items():
            listeners = [] if hook.kind in self._muted else self._listeners(hook)
            if hook.kind == "record":
                listeners = [each for each in listeners if each.plugin not in loggers]
            self._wrappers[name] = Wrappers(
                hook, [each for each in listeners if each.wrapper], self._failed, timing
            )
            setattr(self, name, compile_hook(hook, listeners, self._failed, timing))

    def _listeners(self, hook: Hook) -> list[Listener]:
        listeners = []
        for impl in self._impls(hook.name):
            member = self._members[impl.plugin_name]
            observer = bool(getattr(member.plugin, "observer", False))
            final = hook.name in FINAL_HOOKS
            aside = {(member.name, ""), (member.name, hook.name)} & self._set_aside
            if aside and not final:
                continue
            options = impl_options(impl.function)
            listeners.append(
                Listener(
                    hook.name, member.name, impl.function, tuple(impl.argnames),
                    tuple(name for name in impl.kwargnames if name in hook.arguments),
                    impl.wrapper,
                    options.every, options.once, options.rank_zero,
                    isolated=final
                    or hook.kind == "record"
                    or (observer and hook.kind == "event" and hook.name not in START_HOOKS),
                    core=member.core,
                )
            )  # fmt: skip
        return listeners

    def open(self, hook: str, *arguments: Any) -> Opened:
        """The first half of a hook's wrappers: each runs up to its `yield`."""
        wrappers = self._wrappers[hook]
        return wrappers.open(*arguments) if wrappers.listeners else []

    def close(
        self, hook: str, opened: Opened, result: Any, error: BaseException | None = None
    ) -> Any:
        """The second half: each wrapper gets the result, or the error; returns the last word."""
        return self._wrappers[hook].close(opened, result, error)

    def mute(self, *kinds: Kind) -> Callable[[], None]:
        """Call no listener of these kinds; returns the function that ends it."""
        before, self._muted = self._muted, self._muted | set(kinds)
        self._compile()

        def unmute() -> None:
            self._muted = before
            self._compile()

        return unmute

    def pause(self, plugin: str, *hooks: str) -> None:
        """Call the listeners that a plugin has of these hooks no more, for the rest of the run.

        For a plugin that finds at the start of a run that it has nothing to do there.
        """
        for hook in hooks:
            if hook not in self._hooks:
                raise PluginError(
                    f"{self.who(plugin)}: no hook {hook!r}{nearest(hook, self._hooks)}"
                )
        self._set_aside.update((plugin, hook) for hook in hooks)
        self._compile()

    # --- failures ------------------------------------------------------------------------------

    def _failed(self, listener: Listener, error: Exception) -> bool:
        """Name the plugin in its error; True when the error is to end the run."""
        if isinstance(error, Control) and listener.hook not in FINAL_HOOKS:
            return True
        who = f"{self._members[listener.plugin]}, {listener.hook}"
        if not listener.isolated:
            if not any("raised by" in note for note in getattr(error, "__notes__", ())):
                error.add_note(f"raised by {who}")
            return True
        report = f"{who}: {type(error).__name__}: {error}"
        self.errors.append(report)
        logger.debug("%s", report, exc_info=error)
        if listener.hook in FINAL_HOOKS:
            logger.warning("%s", report)
        else:
            logger.warning("%s; it is set aside, the run goes on without it", report)
            # What a plugin does for the training goes on, though its records are lost.
            acts = any(
                self._hooks[hook].kind == "action" and listener.plugin in names
                for hook, names in self.order().items()
            )
            self._set_aside.add((listener.plugin, listener.hook if acts else ""))
            self._compile()
        return False

    def recall(self) -> None:
        """Forget the failures of an earlier run and call again what it set aside or paused."""
        self.errors = []
        if self._set_aside:
            self._set_aside.clear()
            self._compile()

    # --- time ----------------------------------------------------------------------------------

    def enable_timings(self) -> Callable[[], None]:
        """Measure every listener from now on; returns the function that ends it.

        Several may measure at once, and share what was measured since the first began.
        """
        self._timers += 1
        if self._timings is None:
            self._timings = {}
            self._compile()
        ended = False

        def disable() -> None:
            nonlocal ended
            if ended:
                return
            ended = True
            self._timers -= 1
            if not self._timers:
                self._timings = None
                self._compile()

        return disable

    def timings(self) -> list[Timing]:
        """Calls and seconds per plugin and hook, the most expensive first; empty when off."""
        called = [timing for timing in (self._timings or {}).values() if timing.calls]
        return sorted(called, key=lambda timing: -timing.seconds)

    def _timing(self, listener: Listener) -> Timing:
        assert self._timings is not None
        key = (listener.plugin, listener.hook)
        return self._timings.setdefault(key, Timing(*key))


@contextmanager
def _as_plugin_error(member: Member) -> Iterator[None]:
    """What pluggy refuses on its own, in our words' form."""
    try:
        yield
    except (pluggy.PluginValidationError, ValueError) as error:
        raise PluginError(f"{member}: {error}") from error

"""Turn the listeners of one hook into one flat function.

pluggy decides who listens and in which order; this module writes down that decision as Python, so
that an event costs a plain function call per listener, and nothing at all where nobody listens.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from trainbus.errors import Control, PluginError, SkipBatch, StopRun
from trainbus.events.markers import Cadence, ImplOptions, SpecOptions
from trainbus.events.results import gives, lost, unwanted
from trainbus.events.timing import Timings, begin

#: When a listener marked `every=n` is due, by what its hook counts.
_DUE: dict[Cadence, str] = {
    "step": "not run.accumulating and (run.global_step + (not run.stepped)) % {n} == 0",
    "step_end": "run.stepped and run.global_step % {n} == 0",
    "epoch": "(run.epoch + 1) % {n} == 0",
    "batch": "(run.batch_index + 1) % {n} == 0",
}


_RAISE_CONTROL = ["if _tb_control is not None:", "    raise _tb_control"]


@dataclass(frozen=True, slots=True, eq=False)
class Listener:
    """One plugin's listener of one hook, as the compiler needs it."""

    hook: str
    plugin: str
    #: The plugin and what it came from, for messages.
    who: str
    function: Callable[..., Any]
    #: What it takes of the hook's arguments: by position, and those with a default by name.
    arguments: tuple[str, ...]
    keywords: tuple[str, ...]
    wrapper: bool
    options: ImplOptions
    #: Its failure is reported and the next listener is called, instead of ending the run.
    isolated: bool
    #: Part of trainbus itself: its errors are those of the code it calls, and pass as they are.
    core: bool

    def condition(self, cadence: Cadence | None) -> str:
        """When to call it, as Python source; empty for always."""
        parts = []
        if self.options.rank_zero:
            parts.append("run.rank == 0")
        if (every := self.options.every) is not None:
            assert cadence is not None
            parts.append(_DUE[cadence].format(n=every))
        if self.options.once:
            # By name, not by object: a recompilation in mid-run makes new listeners.
            key = f"{self.plugin}.{self.hook}.{self.function.__name__}"
            parts.append(f"run.first_time({key!r})")
        return " and ".join(parts)

    def call(self, function: str) -> str:
        """The call of `function`, as Python source."""
        return f"{function}({', '.join([*self.arguments, *(f'{k}={k}' for k in self.keywords)])})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook(SpecOptions):
    """A declared hook: its name, its arguments, and what its declaration says of it."""

    name: str
    arguments: tuple[str, ...]


#: Called with a listener that raised; True to raise again, False to go on.
Failed = Callable[[Listener, Exception], bool]
Opened = list[tuple[Listener, Generator[None, Any, Any]]]


class Compiled:
    """One hook with its listeners, as code.

    Its wrappers are generators around the others, opened before them and closed after them. The
    two halves can be called apart: a hand-written loop has its body between them. What happens to
    results and errors is what pluggy does.
    """

    def __init__(
        self,
        hook: Hook,
        listeners: Sequence[Listener],
        failed: Failed,
        timings: Timings | None = None,
    ) -> None:
        self.hook = hook
        self.plain = [listener for listener in listeners if not listener.wrapper]
        self.wrappers = [listener for listener in listeners if listener.wrapper]
        self._failed = failed
        self._timings = timings

    @cached_property
    def call(self) -> Callable[..., Any] | None:
        """Calls the listeners in order; None when there are none.

        An action returns its first result that is not None, a contribution the list of all
        results, the others nothing.
        """
        if not (self.plain or self.wrappers):
            return None
        flat = self._alone() or self._flat()
        return self._around(flat) if self.wrappers else flat

    # --- listeners that are no wrappers --------------------------------------------------------

    def _alone(self) -> Callable[..., Any] | None:
        """The core's own way to do an action, where nothing has to stand around its call."""
        if len(self.plain) != 1 or self._timings is not None or self.hook.kind != "action":
            return None
        (alone,) = self.plain
        whole = (alone.arguments, alone.keywords) == (self.hook.arguments, ())
        return alone.function if alone.core and whole else None

    def _flat(self) -> Callable[..., Any]:
        lines = []
        for i, listener in enumerate(self.plain):
            called = self._calling(i, listener)
            if condition := listener.condition(self.hook.cadence):
                called = [f"if {condition}:", *_indented(called)]
            lines += called
        if self.hook.kind == "contribution":
            lines = ["_tb_results = []", *lines, "return _tb_results"]
        elif self.hook.reaches_all:
            # Wrappers around it go on behind their `yield`, as all others do.
            ending = ["return _tb_control"] if self.wrappers else _RAISE_CONTROL
            lines = ["_tb_control = None", *lines, *ending]
        else:
            lines.append("return None")
        scope = {"_tb_failed": self._failed, "_tb_Control": Control, "_tb_StopRun": StopRun}
        return self._write("", lines, self.plain, **scope)

    def _calling(self, i: int, listener: Listener) -> list[str]:
        """The lines that call listener `i` and use its result as the kind of the hook demands."""
        lines = [listener.call(f"_tb_call{i}")]
        use = {"action": "return _tb_result", "contribution": "_tb_results.append(_tb_result)"}
        if self.hook.kind in use:
            lines = [
                f"_tb_result = {lines[0]}",
                "if _tb_result is not None:",
                f"    {use[self.hook.kind]}",
            ]
        elif self.hook.kind == "event" and gives(listener.function):
            lines = [
                f"_tb_result = {lines[0]}",
                "if _tb_result is not None:",
                f"    raise _tb_wrong(_tb_listener{i}, _tb_result)",
            ]
        if not listener.core:
            raising = ["raise"]
            if self.hook.reaches_all:  # the strongest wish is told when all were called
                raising = [
                    "if not isinstance(_tb_error, _tb_Control):",
                    "    raise",
                    "if not isinstance(_tb_control, _tb_StopRun):",
                    "    _tb_control = _tb_error",
                ]
            lines = [
                "try:",
                *_indented(lines),
                "except Exception as _tb_error:",
                f"    if _tb_failed(_tb_listener{i}, _tb_error):",
                *_indented(_indented(raising)),
            ]
        return self._timed(i, lines)

    # --- wrappers ------------------------------------------------------------------------------

    def _around(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        """A function that calls `inner` between the two halves of the wrappers."""
        lines = [
            "_tb_opened = []",
            "try:",
            *_indented(self._opening),
            f"    _tb_result = _tb_inner({', '.join(self.hook.arguments)})",
            "except BaseException as _tb_error:",
            "    return _tb_close(_tb_opened, None, _tb_error)",
            "return _tb_close(_tb_opened, _tb_result)",
        ]
        if self.hook.reaches_all:
            lines[-1:] = [
                "_tb_control = _tb_result",
                "_tb_close(_tb_opened, None)",
                *_RAISE_CONTROL,
            ]
        return self._write("", lines, self.wrappers, _tb_inner=inner, _tb_close=self.close)

    @cached_property
    def _open(self) -> Callable[..., None]:
        """The first half alone: written when a hand-written loop asks for it, which few do."""
        return self._write("_tb_opened", self._opening, self.wrappers)

    @property
    def _opening(self) -> list[str]:
        """The lines that run each wrapper, where it is due, up to its `yield`."""
        opening = []
        for i, listener in enumerate(self.wrappers):
            lines = [
                "try:",
                f"    _tb_generator = {listener.call(f'_tb_call{i}')}",
                "    next(_tb_generator)",
                "except Exception as _tb_error:",
                f"    _tb_fails(_tb_listener{i}, _tb_error)",
                "else:",
                f"    _tb_opened.append((_tb_listener{i}, _tb_generator))",
            ]
            lines = self._timed(i, lines)
            if condition := listener.condition(self.hook.cadence):
                lines = [f"if {condition}:", *_indented(lines)]
            opening += lines
        return opening

    def open(self, *arguments: Any) -> Opened:
        """Run each wrapper up to its `yield`, the outermost first.

        Raises:
            SkipBatch: one failed, and another one outside it took the failure for a result.
        """
        opened: Opened = []
        if not self.wrappers:
            return opened
        try:
            self._open(opened, *arguments)
        except BaseException as error:
            self.close(opened, None, error)
            raise SkipBatch from error
        return opened

    def _fails(self, listener: Listener, error: Exception) -> None:
        """Raise the error of a wrapper that did not come to its `yield`, or go on without it."""
        if isinstance(error, StopIteration):
            error = RuntimeError(f"wrapper of {self.hook.name} ended without a `yield`")
            error.__suppress_context__ = True
        if self._failed(listener, error):
            raise error

    def close(self, opened: Opened, result: Any, error: BaseException | None = None) -> Any:
        """Give the result, or the error, to each open wrapper, the innermost first."""
        timings = self._timings
        while opened:
            listener, generator = opened.pop()
            # There is none where it was opened before times were taken.
            timing = timings.known(listener.plugin, listener.hook) if timings else None
            began = begin() if timing is not None else None
            try:
                if error is None:
                    generator.send(result)
                else:
                    generator.throw(error)
                generator.close()
                raise RuntimeError(f"wrapper of {self.hook.name} has a second `yield`")
            except StopIteration as stop:
                wrong = None
                if error is None and (stop.value is None) is not (result is None):
                    wrong = self._wrong(listener, stop.value, result)
                if wrong is None:
                    result, error = stop.value, None
                elif self._failed(listener, wrong):
                    error = wrong
            except BaseException as raised:
                if raised is error or _is_converted(raised, error):
                    pass  # it went through
                elif not isinstance(raised, Exception) or self._failed(listener, raised):
                    error = raised
            if timing is not None and began is not None:
                timing.add(began, calls=0)
        if error is not None:
            raise error
        return result

    def _wrong(self, listener: Listener, value: Any, result: Any = None) -> PluginError | None:
        """What is wrong with the value that a listener returned where the others gave `result`."""
        if self.hook.kind == "event" and value is not None:
            return unwanted(listener.who, listener.hook, self.hook.arguments, value)
        if self.hook.kind == "action" and value is None:
            return lost(listener.who, listener.hook, result)
        return None

    # --- source --------------------------------------------------------------------------------

    def _timed(self, i: int, lines: Sequence[str]) -> list[str]:
        """The lines with their time added to that of listener `i`, where somebody measures."""
        if self._timings is None:
            return list(lines)
        return [
            f"_tb_began{i} = _tb_begin()",
            "try:",
            *_indented(lines),
            "finally:",
            f"    _tb_timing{i}.add(_tb_began{i})",
        ]

    def _write(
        self, first: str, lines: Sequence[str], listeners: Sequence[Listener], **scope: Any
    ) -> Callable[..., Any]:
        """A function of the hook's arguments whose lines name the listeners by number.

        Its own names begin with `_tb_`, so that a hook's arguments may have any other name.
        """
        for i, listener in enumerate(listeners):
            scope[f"_tb_call{i}"], scope[f"_tb_listener{i}"] = listener.function, listener
            if self._timings is not None:
                scope[f"_tb_timing{i}"] = self._timings.of(listener.plugin, listener.hook)
        scope |= {"_tb_begin": begin, "_tb_fails": self._fails, "_tb_wrong": self._wrong}
        arguments = ", ".join(filter(None, [first, *self.hook.arguments]))
        source = [f"def {self.hook.name}({arguments}):", *_indented(lines)]
        part = "hook" if listeners is self.plain else f"wrappers {first}"
        return _define(self.hook.name, source, scope, part)


def _indented(lines: Sequence[str]) -> list[str]:
    return ["    " + line for line in lines]


def _define(
    name: str, lines: Sequence[str], scope: dict[str, Any], part: str
) -> Callable[..., Any]:
    """Compile generated lines and return the function of that name.

    Args:
        name: that of the hook.
        lines: its source.
        scope: the names that the source uses.
        part: which function of the hook it is; each has a file name of its own for tracebacks.
    """
    source = "\n".join(lines) + "\n"
    filename = f"<trainbus {part.strip()} {name}>"
    # Known to linecache, so that a traceback through the generated lines shows them.
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    exec(compile(source, filename, "exec"), scope)
    function: Callable[..., Any] = scope[name]
    return function


def _is_converted(raised: BaseException, error: BaseException | None) -> bool:
    """Whether Python made a RuntimeError of a StopIteration that went through a generator."""
    return (
        isinstance(raised, RuntimeError)
        and isinstance(error, StopIteration)
        and raised.__cause__ is error
    )

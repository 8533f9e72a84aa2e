"""Turn the listeners of one hook into one flat function.

pluggy decides who listens and in which order; this module writes down that decision as Python, so
that an event costs a plain function call per listener, and nothing at all where nobody listens.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter
from typing import Any

from trainbus.errors import SkipBatch
from trainbus.events.markers import Cadence, Kind

#: When a listener marked `every=n` is due, by what its hook counts.
_DUE: dict[Cadence, str] = {
    "step": "not run.accumulating and (run.global_step + (not run.stepped)) % {n} == 0",
    "step_end": "run.stepped and run.global_step % {n} == 0",
    "epoch": "(run.epoch + 1) % {n} == 0",
    "batch": "(run.batch_index + 1) % {n} == 0",
}


@dataclass(slots=True)
class Timing:
    """Time spent in one plugin's listener of one hook, without that of listeners it calls."""

    plugin: str
    hook: str
    calls: int = 0
    seconds: float = 0.0

    def add(self, began: tuple[float, float], calls: int = 1) -> None:
        """Count a call that began at what `begin` gave."""
        global _nested
        started, before = began
        spent = perf_counter() - started
        self.seconds += spent - _nested
        self.calls += calls
        _nested = before + spent


#: Seconds of the listeners that were called by the one at hand.
_nested = 0.0


def begin() -> tuple[float, float]:
    """The time at which a listener is called, and what its caller spent in others before."""
    global _nested
    before, _nested = _nested, 0.0
    return perf_counter(), before


@dataclass(frozen=True, slots=True, eq=False)
class Listener:
    """One plugin's listener of one hook, as the compiler needs it."""

    hook: str
    plugin: str
    function: Callable[..., Any]
    #: What it takes of the hook's arguments: by position, and those with a default by name.
    arguments: tuple[str, ...]
    keywords: tuple[str, ...] = ()
    wrapper: bool = False
    every: int | None = None
    once: bool = False
    rank_zero: bool = False
    #: Its failure is reported and the next listener is called, instead of ending the run.
    isolated: bool = False
    #: Part of trainbus itself: its errors are those of the code it calls, and pass as they are.
    core: bool = False

    def condition(self, cadence: Cadence | None) -> str:
        """When to call it, as Python source; empty for always."""
        parts = []
        if self.rank_zero:
            parts.append("run.rank == 0")
        if self.every is not None:
            assert cadence is not None
            parts.append(_DUE[cadence].format(n=self.every))
        if self.once:
            # By name, not by object: a recompilation in mid-run makes new listeners.
            key = f"{self.plugin}.{self.hook}.{self.function.__name__}"
            parts.append(f"run.first_time({key!r})")
        return " and ".join(parts)

    def call(self, function: str) -> str:
        """The call of `function`, as Python source."""
        return f"{function}({', '.join([*self.arguments, *(f'{k}={k}' for k in self.keywords)])})"


@dataclass(frozen=True, slots=True)
class Hook:
    """A declared hook: its name, arguments and kind."""

    name: str
    arguments: tuple[str, ...]
    kind: Kind
    cadence: Cadence | None


#: Called with a listener that raised; True to raise again, False to go on.
Failed = Callable[[Listener, Exception], bool]
Opened = list[tuple[Listener, Generator[None, Any, Any]]]


def compile_hook(
    hook: Hook,
    listeners: Sequence[Listener],
    failed: Failed,
    timing: Callable[[Listener], Timing] | None = None,
) -> Callable[..., Any] | None:
    """One function that calls `listeners` in order, or None when there are none.

    An action returns its first result that is not None, a contribution the list of all results,
    an event or a record nothing. With `timing`, every listener adds to its own `Timing`.
    """
    plain = [listener for listener in listeners if not listener.wrapper]
    wrappers = Wrappers(
        hook, [listener for listener in listeners if listener.wrapper], failed, timing
    )
    if not plain and not wrappers.listeners:
        return None
    alone = plain[0] if len(plain) == 1 else None
    if (
        alone is not None
        and alone.core
        and timing is None
        and hook.kind == "action"
        and (alone.arguments, alone.keywords) == (hook.arguments, ())
    ):
        flat = alone.function
    else:
        flat = _write(hook, plain, failed, timing)
    return wrappers.around(flat) if wrappers.listeners else flat


def _define(
    name: str, lines: Sequence[str], scope: dict[str, Any], part: str = "hook"
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


def _write(
    hook: Hook,
    listeners: Sequence[Listener],
    failed: Failed,
    timing: Callable[[Listener], Timing] | None,
) -> Callable[..., Any]:
    """Generate, compile and return the flat function of listeners that are no wrappers.

    Its own names begin with `_tb_`, so that a hook's arguments may have any other name.
    """
    scope: dict[str, Any] = {"_tb_failed": failed, "_tb_begin": begin}
    lines = [f"def {hook.name}({', '.join(hook.arguments)}):"]
    if hook.kind == "contribution":
        lines.append("    _tb_results = []")
    for i, listener in enumerate(listeners):
        scope[f"_tb_call{i}"], scope[f"_tb_listener{i}"] = listener.function, listener
        if timing is not None:
            scope[f"_tb_timing{i}"] = timing(listener)
        indent = "    "
        if condition := listener.condition(hook.cadence):
            lines.append(f"{indent}if {condition}:")
            indent += "    "
        lines += [indent + line for line in _call(hook, listener, i, timing is not None)]
    lines.append("    return _tb_results" if hook.kind == "contribution" else "    return None")
    return _define(hook.name, lines, scope)


def _call(hook: Hook, listener: Listener, i: int, timed: bool) -> list[str]:
    """The lines that call listener `i` and use its result as the kind of the hook demands."""
    lines = [listener.call(f"_tb_call{i}")]
    use = {"action": "return _tb_result", "contribution": "_tb_results.append(_tb_result)"}
    if hook.kind in use:
        lines = [f"_tb_result = {lines[0]}", "if _tb_result is not None:", f"    {use[hook.kind]}"]
    if not listener.core:
        lines = [
            "try:",
            *("    " + line for line in lines),
            "except Exception as _tb_error:",
            f"    if _tb_failed(_tb_listener{i}, _tb_error):",
            "        raise",
        ]
    return _timed(lines, i) if timed else lines


def _timed(lines: Sequence[str], i: int) -> list[str]:
    """The lines with their time added to that of listener `i`."""
    return [
        f"_tb_began{i} = _tb_begin()",
        "try:",
        *("    " + line for line in lines),
        "finally:",
        f"    _tb_timing{i}.add(_tb_began{i})",
    ]


class Wrappers:
    """The generators around a hook, opened before its listeners and closed after them.

    The two halves can be called apart: a hand-written loop has its body between them. What happens
    to results and errors is what pluggy does.
    """

    def __init__(
        self,
        hook: Hook,
        listeners: Sequence[Listener],
        failed: Failed,
        timing: Callable[[Listener], Timing] | None = None,
    ) -> None:
        self.hook = hook
        self.listeners = listeners
        self._failed = failed
        self._timings = (
            None
            if timing is None
            else {(each.plugin, each.hook): timing(each) for each in listeners}
        )

    @cached_property
    def _open(self) -> Callable[..., None]:
        """The first half: written when a hand-written loop asks for it, which few do."""
        lines = [line for i in range(len(self.listeners)) for line in self._opening(i)]
        return self._write("_tb_opened", lines)

    def _opening(self, i: int) -> list[str]:
        """The lines that run wrapper `i`, where it is due, up to its `yield`."""
        listener = self.listeners[i]
        lines = [
            "try:",
            f"    _tb_generator = {listener.call(f'_tb_call{i}')}",
            "    next(_tb_generator)",
            "except Exception as _tb_error:",
            f"    _tb_fails(_tb_listener{i}, _tb_error)",
            "else:",
            f"    _tb_opened.append((_tb_listener{i}, _tb_generator))",
        ]
        if self._timings is not None:
            lines = _timed(lines, i)
        if condition := listener.condition(self.hook.cadence):
            lines = [f"if {condition}:", *("    " + line for line in lines)]
        return lines

    def _write(self, first: str, lines: Sequence[str], **scope: Any) -> Callable[..., Any]:
        """A function of the hook's arguments, with lines that name the wrappers by number."""
        for i, listener in enumerate(self.listeners):
            scope[f"_tb_call{i}"], scope[f"_tb_listener{i}"] = listener.function, listener
            if self._timings is not None:
                scope[f"_tb_timing{i}"] = self._timings[listener.plugin, listener.hook]
        scope |= {"_tb_fails": self._fails, "_tb_close": self.close, "_tb_begin": begin}
        arguments = ", ".join(filter(None, [first, *self.hook.arguments]))
        body = ["    " + line for line in lines]
        source = [f"def {self.hook.name}({arguments}):", *body]
        return _define(self.hook.name, source, scope, f"wrappers {first}")

    def around(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        """A function that calls `inner` between the two halves."""
        lines = [
            "_tb_opened = []",
            "try:",
            *("    " + line for i in range(len(self.listeners)) for line in self._opening(i)),
            f"    _tb_result = _tb_inner({', '.join(self.hook.arguments)})",
            "except BaseException as _tb_error:",
            "    return _tb_close(_tb_opened, None, _tb_error)",
            "return _tb_close(_tb_opened, _tb_result)",
        ]
        return self._write("", lines, _tb_inner=inner)

    def open(self, *arguments: Any) -> Opened:
        """Run each wrapper up to its `yield`, the outermost first.

        Raises:
            SkipBatch: one failed, and another one outside it took the failure for a result.
        """
        opened: Opened = []
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
            timing = timings.get((listener.plugin, listener.hook)) if timings else None
            began = begin() if timing is not None else None
            try:
                if error is None:
                    generator.send(result)
                else:
                    generator.throw(error)
                generator.close()
                raise RuntimeError(f"wrapper of {self.hook.name} has a second `yield`")
            except StopIteration as stop:
                result, error = stop.value, None
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


def _is_converted(raised: BaseException, error: BaseException | None) -> bool:
    """Whether Python made a RuntimeError of a StopIteration that went through a generator."""
    return (
        isinstance(raised, RuntimeError)
        and isinstance(error, StopIteration)
        and raised.__cause__ is error
    )

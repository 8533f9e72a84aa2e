"""The clock: each moment of a fit belongs to one section of it, and there to one part of a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Literal

#: What a moment is spent on. What is in no other part is between them, in the loop: listeners,
#: and the loop itself.
Part = Literal["data", "transfer", "forward", "backward", "optimizer", "loop"]
PARTS: tuple[Part, ...] = ("data", "transfer", "forward", "backward", "optimizer")

#: The usual steps; the first batch of the fit, in which workers start and kernels are chosen; those
#: that were looked at closely (FLOPs, trace), which takes time; those in which the device was
#: waited for; validation passes; and what is outside of all passes.
SECTIONS = ("steps", "first", "observed", "waited", "validation", "between")

#: Seconds that each listener has taken so far, by plugin and hook.
Listeners = Mapping[tuple[str, str], float]
Before = Callable[[], AbstractContextManager[Any]]


@dataclass
class Section:
    """What was measured in one kind of moments."""

    seconds: float = 0.0
    batches: int = 0
    #: Batches whose backward pass was made inside the forward pass: by a task that steps by itself.
    nested: int = 0
    samples: int = 0
    tokens: int = 0
    parts: dict[Part, float] = field(default_factory=lambda: dict.fromkeys((*PARTS, "loop"), 0.0))
    listeners: dict[tuple[str, str], float] = field(default_factory=dict)

    def copy(self) -> Section:
        """The same numbers, which stay."""
        return self._with({}, 1, Section())

    def since(self, earlier: Section) -> Section:
        """What came after `earlier`, a copy of this."""
        return self._with(earlier.listeners, -1, earlier)

    def _with(self, listeners: Listeners, sign: int, other: Section) -> Section:
        names = ("seconds", "batches", "nested", "samples", "tokens")
        numbers = {name: getattr(self, name) + sign * getattr(other, name) for name in names}
        return Section(
            parts={part: self.parts[part] + sign * other.parts[part] for part in self.parts},
            listeners={key: self.listeners[key] - listeners.get(key, 0) for key in self.listeners},
            **numbers,
        )


class Timeline:
    """Reads the clock at the borders of parts and sections, and adds up what lies between.

    Args:
        listeners: tells the seconds of each listener so far; asked where sections change.
        wait: waits until the device has done all it was given; called at each border in `waited`.
    """

    def __init__(self, listeners: Callable[[], Listeners], wait: Callable[[], None]) -> None:
        self.sections = {name: Section() for name in SECTIONS}
        #: The section at work.
        self.name = "between"
        self._section = self.sections["between"]
        self._listeners = listeners
        self._wait = wait
        self._waits = False
        self._part: Part = "loop"
        self._outer: list[Part] = []
        self._known = dict(listeners())
        self._since = perf_counter()

    def begin(self, part: Part) -> None:
        """From here on the time is spent on `part`, until `end`."""
        self._border()
        if part == "backward" and self._part == "forward":
            self._section.nested += 1
        self._outer.append(self._part)
        self._part = part

    def end(self) -> None:
        """The part that was begun last is over; the one around it goes on."""
        self._border()
        self._part = self._outer.pop() if self._outer else "loop"

    def enter(self, name: str) -> None:
        """A section begins, and the one at work ends."""
        if name == self.name:
            return
        self._border()
        if name == "waited":  # what is left of the steps before is theirs
            self._waits = True
            self._border()
        self._note_listeners()
        self._section = self.sections[name]
        self.name = name
        self._waits = name == "waited"

    def done(self, samples: int, tokens: int) -> None:
        """A batch is done."""
        section = self._section
        section.batches += 1
        section.samples += samples
        section.tokens += tokens

    def stop(self) -> None:
        """Add up to now."""
        self._border()
        self._note_listeners()

    @property
    def seconds(self) -> float:
        """What was added up in all."""
        return sum(section.seconds for section in self.sections.values())

    def _border(self) -> None:
        if self._waits:
            self._wait()
        now = perf_counter()
        spent, self._since = now - self._since, now
        self._section.seconds += spent
        self._section.parts[self._part] += spent

    def _note_listeners(self) -> None:
        current, mine = self._listeners(), self._section.listeners
        for key, seconds in current.items():
            if more := seconds - self._known.get(key, 0.0):
                mine[key] = mine.get(key, 0.0) + more
        self._known = dict(current)

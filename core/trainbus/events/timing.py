"""What each listener costs, where somebody measures."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

#: Seconds of the listeners that were called by the one at hand.
_nested = 0.0


@dataclass(slots=True)
class Timing:
    """Time spent in one plugin's listener of one hook, without the listeners that it calls."""

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


def begin() -> tuple[float, float]:
    """The time at which a listener is called, and what its caller spent in others before."""
    global _nested
    before, _nested = _nested, 0.0
    return perf_counter(), before


class Timings:
    """The timings of one bus. Several may measure at once, and share what was measured."""

    def __init__(self) -> None:
        self.users = 0
        self._by_listener: dict[tuple[str, str], Timing] = {}

    def of(self, plugin: str, hook: str) -> Timing:
        """The timing of a plugin's listener of a hook."""
        return self._by_listener.setdefault((plugin, hook), Timing(plugin, hook))

    def known(self, plugin: str, hook: str) -> Timing | None:
        """The same, where it was measured from the start of a call."""
        return self._by_listener.get((plugin, hook))

    def sorted(self) -> list[Timing]:
        """Calls and seconds per plugin and hook, the most expensive first."""
        called = [timing for timing in self._by_listener.values() if timing.calls]
        return sorted(called, key=lambda timing: -timing.seconds)

    def clear(self) -> None:
        """Begin again with nothing measured."""
        self._by_listener.clear()

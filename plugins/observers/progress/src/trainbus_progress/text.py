"""What the display says: numbers, times, the state of a pass, the rows of the table."""

from __future__ import annotations

import textwrap
from collections import deque
from collections.abc import Mapping, Sequence

#: The rate is taken over so many updates of the display: 10 seconds, or longer for slow batches.
_SAMPLES = 100
#: The width of a printed number.
_WIDTH = 9


def number(value: float) -> str:
    """Four decimals, or an exponent where those would not do."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.4f}"
    return f"{value:.3e}"


def clock(seconds: float) -> str:
    """Whole seconds as `0:05`, `12:34` or `1:02:03`."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def duration(seconds: float) -> str:
    """How long something took: `3.2s`, then as on a clock."""
    return f"{seconds:.1f}s" if seconds < 59.95 else clock(seconds + 0.5)


def count(amount: int, one: str, many: str) -> str:
    """`1 step`, `2 steps`."""
    return f"{amount} {one if amount == 1 else many}"


def described(metrics: Mapping[str, float]) -> list[str]:
    """Each metric as `name value`."""
    return [f"{name} {number(value)}" for name, value in metrics.items()]


def aligned(
    topics: Mapping[str, str], width: int | None = None, most: int | None = None
) -> list[str]:
    """Lines of topics and their texts, side by side; texts are wrapped to fit `width` columns.

    Of more than `most` lines the last one says how many were left out.
    """
    indent = max(map(len, topics)) + 2
    lines = []
    for topic, text in topics.items():
        # A path is left whole, to be copied: a word that is too long is the terminal's to wrap.
        parts = (
            textwrap.wrap(
                text, max(20, width - indent), break_long_words=False, break_on_hyphens=False
            )
            if width
            else [text]
        )
        lines += [
            f"{name:<{indent}}{part}".rstrip()
            for name, part in zip([topic] + [""] * len(parts), parts or [""], strict=False)
        ]
    if most is not None and len(lines) > most:
        left_out = len(lines) - most + 1
        lines[most - 1 :] = [f"{'':<{indent}}and {left_out} lines more; `trainbus -v` shows them"]
    return lines


class Pass:
    """A pass over data: how far it is, how fast, and for how long still.

    Args:
        title: what is gone through, `epoch 2/10`.
        total: its batches, or None when the loader does not tell.
        now: seconds on a monotonic clock.
    """

    def __init__(self, title: str, total: int | None, now: float) -> None:
        self.title = title
        self.total = total
        self.done = 0
        #: What else there is to say: the run's remaining time, metrics.
        self.notes: list[str] = []
        self._started = now
        self._now = now
        self._samples: deque[tuple[float, int]] = deque([(now, 0)], maxlen=_SAMPLES)

    def update(self, now: float, notes: Sequence[str] = ()) -> None:
        """Take note of the time; `done` was counted by the caller."""
        self._now = now
        self._samples.append((now, self.done))
        self.notes = list(notes)

    def resume(self, now: float) -> None:
        """Go on after a pause, which counts neither as time spent nor for the rate."""
        self._started += now - self._now
        self._now = now
        self._samples.clear()
        self._samples.append((now, self.done))

    @property
    def rate(self) -> float | None:
        """Batches per second, of late; None when nothing was done yet."""
        (before, done_before), (now, done) = self._samples[0], self._samples[-1]
        return (
            (done - done_before) / (now - before) if done > done_before and now > before else None
        )

    @property
    def share(self) -> float:
        """How much of it is done, up to 1; 1, too, when the total is unknown."""
        return min(1.0, self.done / self.total) if self.total else 1.0

    def details(self) -> list[str]:
        """Count, rate, elapsed and remaining time, and the notes."""
        rate = self.rate
        parts = [
            count(self.done, "batch", "batches")
            if self.total is None
            else f"{self.done:>{len(str(self.total))}}/{self.total}"
        ]
        if rate is not None:
            parts.append(f"{rate:.1f} it/s" if rate >= 1 else f"{1 / rate:.2f} s/it")
        times = clock(self._now - self._started)
        if rate is not None and self.total is not None:
            times += f"<{clock((self.total - self.done) / rate)}"
        return [*parts, times, *self.notes]

    def __str__(self) -> str:
        return "  ".join([self.title, *self.details()])


class Table:
    """The rows of the epochs. The head is told again whenever a new column comes in."""

    def __init__(self) -> None:
        self._columns: list[str] = []

    def row(self, label: str, metrics: Mapping[str, float], seconds: float) -> tuple[str, str]:
        """The head, or an empty string when it was told already; and the row."""
        new = [name for name in metrics if name not in self._columns]
        head = ""
        if new or not self._columns:
            # Training before validation, whichever was logged first.
            self._columns = sorted([*self._columns, *new], key=lambda name: "valid/" in name)
            head = self._line("epoch", dict(zip(self._columns, self._columns, strict=True)), "time")
        cells = {name: number(value) for name, value in metrics.items()}
        return head, self._line(label, cells, duration(seconds))

    def _line(self, label: str, cells: Mapping[str, str], time: str) -> str:
        parts = [f"{label:>7}"]
        parts += [f"{cells.get(name, '-'):>{max(_WIDTH, len(name))}}" for name in self._columns]
        return "  ".join([*parts, f"{time:>7}"])

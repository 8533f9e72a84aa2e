"""Where the display goes: a terminal, a notebook, or anything that takes lines of text."""

from __future__ import annotations

import atexit
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from trainbus.terminal import shown
from trainbus_progress.text import Pass, aligned

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

#: Seconds between lines inside a pass, where nothing can be drawn over.
_LINE_EVERY = 30.0
#: Columns of the bar itself.
_BAR = (10, 40)


class Display(Protocol):
    """What the plugin needs of a place to show things."""

    #: Seconds between two calls of `update`.
    interval: float

    def header(self, topics: Mapping[str, str], most: int | None) -> None:
        """Tell what a run has to say at its start."""

    def line(self, text: str, style: str = "") -> None:
        """Write a line that stays."""

    def update(self, passes: Sequence[Pass], due: bool = True) -> None:
        """Show how far the passes are; not `due` when one has just begun or ended."""

    def close(self) -> None:
        """Take away what does not stay and put back what was changed; may be called again."""


def choose(console: Console | None, refresh: float) -> Display:
    """The display for a console of rich; without one, for the standard output.

    Args:
        console: taken at its word if it says that it is a terminal.
        refresh: updates per second, where things can be drawn over.
    """
    import rich

    # The global console, as rich's logging handler writes there, too.
    place = console if console is not None else rich.get_console()
    if place.is_jupyter:
        return Notebook(1 / refresh)
    # FORCE_COLOR makes rich take a file for a terminal.
    if place.is_interactive and (console is not None or _at_terminal(place.file)):
        return Terminal(place, 1 / refresh)
    return Plain(place.file)


class Plain:
    """Lines of text only, in a file or a pipe."""

    interval = _LINE_EVERY

    def __init__(self, file: Any) -> None:
        self._file = file

    def header(self, topics: Mapping[str, str], most: int | None) -> None:
        """One line for each topic."""
        for line in aligned(topics, most=most):
            self.line(line)

    def line(self, text: str, style: str = "") -> None:
        """Write and flush."""
        print(shown(text), file=self._file, flush=True)

    def update(self, passes: Sequence[Pass], due: bool = True) -> None:
        """Write the innermost pass."""
        if due:
            self.line(str(passes[-1]))

    def close(self) -> None:
        """Nothing was changed."""


class Terminal:
    """Bars that are drawn over at the bottom, and lines that stay above them.

    What others print or log meanwhile goes above the bars, too.
    """

    def __init__(self, console: Console, interval: float) -> None:
        from rich.live import Live

        self.interval = interval
        self._console = console
        # No thread of its own: it is drawn by the thread that trains. A stream that leads
        # elsewhere, into a file perhaps, is left alone.
        self._live = Live(
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=_at_terminal(sys.stdout),
            redirect_stderr=_at_terminal(sys.stderr),
        )
        self._diverted: list[tuple[logging.StreamHandler[Any], TextIO, TextIO]] = []
        self._closed = False

    def header(self, topics: Mapping[str, str], most: int | None) -> None:
        """One line for each topic, or several where the terminal is narrow."""
        for line in aligned(topics, self._console.width, most):
            self.line(line, "dim")

    def line(self, text: str, style: str = "") -> None:
        """Write above the bars."""
        from rich.text import Text

        self._console.print(Text(shown(text), style), soft_wrap=True)

    def update(self, passes: Sequence[Pass], due: bool = True) -> None:
        """Draw over the bars."""
        if self._closed:
            return
        if not self._live.is_started:
            self._open()
        self._live.update(_bars(passes, self._console), refresh=True)

    def _open(self) -> None:
        # A generator of predictions that is never read to its end would leave the cursor hidden.
        atexit.register(self.close)
        streams = sys.stdout, sys.stderr
        self._live.start()
        for old, new in zip(streams, (sys.stdout, sys.stderr), strict=True):
            for handler in _handlers():
                # It holds the stream of before and would write into the bars.
                if old is not new and handler.stream is old:
                    handler.setStream(new)
                    self._diverted.append((handler, old, new))

    def close(self) -> None:
        """Erase the bars; cursor, streams and logging are what they were."""
        self._closed = True
        try:
            self._live.stop()
        finally:
            while self._diverted:
                handler, old, new = self._diverted.pop()
                if handler.stream is new:
                    handler.setStream(old)
            atexit.unregister(self.close)


def _bars(passes: Sequence[Pass], console: Console) -> Text:
    """Title, bar and details of each pass, one below the other, in the width of the console.

    One text, as rich needs three times as long to lay out a grid with a progress bar.
    """
    from rich.text import Text

    # Room for the `^C` that a terminal echoes: in the next row it would keep the bar from being
    # erased.
    width = console.width - 3
    details = ["  ".join(each.details()) for each in passes]
    titles = max(len(each.title) for each in passes)
    shortest, longest = _BAR
    bar = min(max(width - titles - max(map(len, details)) - 2, shortest), longest)
    mark = "-" if console.legacy_windows or console.options.ascii_only else "━"
    rest = mark if console.color_system and not console.no_color else " "
    lines = []
    for each, text in zip(passes, details, strict=True):
        line = Text(each.title.ljust(titles) + " ")
        if each.total is not None:
            done = min(bar, bar * each.done // max(1, each.total))
            line.append(mark * done, "bar.complete" if done < bar else "bar.finished")
            line.append(rest * (bar - done) + " ", "bar.back")
        line.append(text)
        line.truncate(width, overflow="ellipsis")
        lines.append(line)
    return Text("\n").join(lines)


def _at_terminal(stream: object) -> bool:
    """Whether a stream is a terminal; objects that stand in for one often do not tell."""
    return bool(getattr(stream, "isatty", bool)())


def _handlers() -> Iterator[logging.StreamHandler[Any]]:
    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        for handler in getattr(logger, "handlers", ()):
            if isinstance(handler, logging.StreamHandler):
                yield handler


class Notebook:
    """Two outputs of a cell that are replaced in place: the lines, and the bars below them.

    They need no widgets, and are kept in the notebook as they were at the end.
    """

    def __init__(self, interval: float) -> None:
        from IPython.display import display  # type: ignore[import-not-found,unused-ignore]

        self.interval = interval
        self._display = display
        self._lines: list[str] = []
        self._outputs: dict[str, Any] = {}

    def header(self, topics: Mapping[str, str], most: int | None) -> None:
        """One line for each topic."""
        for line in aligned(topics, most=most):
            self.line(line)

    def line(self, text: str, style: str = "") -> None:
        """Write below the lines that are there."""
        self._lines.append(text)
        text = "\n".join(self._lines)
        self._put("lines", text, f"<pre>{escape(text)}</pre>")

    def update(self, passes: Sequence[Pass], due: bool = True) -> None:
        """Replace the bars."""
        self._put("bars", "\n".join(map(str, passes)), "".join(map(_html, passes)))

    def close(self) -> None:
        """Replace the bars by nothing."""
        if "bars" in self._outputs:
            self._put("bars", "", "")

    def _put(self, name: str, text: str, html: str) -> None:
        data = {"text/plain": text, "text/html": html}
        if name in self._outputs:
            self._outputs[name].update(data, raw=True)
        else:
            self._outputs[name] = self._display(data, raw=True, display_id=True)


def _html(each: Pass) -> str:
    bar = "" if each.total is None else f'<progress value="{each.done}" max="{each.total}">'
    bar += "</progress> " if bar else ""
    return f"<pre>{escape(each.title)}  {bar}{escape('  '.join(each.details()))}</pre>"

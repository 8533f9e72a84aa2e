"""Ctrl-C, SIGTERM and SIGHUP end a run after its present batch, and never break a state off."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType

logger = logging.getLogger("trainbus")

_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
#: A shell, a wrapper and a scheduler each pass one signal on: copies that are no further request.
_COPY_SECONDS = 0.2
#: SIGTERM once more within this time is the same request: a grace period has only begun.
_SAME_SECONDS = 5.0


class _Urgent:
    """What ends a run at once, and what has to be finished before."""

    depth = 0
    error: BaseException | None = None


@contextmanager
def unbroken() -> Iterator[None]:
    """Let what is inside be finished: a signal that ends the run at once does so behind it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers run in the main thread
        return
    _Urgent.depth += 1
    try:
        yield
    finally:
        _Urgent.depth -= 1
        if not _Urgent.depth and _Urgent.error is not None:
            error, _Urgent.error = _Urgent.error, None
            raise error


@contextmanager
def deferred(request: Callable[[BaseException], None]) -> Iterator[None]:
    """Call `request` with the exception that a signal means, instead of raising it anywhere.

    A signal that comes once more ends the run at once: Ctrl-C by the second time, SIGTERM and
    SIGHUP by the third or after some seconds. What came when all was done is raised at the end.
    The handlers that were there before are put back. Outside of the main thread, where Python
    allows no handlers, signals are left alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    requests = _Requests(request)
    # With `nohup` a run outlives its terminal.
    numbers = [
        each
        for each in _SIGNALS
        if each != getattr(signal, "SIGHUP", None) or signal.getsignal(each) != signal.SIG_IGN
    ]
    before = {number: signal.signal(number, requests.take) for number in numbers}
    try:
        yield
        if requests.error is not None:
            raise requests.error
    finally:
        for number, handler in before.items():
            # A handler that was not installed from Python cannot be put back by Python.
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


class _Requests:
    """The signals that came in one run, copies left out."""

    def __init__(self, request: Callable[[BaseException], None]) -> None:
        self.request = request
        self.owner = os.getpid()
        self.count = 0
        self.first = self.last = float("-inf")
        self.error: BaseException | None = None

    def take(self, number: int, _frame: FrameType | None) -> None:
        """Ask for the end, or raise what ends it at once."""
        if os.getpid() != self.owner:  # a forked child inherits the handlers, not the run
            if number != signal.SIGINT:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return  # Ctrl-C reaches loaders' workers, too; they end with the run
        now = monotonic()
        if now - self.last < _COPY_SECONDS:
            return
        self.last = now
        self.count += 1
        error: BaseException = (
            KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
        )
        if self.count == 1:
            self.first, self.error = now, error
            again = "" if number == signal.SIGINT else f", {_SAME_SECONDS:g} s from now or later,"
            name = signal.Signals(number).name
            logger.warning(
                "%s: the run ends after this batch; once more%s ends it at once", name, again
            )
            self.request(error)
        elif self.count > 2 or number == signal.SIGINT or now - self.first >= _SAME_SECONDS:
            if not _Urgent.depth:
                raise error
            _Urgent.error = error

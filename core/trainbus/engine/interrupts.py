"""Ctrl-C and SIGTERM end a run after its present batch, and not in the middle of anything."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger("trainbus")


@contextmanager
def deferred(request: Callable[[BaseException], None]) -> Iterator[None]:
    """Call `request` with the exception that a signal means, instead of raising it anywhere.

    A second signal raises at once. The handlers that were there before are put back. Outside the
    main thread, where Python allows no handlers, signals are left alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False
    owner = os.getpid()

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if os.getpid() != owner:  # a forked child inherits the handlers, not the run
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return  # Ctrl-C reaches loaders' workers, too; they end with the run
        name = signal.Signals(number).name
        error: BaseException = (
            KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
        )
        if asked:
            raise error
        asked = True
        logger.warning("%s: the run ends after this batch; once more ends it at once", name)
        request(error)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            # A handler that was not installed from Python cannot be put back by Python.
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

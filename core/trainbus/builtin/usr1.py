"""SIGUSR1, to which several plugins may listen."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

_listeners: list[Callable[[], None]] = []
_before: Any = None


def listen(answer: Callable[[], None]) -> Callable[[], None] | None:
    """Call `answer` when SIGUSR1 comes; returns the function that ends it.

    None where there is no such signal, or outside the main thread, where Python allows no handlers.
    """
    global _before
    main = threading.current_thread() is threading.main_thread()
    if not hasattr(signal, "SIGUSR1") or not main:
        return None
    if not _listeners:
        _before = signal.signal(signal.SIGUSR1, _answer)
    _listeners.append(answer)

    def end() -> None:
        _listeners.remove(answer)
        if not _listeners:
            signal.signal(signal.SIGUSR1, _before if _before is not None else signal.SIG_DFL)

    return end


def _answer(_number: int, _frame: FrameType | None) -> None:
    for answer in list(_listeners):
        answer()

"""Worker processes that read items: what they are given, how they fail, and what they were at."""

from __future__ import annotations

import gc
import os
import pickle
import re
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import torch
from torch import multiprocessing
from torch.utils.data import get_worker_info

from trainbus_data.errors import DataError

#: How torch names a process that ended, in both of its messages.
_ENDED = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.*)", re.DOTALL)


class Failure:
    """An error on its way out of a worker process: its message, and where it came from.

    PyTorch would make a new error of the printed traceback, in which the message is hard to find.
    """

    def __init__(self, error: DataError) -> None:
        self.message = str(error)
        self.trace = "".join(traceback.format_exception(error.__cause__ or error))

    def error(self) -> DataError:
        """The error, with the traceback of the worker as a note."""
        error = DataError(self.message)
        error.add_note(f"in a worker process:\n{self.trace}")
        return error


class Reading:
    """Which item each worker process of a loader is reading, in memory that they share.

    Args:
        name: an item in words, of its index.
        workers: how many processes there are.
    """

    def __init__(self, name: Callable[[int], str], workers: int) -> None:
        self.name = name
        #: For each worker its process and the index of its item; -1 before the first one.
        self.table = torch.full((workers, 2), -1).share_memory_()
        self._is_noted = False

    def note(self, index: int) -> None:
        """Called by a worker: this item is next. Elsewhere it does nothing."""
        info = get_worker_info()
        if info is None:
            return
        row = self.table[info.id]
        if not self._is_noted:
            row[0], self._is_noted = os.getpid(), True
        row[1] = index

    def item_of(self, process: int) -> str | None:
        """What a process was at, if it is one of this loader's."""
        for known, index in self.table.tolist():
            if known == process and index >= 0:
                return self.name(index)
        return None


#: Those of all loaders: a process that ended may be of any of them.
_READINGS: WeakSet[Reading] = WeakSet()


def ended(error: RuntimeError) -> DataError | None:
    """What to say where torch found that worker processes ended; None for another error."""
    found = _ENDED.search(str(error))
    if found is None:
        return None
    processes = [int(number) for number in found[1].split(",")]
    items = [each.item_of(process) for each in list(_READINGS) for process in processes]
    at = ", ".join(each for each in items if each)
    how = found[2].strip().rstrip(".").replace("is killed", "was killed")
    if not at:
        return DataError(
            f"a worker process {how} before it read an item. One that is not forked does not know "
            "what a notebook or __main__ defines: put it into a module; and a script has to train "
            "below `if __name__ == '__main__':`. num_workers=0 needs no process"
        )
    return DataError(
        f"a worker process {how} while it read {at}. Look at that file, or leave it out; if memory "
        "was short, give fewer workers: num_workers=0 reads in this process"
    )


@contextmanager
def watched(reading: Reading | None) -> Iterator[None]:
    """Inside, where batches are fetched, a worker that ended is an error that names its item.

    Torch may notice it in a signal handler, wherever the training is by then: its handler is
    wrapped once, after it was set.
    """
    if reading is not None:
        _READINGS.add(reading)
        _name_items_in_handler()
    try:
        yield
    except RuntimeError as error:
        named = ended(error)
        if named is None:
            raise
        raise named from error


def _name_items_in_handler() -> None:
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() != threading.main_thread():
        return
    handler: Any = signal.getsignal(signal.SIGCHLD)
    if not callable(handler) or getattr(handler, "names_items", False):
        return

    def named_handler(number: int, frame: Any) -> None:
        with watched(None):
            handler(number, frame)

    named_handler.names_items = True  # type: ignore[attr-defined]
    signal.signal(signal.SIGCHLD, named_handler)


@contextmanager
def unseen_by_workers() -> Iterator[None]:
    """Keep the garbage collector of processes that are forked now away from what is there already.

    Else a worker may collect a loader of its parent that an error left in a cycle of references,
    and PyTorch would then end that loader's workers in the wrong process.
    """
    frozen_by_others = gc.get_freeze_count()
    gc.freeze()
    try:
        yield
    finally:
        if not frozen_by_others:
            gc.unfreeze()


def is_portable(thing: Any) -> bool:
    """Whether it goes to a process that is not forked from this one."""
    try:
        pickle.dumps(thing)
    except Exception:  # pickle raises several kinds
        return False
    return True


def check_portable(parts: Iterable[tuple[str, Any]], context: Any = None) -> None:
    """Refuse what cannot go to worker processes, where those are not forked.

    Args:
        parts: each with what it is, for the message.
        context: of the loader's processes; by default the usual one.

    Raises:
        DataError: with the first of them.
    """
    if (context or multiprocessing).get_start_method() == "fork":
        return
    for what, part in parts:
        if not is_portable(part):
            raise DataError(
                f"{what} cannot go to worker processes, which are not forked here: a function "
                "inside of another one, a lambda or an open file cannot be sent. Define it in a "
                "module, or give num_workers=0, which reads in this process"
            )

"""A large batch on the CPU: a few images at a time, on as many threads as torch has.

A piece is small enough to stay in the cache of a processor core from the first step to the last,
and each is done by one thread alone. The whole batch step by step, with all threads in each step as
torch does it, takes twice as long; and where other work is on the same cores, so that in each step
one thread waits for the others, many times as long.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

#: Bytes of images at work in a piece; a core has a cache of 0.5 to 2 MB.
PIECE = 1_250_000

_lock = threading.Lock()
#: The threads of this process, and how many there are.
_pool: tuple[int, int, ThreadPoolExecutor] | None = None


def in_pieces(count: int, size: int, work: Callable[[int, int], None]) -> None:
    """Call `work(first, behind)` for pieces of a batch, until all is done.

    Args:
        count: images in the batch.
        size: bytes of each, as it is worked on.
        work: does a piece; it may be called on several threads at once.
    """
    threads = torch.get_num_threads()
    step = max(1, min(PIECE // size, -(-count // threads)))
    if threads == 1:
        for first in range(0, count, step):
            work(first, min(first + step, count))
        return
    inference = torch.is_inference_mode_enabled()

    def piece(first: int) -> None:
        # Each thread has these modes for itself.
        with torch.inference_mode(inference), torch.no_grad():
            work(first, min(first + step, count))

    for _ in _threads(threads).map(piece, range(0, count, step)):
        pass


def _threads(count: int) -> ThreadPoolExecutor:
    """The threads that do pieces, made when they are first needed; other ones after a fork."""
    global _pool
    with _lock:
        if _pool is None or _pool[:2] != (os.getpid(), count):
            pool = ThreadPoolExecutor(count, thread_name_prefix="trainbus-augment")
            all_there = threading.Barrier(count)

            def alone() -> None:
                # Each thread has its own number, once it has asked for it.
                torch.get_num_threads()
                torch.set_num_threads(1)
                all_there.wait()

            for started in [pool.submit(alone) for _ in range(count)]:
                started.result()
            # Threads still to come, which are none of ours, get it as well.
            torch.set_num_threads(count)
            if _pool is not None and _pool[0] == os.getpid():
                _pool[2].shutdown(wait=False)
            _pool = (os.getpid(), count, pool)
        return _pool[2]

"""Several processes that train together, in a test: started, waited for, and ended."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any


class RankFailed(Exception):
    """A process ended with an error; the message has the traceback of the first that did."""


def ranks(
    count: int,
    function: Callable[..., Any],
    *arguments: Any,
    seconds: float = 60.0,
    survive: bool = False,
) -> list[Any]:
    """Call a function in so many processes, with what a launcher would tell each of them.

    They are forked, so that nothing is imported again and a function inside a test will do. The
    store through which they meet is kept here, so that it outlives each of them.

    Args:
        count: processes.
        function: called in each with `arguments`; returns what `pickle` can hold.
        arguments: for all the same.
        seconds: after which those that are still at work are killed.
        survive: return the errors, as texts, in place of results, and exit codes of the killed.

    Returns:
        What each returned, by rank.

    Raises:
        RankFailed: one failed, unless `survive`.
        TimeoutError: some did not end in time; it names them.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    context: Any = multiprocessing.get_context("fork")
    port = _free_port()
    pipes: list[Connection] = []
    started = []
    for rank in range(count):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(
            target=_child, args=(theirs, rank, count, port, function, arguments), daemon=False
        )
        process.start()
        theirs.close()
        pipes.append(ours)
        started.append(process)
    store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    deadline = time.monotonic() + seconds
    results: list[Any] = [None] * count
    failed: list[tuple[float, int, str]] = []
    late = []
    try:
        for rank, (pipe, process) in enumerate(zip(pipes, started, strict=True)):
            if pipe.poll(max(0.0, deadline - time.monotonic())):
                with suppress(EOFError):
                    when, error, results[rank] = pickle.loads(pipe.recv_bytes())
                    if error:
                        failed.append((when, rank, error))
                        results[rank] = error
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                late.append(rank)
            elif process.exitcode and results[rank] is None:
                results[rank] = f"exit code {process.exitcode}"
                failed.append((time.time(), rank, results[rank]))
    finally:
        for process in started:
            if process.is_alive():
                process.kill()
                process.join()
        del store
    if late:
        raise TimeoutError(f"rank {', '.join(map(str, late))} did not end within {seconds:g} s")
    if failed and not survive:
        _, rank, error = min(failed)
        raise RankFailed(f"rank {rank}: {error}")
    return results


def _child(
    pipe: Connection,
    rank: int,
    count: int,
    port: int,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(count), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(count),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TRAINBUS_LAUNCH="nproc",
    )  # fmt: skip
    error, result = "", None
    try:
        result = function(*arguments)
    except BaseException:  # SystemExit, too, is what the test may ask for
        error = traceback.format_exc()
    with suppress(OSError):
        pipe.send_bytes(pickle.dumps((time.time(), error, result)))
    pipe.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if error else 0)  # handlers of the parent's interpreter are not for this one


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])

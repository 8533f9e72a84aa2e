"""`trainbus fit --nproc N`: starts the processes of this machine, watches them, starts them again.

They are forked from a server that has torch loaded, so that a restart takes a moment. The store
through which they meet is kept here: it outlives each of them, and so do the failures that they
note in a folder.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType
from typing import Any

from trainbus import terminal
from trainbus.errors import UsageError

_PRELOADED = [
    "torch", "torch.distributed", "torch._dynamo", "torch.nn.parallel", "trainbus.engine.trainer",
    "trainbus.engine.defaults", "trainbus.fit.command", "trainbus_distributed.plugin",
    "trainbus_distributed.peers", "trainbus_distributed.ddp",
]  # fmt: skip
#: The others end by themselves when one has failed; then they are asked to, then made to.
_ASK_SECONDS, _KILL_SECONDS = 3.0, 4.5


def launch(arguments: list[str], count: int, restarts: int = 0) -> int:
    """Run a `trainbus` command in so many processes; returns the exit status of the first to fail.

    Args:
        arguments: of the command, without those of this launcher.
        count: processes on this machine.
        restarts: how often all are started again after a failure, from the newest state.

    Raises:
        UsageError: another launcher started this process.
    """
    if "WORLD_SIZE" in os.environ:
        raise UsageError(
            f"--nproc {count}: another launcher has started this process (WORLD_SIZE="
            f"{os.environ['WORLD_SIZE']}); leave --nproc out"
        )
    with tempfile.TemporaryDirectory(prefix="trainbus-failures-") as folder:
        agent = _Agent(arguments, count, Path(folder))
        return agent.run(restarts)


class _Agent:
    """The processes of one command, in one generation after the other."""

    def __init__(self, arguments: list[str], count: int, folder: Path) -> None:
        self.arguments, self.count, self.folder = arguments, count, folder
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(_PRELOADED)
        self.port = _free_port()
        self.processes: list[Any] = []
        #: A signal came: what ends now is not started again.
        self.ending = 0
        self._failed_at = -1

    def run(self, restarts: int) -> int:
        """Start them, and again where they failed and may be."""
        store = None
        with self._signals():
            for generation in range(restarts + 1):
                self._start(generation)
                if store is None:  # imported while they start
                    store = _store(self.port)
                first = self._watch()
                if first is None:
                    return 0
                if generation == restarts or self.ending or not self._may_help(first):
                    return self._tell(first)
                terminal.say(
                    f"rank {first} failed ({self._in_words(first)}): all {self.count} processes "
                    f"are started again ({generation + 1} of {restarts})",
                    err=True,
                )
        raise AssertionError("the last generation returns")

    def _start(self, generation: int) -> None:
        arguments = self.arguments if generation == 0 else _resuming(self.arguments, self.folder)
        for path in self.folder.glob("rank-*.json"):
            path.unlink()
        environment = {
            "WORLD_SIZE": str(self.count), "LOCAL_WORLD_SIZE": str(self.count),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self.port), "TRAINBUS_LAUNCH": "nproc",
            "TRAINBUS_FAILURES": str(self.folder), "TRAINBUS_GENERATION": str(generation),
        }  # fmt: skip
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        environment.setdefault(
            "OMP_NUM_THREADS",
            os.environ.get("OMP_NUM_THREADS", str(max(1, (cores or 1) // self.count))),
        )
        self.processes = []
        for rank in range(self.count):
            own = {**os.environ, **environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            process = self.context.Process(target=_child, args=(arguments, own, str(Path.cwd())))
            process.start()
            self.processes.append(process)

    def _watch(self) -> int | None:
        """Wait for all; the rank of the first that failed, or None."""
        first, since = None, 0.0
        while alive := [each for each in self.processes if each.is_alive()]:
            wait([each.sentinel for each in alive], timeout=0.1)
            if first is None:
                first = self._first_failed()
                since = time.monotonic()
                continue
            late = time.monotonic() - since
            if late > _ASK_SECONDS:
                for each in alive:
                    (each.kill if late > _KILL_SECONDS else each.terminate)()
        return first if first is not None else self._first_failed()

    def _first_failed(self) -> int | None:
        ended = [rank for rank, each in enumerate(self.processes) if each.exitcode not in (None, 0)]
        if not ended:
            return None
        # One that was killed could not tell; the others are told by their clocks.
        killed = [rank for rank in ended if self.processes[rank].exitcode < 0]
        told = {rank: self._told(rank).get("time") for rank in ended}
        times = {rank: when for rank, when in told.items() if when is not None}
        if killed and not times:
            return killed[0]
        return min(times, key=lambda rank: times[rank]) if times else ended[0]

    def _told(self, rank: int) -> dict[str, Any]:
        try:
            told: dict[str, Any] = json.loads((self.folder / f"rank-{rank}.json").read_text())
            return told
        except (OSError, ValueError):
            return {}

    def _may_help(self, rank: int) -> bool:
        """Not where an exception came at the same step once more, or the command was wrong."""
        if self.processes[rank].exitcode == 2:
            return False
        step = self._told(rank).get("step", -1)
        again = step == self._failed_at >= 0
        self._failed_at = step
        return not again

    def _in_words(self, rank: int) -> str:
        code = self.processes[rank].exitcode
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        message = str(self._told(rank).get("message", f"exit status {code}"))
        return message.splitlines()[0][:200]

    def _tell(self, rank: int) -> int:
        """Say the cause, last and once; returns the exit status."""
        code: int = self.processes[rank].exitcode
        if text := self._told(rank).get("text"):
            terminal.say(f"rank {rank} failed, and with it all {self.count} processes:", err=True)
            terminal.say(str(text).rstrip(), err=True)
        elif code < 0:
            terminal.say(f"rank {rank} was {self._in_words(rank)}: the run is over", err=True)
        return code if code > 0 else 128 - code

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Pass on what ends a run, or asks for a state; Ctrl-C reaches the processes themselves."""

        def take(number: int, _frame: FrameType | None) -> None:
            self.ending += number != getattr(signal, "SIGUSR1", None)
            for each in self.processes:
                if number != signal.SIGINT and each.is_alive():
                    with suppress(ProcessLookupError):
                        os.kill(each.pid, number)

        names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
        numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
        before = {number: signal.signal(number, take) for number in numbers}
        try:
            yield
        finally:
            for each in self.processes:
                if each.is_alive():
                    each.kill()
            for number, handler in before.items():
                signal.signal(number, handler)


def _child(arguments: list[str], environment: dict[str, str], directory: str) -> None:
    """One process: the command itself, as if it had been started alone."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    import torch

    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    from trainbus.cli import main

    sys.argv = ["trainbus", *arguments]
    sys.path.insert(0, directory)
    main(arguments)


def _resuming(arguments: list[str], folder: Path) -> list[str]:
    """The command that goes on with the newest state of its own run, if it kept one."""
    from trainbus.checkpoints import archive

    try:
        states = Path((folder / "directory").read_text("utf-8")) / "checkpoints"
    except OSError:
        return arguments
    newest = archive.newest_valid(states)
    if newest is None:
        return arguments
    kept: list[str] = []
    for number, each in enumerate(arguments):
        follows = number > 0 and arguments[number - 1] == "--resume" and each in ("auto", "best")
        if not (each.startswith("--resume") or follows):
            kept.append(each)
    return [*kept, f"--resume={newest}"]


def _store(port: int) -> Any:
    import torch.distributed as dist

    return dist.TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])

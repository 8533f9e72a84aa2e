"""What ends a run of several processes, told where it began: failures, and who does not come.

The first process that fails writes its traceback under one key of the store that all share. The
others break off in a collective a moment later, with an error that says nothing: they look there
before they report it. Each process notes where it stands once a second, so that after a time limit
the one that did not come is named, and not the one that waited.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

from trainbus.errors import TrainbusError

#: What errors say that another process, or the time limit, is the cause of.
_CONSEQUENCES = (
    "closed by peer", "reset by peer", "broken pipe", "timed out", "timeout", "connection refused",
    "connection was closed", "remote process has terminated", "socket closed", "not reached",
    "failed to pass monitoredbarrier", "connect fail", "socketerror", "connecttimeout",
)  # fmt: skip
_LIMITS = ("timed out", "timeout", "monitoredbarrier")
_WAIT_SECONDS = 2.0
_KEY = "trainbus/failure"


class PeerFailed(TrainbusError):
    """Another process ended the run; the message has its traceback."""


class Failures:
    """The failures of all processes, through the store of the process group.

    Args:
        rank: this process.
        world_size: all of them.
        timeout: seconds after which one that does not come is given up.
    """

    def __init__(self, rank: int, world_size: int, timeout: float) -> None:
        self.rank, self.world_size, self.timeout = rank, world_size, timeout
        self._store = _own_client()
        self._run: Any = None
        self._thread: threading.Thread | None = None
        self._over = threading.Event()

    # --- where each stands ---------------------------------------------------------------------

    def begin(self, run: Any) -> None:
        """Note once a second where this process stands, until `end`."""
        self._run, self._main = run, threading.get_ident()
        folder = os.environ.get("TRAINBUS_FAILURES")
        if folder and self.rank == 0 and run.stage == "train" and not run.dry_run:
            with suppress(OSError):  # where a restart finds the states of this run
                (Path(folder) / "directory").write_text(str(run.dir), "utf-8")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._note, name="trainbus-place", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Note no more."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
        self._run = self._thread = None

    def _note(self) -> None:
        said, since = "", time.monotonic()
        while not self._over.wait(min(1.0, self.timeout / 8)):
            run = self._run
            if run is None:
                return
            place = f"step {run.global_step}, batch {run.batch_index} of {run.stage}"
            if place != said:
                said, since = place, time.monotonic()
            frame = sys._current_frames().get(self._main)
            where = "".join(traceback.format_stack(frame)[-12:]) if frame is not None else ""
            told = {"place": place, "order": [run.global_step, run.batch_index], "since": since,
                    "where": where, "line": _own_line(frame)}  # fmt: skip
            with suppress(Exception):  # the store is gone: the run ends for another reason
                self._store.set(f"trainbus/place/{self.rank}", json.dumps(told))

    def _places(self) -> dict[int, dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {}
        for rank in range(self.world_size):
            key = f"trainbus/place/{rank}"
            with suppress(Exception):
                if self._store.check([key]):
                    found[rank] = json.loads(self._store.get(key))
        return found

    def missing(self) -> str:
        """Which processes did not come, and where they are, after a time limit."""
        places = self._places()
        if not places:
            return ""
        own = places.get(self.rank, {}).get("order", [0, 0])
        lines = []
        for rank, each in places.items():
            if rank != self.rank and not _waits(each["where"]):
                lines.append(
                    f"rank {rank} has not come (it stands at {each['place']}, rank {self.rank} at "
                    f"step {own[0]}, batch {own[1]}); it is in\n{each['where']}"
                )
        silent = [rank for rank in range(self.world_size) if rank not in places]
        if silent:
            lines.append(f"nothing was heard of rank {', '.join(map(str, silent))}")
        if not lines:
            listed = "; ".join(f"rank {r}: {e['place']}, {e['line']}" for r, e in places.items())
            return f"all wait for each other, in different places: {listed}"
        return "\n".join(lines)

    # --- failures ------------------------------------------------------------------------------

    def publish(self, error: BaseException) -> bool:
        """Tell the others, and the launcher, what ended this process; the first counts.

        Returns:
            Whether the launcher prints it, when all are gone.
        """
        if isinstance(error, (KeyboardInterrupt, SystemExit, PeerFailed)):
            return False
        text = "".join(traceback.format_exception(error))
        step = -1 if self._run is None else self._run.global_step
        told = json.dumps({"rank": self.rank, "text": text, "time": time.time(), "step": step,
                           "message": f"{type(error).__name__}: {error}"})  # fmt: skip
        with suppress(Exception):
            self._store.compare_set(_KEY, "", told)
        _tell_torchrun(text, error)
        if folder := os.environ.get("TRAINBUS_FAILURES"):
            with suppress(OSError):
                beside = Path(folder) / f".rank-{self.rank}.part"
                beside.write_text(told, "utf-8")
                beside.replace(Path(folder) / f"rank-{self.rank}.json")
                return True
        return False

    def cause_of(self, error: BaseException) -> BaseException | None:
        """What ended another process, where this error is only what followed from it."""
        if isinstance(error, (KeyboardInterrupt, SystemExit, PeerFailed)):
            return None
        text = str(error).lower()
        if not isinstance(error, (RuntimeError, OSError)) or not any(
            each in text for each in _CONSEQUENCES
        ):
            return None
        if (found := self._published()) is not None:
            return PeerFailed(
                f"rank {found['rank']} failed, and with it all others: {found['message']}\n"
                f"{found['text']}"
            )
        if any(each in text for each in _LIMITS) and (who := self.missing()):
            return TrainbusError(
                f"after {self.timeout:g} s of waiting for the other processes: {who}"
            )
        if "peer" in text or "closed" in text:
            return PeerFailed(
                "another process of this run is gone, and told nothing: it was killed (by the "
                f"system, for its memory?), or ended in the midst of the run ({error})"
            )
        return None

    def _published(self) -> dict[str, Any] | None:
        deadline = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < deadline:
            try:
                if self._store.check([_KEY]):
                    told: dict[str, Any] = json.loads(self._store.get(_KEY))
                    return told if told["rank"] != self.rank else None
            except Exception:  # whoever kept the store is gone
                break
            time.sleep(0.05)
        for path in Path(os.environ.get("TRAINBUS_FAILURES", "/nowhere")).glob("rank-*.json"):
            with suppress(OSError, ValueError):
                told = json.loads(path.read_text("utf-8"))
                if told["rank"] != self.rank:
                    return told
        return None


def _own_client() -> Any:
    """A connection to the store for this alone: that of the group may wait in a collective."""
    store = dist.distributed_c10d._get_default_store()
    try:
        inner = store
        while hasattr(inner, "underlying_store"):
            inner = inner.underlying_store
        client: Any = dist.TCPStore(
            inner.host, inner.port, is_master=False, wait_for_workers=False,
            timeout=timedelta(seconds=30),
        )  # fmt: skip
        # Failures of one generation of processes are not those of the next.
        return dist.PrefixStore(f"trainbus {os.environ.get('TRAINBUS_GENERATION', '0')}", client)
    except (AttributeError, RuntimeError):
        return store


def _waits(stack: str) -> bool:
    """Whether a process stands in a collective itself."""
    last = [line for line in stack.splitlines() if line.lstrip().startswith("File ")]
    return bool(last) and any(
        part in last[-1] for part in ("distributed_c10d", "autograd/graph", "torch/distributed")
    )


def _own_line(frame: Any) -> str:
    return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _tell_torchrun(text: str, error: BaseException) -> None:
    """What torchrun prints as the root cause; as `elastic.multiprocessing.errors.record` does."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        told = {
            "message": {
                "message": f"{type(error).__name__}: {error}",
                "extraInfo": {"py_callstack": text, "timestamp": str(int(time.time()))},
            }
        }
        with suppress(OSError):
            Path(path).write_text(json.dumps(told), "utf-8")

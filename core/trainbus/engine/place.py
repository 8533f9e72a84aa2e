"""Where a run of several processes begins and writes: the first finds and makes it, for all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from trainbus.devices.peers import Peers
from trainbus.errors import CheckpointError, TrainbusError
from trainbus.storage.run_dir import BorrowedDirectory, RunDirectory


def agreed_place(
    peers: Peers, find: Callable[[], tuple[Path | None, RunDirectory]], wanted: bool
) -> tuple[Path | None, RunDirectory]:
    """The checkpoint to begin with and the run's directory, the same in all processes; a meeting.

    Args:
        peers: the processes.
        find: finds both, in the first process.
        wanted: the directory is made now: later is no moment that all know of.

    Raises:
        TrainbusError: of the first process, in all of them.
    """
    if peers.rank:
        told = peers.broadcast(None)
        if told["error"]:
            raise CheckpointError(told["error"])
        path, directory = (told[name] and Path(told[name]) for name in ("path", "directory"))
        return path or None, BorrowedDirectory(directory or None)
    try:
        path, made = find()
        place = str(made.path) if wanted else ""
    except TrainbusError as error:
        peers.broadcast({"error": str(error)})
        raise
    peers.broadcast({"error": "", "path": str(path) if path else "", "directory": place})
    return path, made

"""`trainbus replay`: send what runs logged to a logger, from where it stood."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

from trainbus import terminal
from trainbus.errors import JournalError, PluginError, UsageError
from trainbus.plugins import loading
from trainbus.plugins.discovery import Installed
from trainbus.plugins.names import name_of
from trainbus.plugins.selection import Request, select
from trainbus.records.delivery import Delivery, RunInfo
from trainbus.records.journal import JournalFile
from trainbus.runs.stored_run import StoredRun, explained, find
from trainbus.storage.files import shown
from trainbus.storage.lock import lock


@dataclass(frozen=True)
class Logger:
    """A logger that was loaded, and its record hooks."""

    name: str
    who: str
    hooks: dict[str, Callable[..., Any]]
    #: It takes the records of all processes of a run.
    all_ranks: bool


def load(to: str) -> Logger:
    """Load the logger that `to` names, as `-p` would, with the options that were given for it.

    Raises:
        PluginError: there is none, it cannot be made, or it is no logger.
    """
    installed = Installed()
    project = loading.project_in_use()
    selection = select((), project, installed)
    name = name_of(to, installed)
    selection.switch(name, Request(to, "--to"), on=True)
    given = loading.given_options(project, selection, installed).get(name, {})
    loaded = loading.load_one(name, selection.active[name], given, installed)
    bus = loading.bus_of([loaded])
    if name not in bus.loggers:
        raise PluginError(f"{bus.who(name)} is no logger: it does not listen to on_log_start")
    return Logger(
        name, bus.who(name), bus.loggers[name], bool(getattr(loaded.object, "all_ranks", False))
    )


def replay(names: Sequence[str], parent: Path, to: str, again: bool, patience: float) -> int:
    """Send each run to a logger; returns 0 when it has all, else 1.

    Args:
        names: the runs (see `stored.find`).
        parent: the directory of runs.
        to: the logger: a plugin as `-p` takes it.
        again: send all, as a new remote run.
        patience: seconds for which the logger may fail.
    """
    paths = list(dict.fromkeys(find(name, parent).resolve() for name in names))
    logger = load(to)
    delivered = True
    for path in paths:
        delivered &= _replay(shown(path), logger, again, patience)
    return 0 if delivered else 1


def _replay(directory: Path, logger: Logger, again: bool, patience: float) -> bool:
    run = StoredRun(directory)  # or there is no journal
    run.close()
    if run.journal.path.is_symlink():
        raise JournalError(f"{run.journal.path} is a link: what is sent would be noted elsewhere")
    try:
        held = lock(directory)
    except OSError as error:
        raise JournalError(f"cannot write {directory}: {error}") from error
    if held is None:
        raise UsageError(f"{directory} is at work: its own loggers deliver what it logs")
    try:
        pattern = f"{run.journal.path.stem}-rank*{run.journal.path.suffix}"
        others = sorted(directory.glob(pattern)) if logger.all_ranks else []
        delivered = True
        for path in (run.journal.path, *others):
            delivered &= _send(run, path, logger, again, patience)
        return delivered
    finally:
        held.release()


def _send(run: StoredRun, path: Path, logger: Logger, again: bool, patience: float) -> bool:
    rank = int(path.stem.partition("-rank")[2] or 0)
    what = f"{run.dir} (rank {rank})" if rank else str(run.dir)
    with JournalFile.create(path) as journal:
        with explained(run.dir):
            before = journal.logger(logger.name)
            if before.ended and not again and not journal.after(before.position, 1):
                terminal.say(f"{logger.name} has all {journal.last:,} records of {what}")
                return True
            about = journal.about()
            header = dict(about.get("header", {}))
            info = RunInfo(
                about["name"], about.get("id", run.id), run.dir.absolute(), run.started,
                dict(header),
                replay=True, rank=rank,
            )  # fmt: skip
        delivery = Delivery(
            logger.name, logger.who, logger.hooks, info, journal,
            lambda message: terminal.say(f"error: {message}", err=True), patience,
        )  # fmt: skip
        if again:  # kept when the logger has begun, so that a failure to begin forgets nothing
            delivery.position, info.state = 0, {}
        first = delivery.position
        _deliver(delivery, run.end.body["status"] if run.end else "interrupted")
        if delivery.failure is not None:
            return False
        terminal.say(f"sent {delivery.position - first:,} records of {what} to {logger.name}")
        for topic, line in info.header.items():
            if header.get(topic) != line:
                terminal.say(f"{topic}: {line}")
        if not rank:
            journal.tell(header=info.header)
    return True


def _deliver(delivery: Delivery, status: str) -> None:
    """Deliver all, and wait for it; Ctrl-C ends it where it stands."""
    try:
        delivery.start()
        delivery.wait_until_open(inf, lambda: False)
        delivery.end(status)
        with _line() as show:
            started, first = monotonic(), delivery.position
            while not delivery.wait(0.1):
                done = delivery.position - first
                show(
                    f"{delivery.name}: {done:,} of {done + delivery.left:,} records, "
                    f"{terminal.duration(monotonic() - started)}"
                )
    except KeyboardInterrupt:
        delivery.abandon()
        delivery.wait(1.0)  # for what it is in the middle of
        terminal.say(f"`{delivery.mend}` goes on from here", err=True)
        raise


@contextlib.contextmanager
def _line() -> Iterator[Callable[[str], None]]:
    """A line on a terminal that is written again, and cleared in the end."""
    terminal = sys.stderr.isatty()

    def show(line: str) -> None:
        if terminal:
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()

    try:
        yield show
    finally:
        show("")

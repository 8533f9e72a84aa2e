"""What fails, hangs, vanishes or reads along, and what stands in the journal all the same."""

import errno
import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from trainbus import JournalError, JournalFile, Task, Trainer, UsageError, hookimpl
from trainbus.builtin import Checkpoint, Journal
from trainbus.records.journal import Entry
from trainbus.records.writer import Writer
from trainbus.storage.lock import at_work, lock


class Steps(Task):
    """Logs a loss in each step."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 2)

    def training_step(self, batch, run):
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        run.log(loss=loss)
        return loss

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


DATA = [(torch.zeros(4, 3), torch.zeros(4, dtype=torch.long))] * 4


def fit(*plugins, epochs=4, resume=None, run_dir="runs", **listeners):
    trainer = Trainer(epochs=epochs, run_dir=run_dir, plugins=[*plugins])
    for event, function in listeners.items():
        trainer.on(event)(function)
    return trainer.fit(Steps(), DATA, resume=resume)


def forked(act):
    """Do it in a process of its own; returns its exit status, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        try:
            logging.disable()
            act()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def steps_of(directory):
    with JournalFile.open(directory / "journal.db") as journal:
        return list(journal.series("train/loss").steps)


def refuse(path):
    """Let each insertion of metrics fail, behind those of names and records."""
    with sqlite3.connect(path) as other:
        other.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON metrics BEGIN SELECT RAISE(FAIL, 'no'); END"
        )


def allow(path):
    with sqlite3.connect(path) as other:
        other.execute("DROP TRIGGER refuse")


# --- a transaction that fails --------------------------------------------------------------------


def test_a_transaction_whose_third_statement_fails_leaves_nothing_of_it(tmp_path):
    with JournalFile.create(tmp_path / "journal.db") as journal:
        journal.append([Entry("metrics", 0.0, 1, {"loss": 1.0})])
        refuse(journal.path)
        entries = [
            Entry("event", 1.0, 2, {"event": "note"}), Entry("metrics", 1.0, 2, {"other": 2.0})
        ]  # fmt: skip
        for _ in range(2):
            with pytest.raises(JournalError, match="no"):
                journal.append(entries)
        assert (journal.last, journal.names()) == (1, ["loss"])
        assert journal.records("event") == []
        allow(journal.path)
        journal.append(entries)
        assert journal.last == 3
        assert [record.number for record in journal.records("event")] == [2]
        assert [list(column) for column in journal.series("other")] == [[2], [1.0], [2.0]]
        assert [record.number for record in journal.after(0)] == [1, 2, 3]
        with JournalFile.open(journal.path) as again:
            assert again.last == 3
            assert again.after(0) == journal.after(0)


def writer_of(path, told):
    return Writer(JournalFile.create(path), [], told.append, 0.01, 1000, lambda: None)


def test_what_waits_behind_100000_records_is_dropped_and_counted(tmp_path):
    told = []
    writer = writer_of(tmp_path / "journal.db", told)
    refuse(writer.file.path)
    for step in range(100_200):
        writer.put(("metrics", 0.0, step, {"loss": 0.0}))
    assert not writer.flush()
    allow(writer.file.path)
    writer.stop()
    assert told[-1].startswith("200 records could not be written")
    with writer.file as journal:
        assert list(journal.series("loss").steps) == list(range(100_000))


def test_a_flush_tells_whether_all_is_on_the_disk(tmp_path):
    told = []
    writer = writer_of(tmp_path / "journal.db", told)
    assert writer.flush()
    writer.put(("metrics", 0.0, 1, {"loss": 0.0}))
    assert writer.flush()
    refuse(writer.file.path)
    writer.put(("metrics", 0.0, 2, {"loss": 0.0}))
    assert not writer.flush()
    allow(writer.file.path)
    assert writer.flush()
    writer.stop()
    writer.file.close()
    assert len(told) == 1


# --- before a state, and at a kill ---------------------------------------------------------------


def test_what_was_logged_before_a_state_is_in_the_journal_when_it_is_saved():
    seen = []
    run = fit(
        Checkpoint(every_steps=1), Journal(seconds=1000, records=10**6),
        checkpoint_saved=lambda run: seen.append((run.global_step, steps_of(run.dir)[-1])),
    )  # fmt: skip
    assert run.status == "completed"
    assert seen
    assert all(step == newest for step, newest in seen)


def test_a_state_before_which_the_journal_could_not_be_written_is_told():
    def act(run):
        if run.epoch == 1:
            refuse(run.dir / "journal.db")
        elif run.epoch == 3:
            allow(run.dir / "journal.db")

    run = fit("checkpoint", Journal(seconds=0.1), epoch_start=act)
    assert run.status == "completed"
    assert steps_of(run.dir) == list(range(1, 17))
    told = [error for error in run.errors if "a state is saved at step" in error]
    assert [error.split(",")[0][-2:] for error in told] == [" 8", "12"]


class Lines:
    """A logger that keeps lines in memory, and writes them when it is asked to."""

    plugin_name = "lines"

    def __init__(self, at=""):
        self.at = at
        self.lines, self.flushes, self.moved = [], 0, []

    def _at(self, moment):
        if self.at == moment and self.flushes:
            kill()

    def _position(self, run):
        with JournalFile.open(run.dir / "journal.db") as journal:
            return journal.logger("lines").position

    @hookimpl
    def on_log_start(self, run):
        self.begun = run.record

    @hookimpl
    def on_metrics(self, run, step, metrics):
        self._at("position")
        if "train/loss" in metrics:
            self.lines.append(f"{step}\n")
        self._at("hand-over")

    @hookimpl
    def on_log_flush(self, run):
        self._at("flush")
        self.moved.append(self._position(run) > self.begun)
        with (run.dir / "lines.txt").open("a") as file:
            file.write("".join(self.lines))
        self.lines, self.begun = [], run.record
        self.flushes += 1
        self._at("flushed")


def test_the_position_of_a_logger_moves_behind_its_flush():
    lines = Lines()
    fit(lines, Journal(seconds=0.05), epoch_end=lambda run: time.sleep(0.6))
    assert lines.flushes > 2
    assert not any(lines.moved)


@pytest.mark.parametrize("at", ["hand-over", "flush", "flushed", "position", "state"])
def test_killed_between_any_two_moments_nothing_is_missing(at):
    def wait(run):
        time.sleep(0.6)

    def saved(run):
        if at == "state" and run.epoch == 2:
            kill()

    def first():
        fit(Lines(at), "checkpoint", Journal(seconds=0.05), epoch_end=wait, checkpoint_saved=saved)

    assert forked(first) == -signal.SIGKILL
    run = fit(Lines(), "checkpoint", Journal(seconds=0.05), resume="auto")
    assert steps_of(run.dir) == list(range(1, 17))
    sent = [int(line) for line in (run.dir / "lines.txt").read_text().split()]
    assert sorted({*sent}) == list(range(1, 17)), "each is sent, some perhaps twice"


# --- others who read along -----------------------------------------------------------------------


BACKUPS = {
    "copytree": lambda run: shutil.copytree(run.dir, "copy", symlinks=True),
    "read": lambda run: [each.read_bytes() for each in run.dir.rglob("*") if each.is_file()],
    "artifact": lambda run: run.log_artifact("run", run.dir),
    "look": lambda run: JournalFile.open(run.dir / "journal.db").close(),
}


@pytest.mark.parametrize("backup", BACKUPS)
def test_who_reads_the_directory_does_not_free_its_lock(backup):
    free = []

    def act(run):
        if run.epoch == 1:
            BACKUPS[backup](run)
        if run.epoch == 2:

            def try_it():
                held = lock(run.dir)
                os._exit(1 if held or not at_work(run.dir) else 0)

            free.append(forked(try_it))

    run = fit("checkpoint", Journal(seconds=0.05), epoch_start=act)
    assert free == [0]
    assert not at_work(run.dir)


def test_a_worker_that_outlives_its_run_does_not_hold_the_directory():
    pids = []

    def act(run):
        if run.epoch == 1:
            if (pid := os.fork()) == 0:
                time.sleep(60)
                os._exit(0)
            pids.append(pid)

    run = fit("checkpoint", epoch_start=act)
    try:
        held = lock(run.dir)
        assert held is not None
        held.release()
    finally:
        os.kill(pids[0], signal.SIGKILL)
        os.waitpid(pids[0], 0)


def test_looking_takes_the_directory_from_nobody():
    run = fit("checkpoint")
    ended = threading.Event()

    def look():
        while not ended.is_set():
            at_work(run.dir)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            held = lock(run.dir)
            assert held is not None
            held.release()
    finally:
        ended.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("backup", ["copytree", "read"])
def test_a_backup_and_a_look_lose_nothing_of_a_run_that_is_killed_later(backup):
    def act(run):
        time.sleep(0.3)
        if run.epoch == 1:
            BACKUPS[backup](run)
        if run.epoch == 2:
            look = [sys.executable, "-m", "trainbus", "runs"]
            subprocess.run(look, capture_output=True, check=True)
        if run.epoch == 3:
            kill()

    first = lambda: fit("checkpoint", Journal(seconds=0.05), epoch_start=act)  # noqa: E731
    assert forked(first) == -signal.SIGKILL
    run = fit("checkpoint", resume="auto")
    assert steps_of(run.dir) == list(range(1, 17))


def test_what_is_logged_late_is_left_out_while_another_process_has_the_directory():
    run = fit("checkpoint")
    ready, done = os.pipe(), os.pipe()
    if (pid := os.fork()) == 0:
        held = lock(run.dir)
        os.write(ready[1], b"x")
        os.read(done[0], 1)
        os._exit(0 if held else 1)
    os.read(ready[0], 1)
    run.log_tags({"late": "yes"})
    os.write(done[1], b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert "left out: another process has its directory" in run.errors[-1]
    run.log_tags({"late": "later"})
    with JournalFile.open(run.dir / "journal.db") as journal:
        assert journal.tags() == {"late": "later"}


# --- a directory that vanishes, and a working directory that changes -----------------------------


AWAY = {
    "deleted": lambda directory: shutil.rmtree(directory),
    "moved": lambda directory: directory.rename("elsewhere"),
    "journal deleted": lambda directory: (directory / "journal.db").unlink(),
    "replaced": lambda directory: (directory.rename("away"), shutil.copytree("away", directory)),
}


@pytest.mark.parametrize("away", AWAY)
def test_a_journal_that_was_taken_away_is_begun_anew_with_all_records(away):
    lost = []

    def act(run):
        if run.epoch == 2:
            time.sleep(0.3)
            AWAY[away](run.dir)
        if run.epoch == 3:
            time.sleep(0.3)
            lost.append(forked(lambda: os._exit(1 if lock(run.dir) else 0)))

    run = fit("checkpoint", Journal(seconds=0.05), epoch_start=act)
    assert (run.status, lost) == ("completed", [0])
    assert [error for error in run.errors if "begun anew with all records" in error]
    assert steps_of(run.dir) == list(range(1, 17))
    assert (run.dir / "run.json").is_file()
    again = fit("checkpoint", epochs=5, resume="auto")
    assert (again.dir, again.global_step) == (run.dir, 20)


def test_a_directory_that_another_run_took_meanwhile_is_left_to_it():
    Path("other").mkdir()
    ready = os.pipe()
    if (pid := os.fork()) == 0:
        held = lock(Path("other"))
        os.write(ready[1], b"x")
        time.sleep(60)
        os._exit(0 if held else 1)
    os.read(ready[0], 1)

    def exchange(run):
        if run.epoch == 1:
            place = run.dir
            place.rename("away")
            Path("other").rename(place)

    try:
        with pytest.raises(UsageError, match="another run has it now"):
            fit("checkpoint", "-journal", "-manifest", epoch_start=exchange)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    (taken,) = Path("runs").iterdir()
    assert [each.name for each in taken.iterdir()] == [".lock"]


def test_a_run_stays_where_it_began_when_the_process_goes_elsewhere():
    here = Path.cwd()
    Path("data").mkdir()
    try:
        run = fit("checkpoint", epoch_start=lambda run: os.chdir(here / "data"))
    finally:
        os.chdir(here)
    assert list(Path("data").iterdir()) == []
    assert run.dir.parent == here / "runs"
    assert sorted(each.name for each in run.dir.iterdir()) == [
        ".lock", "checkpoints", "journal.db", "run.json"
    ]  # fmt: skip
    made = []
    fit("checkpoint", resume="auto", epoch_start=lambda run: made.append(run.epoch))
    assert made == []


# --- a journal that is of no use -----------------------------------------------------------------


def damaged(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scrambled(path):
    path.write_bytes(b"x" * 100 + path.read_bytes()[100:])


def inside(path):
    data = bytearray(path.read_bytes())
    data[4096 : len(data) : 97] = b"\xff" * len(range(4096, len(data), 97))
    path.write_bytes(data)


def directory(path):
    path.unlink()
    path.mkdir()


def foreign(path):
    path.unlink()
    with sqlite3.connect(path) as other:
        other.executescript("CREATE TABLE users (name TEXT); PRAGMA user_version = 7;")


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [damaged, scrambled, inside, directory, foreign])
def test_a_journal_of_no_use_is_set_aside_and_the_training_goes_on(spoil):
    first = fit("checkpoint", epochs=2)
    spoil(first.dir / "journal.db")
    run = fit("checkpoint", resume="auto")
    assert (run.dir, run.status, run.global_step) == (first.dir, "completed", 16)
    (told,) = run.errors
    assert "it is set aside as journal-damaged-1.db, and a new journal is begun" in told
    assert (run.dir / "journal-damaged-1.db").exists()
    assert steps_of(run.dir) == list(range(9, 17))


def test_an_empty_journal_is_begun():
    first = fit("checkpoint", epochs=2)
    empty(first.dir / "journal.db")
    run = fit("checkpoint", resume="auto")
    assert (run.errors, steps_of(run.dir)) == ([], list(range(9, 17)))


def test_a_journal_of_a_newer_format_is_refused():
    first = fit("checkpoint", epochs=2)
    with sqlite3.connect(first.dir / "journal.db") as other:
        other.execute("PRAGMA user_version = 9")
    with pytest.raises(JournalError, match="format 9, this trainbus reads format 1"):
        fit("checkpoint", resume="auto")
    assert not (first.dir / "journal-damaged-1.db").exists()


# --- artifacts -----------------------------------------------------------------------------------


def artifacts_of(run):
    with JournalFile.open(run.dir / "journal.db") as journal:
        return {each.body["name"]: each.body for each in journal.records("artifact")}


@pytest.fixture
def work():
    """A directory with a file, a pipe, and a link to a device."""
    directory = Path("work")
    directory.mkdir()
    os.mkfifo(directory / "pipe")
    (directory / "device").symlink_to("/dev/zero")
    (directory / "notes.txt").write_text("notes")
    return directory


@pytest.mark.parametrize("name", ["pipe", "device"])
def test_what_is_no_regular_file_is_no_artifact(work, name, memory):
    run = fit(memory, epochs=1, fit_start=lambda run: run.log_artifact("thing", work / name))
    assert run.status == "completed"
    assert [each for each in run.errors if "no regular file" in each]
    assert (artifacts_of(run), memory.of("artifact")) == ({}, [])


def test_of_a_directory_regular_files_alone_are_kept_and_the_others_told(work, memory):
    run = fit(memory, epochs=1, fit_start=lambda run: run.log_artifact("work", work))
    assert artifacts_of(run)["work"]["bytes"] == 5
    told = [each for each in run.errors if "and not device, pipe" in each]
    assert len(told) == 1
    assert memory.of("artifact") == [], "a logger that reads the directory would never end"


def test_a_file_that_became_a_pipe_is_not_read_for_a_logger(memory, trained_with_file):
    directory = trained_with_file
    Path("file.txt").unlink()
    os.mkfifo("file.txt")
    began = time.monotonic()
    fit(memory, epochs=2, resume="auto")
    assert time.monotonic() - began < 30
    assert memory.of("artifact") == []
    assert directory.is_dir()


@pytest.fixture
def trained_with_file():
    """A run that logged a file; no logger has it yet."""
    Path("file.txt").write_text("text")
    run = fit(
        "checkpoint", epochs=1,
        fit_start=lambda run: run.log_artifact("file", "file.txt"),
    )  # fmt: skip
    assert artifacts_of(run)["file"]["bytes"] == 4
    return run.dir


def test_a_large_file_holds_up_no_state_and_no_other_record():
    with Path("big").open("wb") as file:
        file.truncate(3_000_000_000)
    seconds = []

    def before(run):
        if run.epoch == 0:
            run.log_artifact("big", "big")
        seconds.append(-time.monotonic())

    def after(run):
        seconds[-1] += time.monotonic()
        assert steps_of(run.dir)[-1] == run.global_step

    run = fit("checkpoint", epoch_end=before, checkpoint_saved=after)
    assert max(seconds) < 2
    assert artifacts_of(run)["big"]["bytes"] == 3_000_000_000


def test_a_file_that_is_not_read_in_time_is_told_at_the_end():
    with Path("big").open("wb") as file:
        file.truncate(20_000_000_000)
    began = time.monotonic()
    run = fit(
        Journal(finish_seconds=0.2), epochs=1,
        fit_start=lambda run: run.log_artifact("big", "big"),
    )  # fmt: skip
    assert time.monotonic() - began < 20
    assert [each for each in run.errors if "'big': not read to the end" in each]
    assert artifacts_of(run) == {}


def test_the_runs_own_live_files_are_no_part_of_an_artifact():
    run = fit(epochs=1, epoch_end=lambda run: run.log_artifact("run", run.dir))
    # At the end `run.json` tells more than when it was read.
    assert 0 < artifacts_of(run)["run"]["bytes"] <= (run.dir / "run.json").stat().st_size


def test_an_artifact_for_which_the_disk_is_full_to_the_end_holds_nothing_else_back(monkeypatch):
    def full(_path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("trainbus.records.artifacts.replacing", full)
    trainer = Trainer(plugins=[Journal(seconds=60)])
    trainer.on("fit_end")(lambda run: run.log_artifact("it", "text", "text"))
    run = trainer.fit(Steps(), DATA)
    with JournalFile.open(run.dir / "journal.db") as journal:
        assert journal.records("event")[-1].body["event"] == "end"
    assert any("'it' is left out" in each for each in run.errors)

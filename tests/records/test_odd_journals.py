"""Journals that are damaged, or that somebody made: each is told of, and keeps no other from it."""

import os
import sqlite3
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainbus import JournalError, JournalFile, RecordRejected, Trainer, UsageError
from trainbus.records import artifacts
from trainbus.storage.lock import lock


def make(name):
    directory = Path("runs", name)
    directory.mkdir(parents=True)
    with JournalFile.create(directory / "journal.db") as journal:
        journal.tell(started=1.0, name="T", header={})
        start = ("event", 0.0, 0, {"event": "start"})
        end = ("event", 2.0, 1, {"event": "end", "status": "completed"})
        table = {"name": "t", "kind": "table", "path": "artifacts/t.json", "bytes": 2, "sha256": ""}
        params, metrics = ("params", 0.5, 0, {"lr": 0.1}), ("metrics", 1.0, 1, {"train/loss": 1.0})
        journal.append([start, params, metrics, ("artifact", 1.5, 1, table), end])
    return directory


ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT"
ODD = {
    "a text for numbers": "UPDATE metrics SET numbers = 'abcdefgh'",
    "columns of other lengths": "UPDATE metrics SET steps = x'00'",
    "no bytes": "UPDATE metrics SET times = x'', steps = x'', records = x'', numbers = x''",
    "a time that is none": "UPDATE metrics SET times = x'ffffffffffffff7f'",
    "started late": "UPDATE about SET value = '1e300' WHERE key = 'started'",
    "started as a text": "UPDATE about SET value = '\"x\"' WHERE key = 'started'",
    "started never": "UPDATE about SET value = 'NaN' WHERE key = 'started'",
    "a name of brackets": f"UPDATE about SET value = '{'[' * 100_000}' WHERE key = 'name'",
    "a name that is a number": "UPDATE about SET value = '3' WHERE key = 'name'",
    "a header of numbers": "INSERT OR REPLACE INTO about VALUES ('header', '[1]')",
    "an id that leads elsewhere": "INSERT INTO about VALUES ('id', '\"../x\"')",
    "an event without a name": "UPDATE records SET body = '{}' WHERE kind = 'event'",
    "an event that is a list": "UPDATE records SET body = '[]' WHERE kind = 'event'",
    "a body of bytes": "UPDATE records SET body = x'00'",
    "a time as a text": "UPDATE records SET time = 'x'",
    "a step as a text": "UPDATE records SET step = 'x'",
    "a name of bytes": "UPDATE names SET text = x'00ff'",
    "a view": f"DROP TABLE about; CREATE VIEW about AS {ENDLESS} x AS key, '1' AS value FROM c",
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON loggers BEGIN DELETE FROM records; END",
    "other columns": "DROP TABLE loggers; CREATE TABLE loggers (name, position, state, ended)",
    "a table less": "DROP TABLE names",
    "another format": "PRAGMA user_version = 99",
}


@pytest.mark.parametrize("sql", ODD.values(), ids=ODD)
def test_one_odd_journal_is_a_line_of_its_own_and_the_others_are_listed(
    own_directory, trainbus, sql
):
    make("2026-01-01_00-00-00_Good")
    with sqlite3.connect(make("2026-01-02_00-00-00_Odd") / "journal.db") as db:
        db.executescript(sql)
    began = time.monotonic()
    shown = trainbus("runs")
    assert "_Good" in shown.stdout
    if "TRIGGER" in sql or "Odd" not in shown.stdout:
        assert "damaged: " in shown.stderr and "_Odd" in shown.stderr
    for verb in (["runs", "show", "runs/2026-01-02_00-00-00_Odd"], ["runs", "--json"]):
        done = subprocess.run(
            [sys.executable, "-m", "trainbus", *verb], capture_output=True, text=True, timeout=60
        )
        assert "Traceback" not in done.stderr
    assert time.monotonic() - began < 60


def test_a_query_ends_after_a_time(own_directory, monkeypatch):
    from trainbus.records import journal_schema

    monkeypatch.setattr(journal_schema, "QUERY_SECONDS", 0.2)
    with JournalFile.open(make("a") / "journal.db") as journal:
        began = time.monotonic()
        with pytest.raises(JournalError, match="interrupted"):
            journal._rows(f"{ENDLESS} x FROM c")
        assert time.monotonic() - began < 10
        assert journal.names() == ["train/loss"]


@pytest.mark.parametrize("state", ["[]", "3", "{", "[" * 2000, '"x"'])
def test_what_it_keeps_for_a_logger_is_a_mapping(own_directory, state):
    path = make("a") / "journal.db"
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO loggers VALUES ('one', 0, ?, 0)", (state,))
    with JournalFile.open(path) as journal, pytest.raises(JournalError, match="cannot read"):
        journal.logger("one")


def test_a_log_that_is_a_link_is_refused_before_sqlite_follows_it(own_directory):
    path, mine = make("a") / "journal.db", Path("mine.txt")
    mine.write_text("a text of the user")
    path.with_name("journal.db-wal").symlink_to(mine.absolute())
    for way in (JournalFile.open, JournalFile.create):
        with pytest.raises(JournalError, match=r"journal\.db-wal is a link"):
            way(path)
    assert mine.read_text() == "a text of the user"


@pytest.mark.parametrize("kind", ["table", "text", "image", "figure"])
@pytest.mark.parametrize(
    "path",
    ["../mine.json", "/etc/hostname", "artifacts/../../mine.json", "artifacts", "x.json", "../a/b"],
)
def test_what_a_run_wrote_itself_is_in_its_directory(tmp_path, kind, path):
    (tmp_path / "run").mkdir()
    (tmp_path / "mine.json").write_text("[]")
    size, checksum, _ = artifacts.measure(tmp_path / "mine.json")
    body = {"name": "t", "kind": kind, "path": path, "bytes": size, "sha256": checksum}
    with pytest.raises(RecordRejected):
        artifacts.restore(body, 1, 0.0, tmp_path / "run")


def test_a_file_in_the_run_is_not_one_above_it(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "mine.json").write_text("[]")
    size, checksum, _ = artifacts.measure(tmp_path / "mine.json")
    body = {"name": "t", "kind": "file", "path": "../mine.json", "bytes": size, "sha256": checksum}
    with pytest.raises(RecordRejected, match="leads out of the run's directory"):
        artifacts.restore(body, 1, 0.0, tmp_path / "run")


def test_replay_writes_to_no_journal_behind_a_link(own_directory, trainbus):
    directory = make("a")
    Path("runs/b").mkdir()
    Path("runs/b/journal.db").symlink_to((directory / "journal.db").absolute())
    pytest.importorskip("trainbus_tensorboard")
    failed = trainbus("replay", "runs/b", "--to", "tensorboard", status=2)
    assert "is a link" in failed.stderr


# --- what lies beside it -------------------------------------------------------------------------


@pytest.fixture
def finished(line, make_loader):
    return Trainer(plugins=["checkpoint"]).fit(line, make_loader(2))


def rollback_of(path, victim):
    """A rollback journal of SQLite's that names a further file, which SQLite would remove."""
    magic, name = bytes.fromhex("d9d505f920a163d7"), str(victim).encode()
    pages = path.stat().st_size // 4096
    head = (magic + struct.pack(">IIIII", 0, 7, pages, 512, 4096)).ljust(512, b"\0")
    tail = struct.pack(">I", 0x40000000 // 4096 + 1) + name
    return head + tail + struct.pack(">II", len(name), sum(name)) + magic


def goes_on(run, line, make_loader):
    return Trainer(epochs=2, plugins=["checkpoint"]).fit(line, make_loader(2), resume="auto")


def test_a_rollback_journal_removes_no_file_of_the_user(finished, line, make_loader, tmp_path):
    victim = tmp_path / "text.tex"
    victim.write_text("two years of work")
    path = finished.dir / "journal.db"
    path.with_name("journal.db-journal").write_bytes(rollback_of(path, victim))
    with pytest.raises(JournalError, match="which trainbus does not write"):
        JournalFile.create(path)
    with pytest.raises(JournalError, match="which trainbus does not write"):
        JournalFile.open(path)
    again = goes_on(finished, line, make_loader)
    assert again.status == "completed"
    assert any("set aside as journal-damaged-1.db" in error for error in again.errors)
    assert victim.exists()


@pytest.mark.parametrize("name", ["journal.db-journal", "journal.db-wal", "journal.db-shm"])
def test_a_pipe_beside_it_holds_up_nobody(finished, line, make_loader, name):
    os.mkfifo(finished.dir / name)
    with pytest.raises(JournalError):
        JournalFile.open(finished.dir / "journal.db")
    assert goes_on(finished, line, make_loader).status == "completed"


@pytest.mark.parametrize("name", ["journal.db", "journal.db-wal"])
def test_a_link_makes_no_file_elsewhere(finished, line, make_loader, tmp_path, name):
    place = finished.dir / name
    place.unlink(missing_ok=True)
    place.symlink_to(tmp_path / "elsewhere")
    assert goes_on(finished, line, make_loader).status == "completed"
    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_that_is_a_link_or_a_directory_is_refused(tmp_path):
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="no lock of trainbus's"):
        lock(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_a_journal_that_somebody_wrote_into_is_told_at_the_end(line, make_loader):
    trainer = Trainer()

    @trainer.on("train_batch_end")
    def spoil(run):
        if run.global_step == 2:
            with (run.dir / "journal.db").open("r+b") as file:
                file.write(b"x" * 5000)

    run = trainer.fit(line, make_loader(4))
    assert run.status == "completed"
    assert any("journal.db" in error for error in run.errors)


def test_times_before_1970_are_kept_as_a_reader_takes_them(tmp_path):
    with JournalFile.create(tmp_path / "journal.db") as journal:
        journal.append([("metrics", -5.0, 1, {"a": 1.0}), ("tags", -5.0, 1, {"a": "b"})])
    with JournalFile.open(tmp_path / "journal.db") as journal:
        assert list(journal.series("a").times) == [0.0]
        assert journal.tags() == {"a": "b"}

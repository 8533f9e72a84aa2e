"""What the journal could not take when a state was saved is there when the run goes on."""

import shutil
import sqlite3
import threading
import time

import pytest

from trainbus import Trainer
from trainbus.builtin import Checkpoint, Journal
from trainbus.records import overdue
from trainbus.records.journal import JournalFile
from trainbus.records.writer import Writer


def refuse(path):
    """Let each insertion of metrics fail."""
    with sqlite3.connect(path) as other:
        other.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON metrics BEGIN SELECT RAISE(FAIL, 'no'); END"
        )


def allow(path):
    with sqlite3.connect(path) as other:
        other.execute("DROP TRIGGER refuse")


@pytest.fixture
def crashed(line, make_loader):
    """A run whose journal refuses metrics from its first step on."""

    def train(then=None):
        trainer = Trainer(epochs=2, plugins=["checkpoint"])

        @trainer.on("fit_start")
        def block(run):
            run.log(before=1.0)
            run.flush()
            refuse(run.dir / "journal.db")

        @trainer.on("train_batch_end")
        def log(run):
            run.log(mine=run.global_step)

        @trainer.on("train_epoch_end")
        def look(run):
            if then is not None and run.epoch == 1:
                then(run)

        return trainer.fit(line, make_loader(4))

    return train


def steps(directory, name):
    with JournalFile.open(directory / "journal.db") as journal:
        return list(journal.series(name).steps)


def copy_as_killed(run, to):
    """The run's directory as a kill at this moment leaves it."""
    shutil.copytree(run.dir, to)
    allow(to / "journal.db")


def test_a_resumed_run_has_what_its_state_took_for_written(crashed, line, make_loader, tmp_path):
    killed = tmp_path / "killed"
    first = crashed(lambda run: copy_as_killed(run, killed))
    shutil.rmtree(first.dir)
    killed.rename(first.dir)
    assert overdue.place(first.dir / "journal.db").exists()
    assert 4 not in steps(first.dir, "train/mine")
    run = Trainer(epochs=2, plugins=["checkpoint"]).fit(line, make_loader(4), resume="auto")
    assert run.dir == first.dir
    assert steps(run.dir, "train/mine") == [1, 2, 3, 4]
    assert not overdue.place(run.dir / "journal.db").exists()


def test_what_the_journal_has_is_not_taken_in_twice(tmp_path):
    path = tmp_path / "journal.db"
    entries = [
        ("metrics", 1.0, 1, {"loss": 1.0}),
        ("tags", 1.5, 1, {"kind": "a"}),
        ("metrics", 2.0, 2, {"loss": 2.0}),
    ]
    with JournalFile.create(path) as journal:
        overdue.keep(journal, entries)
        journal.append(entries[:2])
        assert overdue.take_in(journal) == 1
        assert list(journal.series("loss").steps) == [1, 2]
        assert len(journal.records("tags")) == 1
        assert overdue.take_in(journal) == 0


def test_what_can_never_be_written_does_not_keep_the_rest_out(tmp_path):
    path = tmp_path / "journal.db"
    entries = [
        ("metrics", 1.0, 1, {"n" * 200_000: 1.0}),
        ("metrics", 2.0, 2, {"loss": 2.0}),
    ]
    with JournalFile.create(path) as journal:
        overdue.keep(journal, entries)
        assert overdue.take_in(journal) == 1


def test_a_damaged_one_is_told_and_does_not_stop_the_run(line, make_loader):
    run = Trainer(plugins=["checkpoint"]).fit(line, make_loader(2))
    overdue.place(run.dir / "journal.db").write_bytes(b"no database at all" * 100)
    again = Trainer(epochs=2, plugins=["checkpoint"]).fit(line, make_loader(2), resume="auto")
    assert again.dir == run.dir
    assert again.global_step == 4
    assert any("journal-overdue.db" in error for error in again.errors)


def test_nothing_is_kept_where_the_journal_took_all(line, make_loader):
    run = Trainer(plugins=["checkpoint"]).fit(line, make_loader(2))
    assert not overdue.place(run.dir / "journal.db").exists()


def test_what_another_program_held_up_is_kept_and_forgotten_when_written(
    line, make_loader, monkeypatch
):
    """The journal is held at the first state and free at the second."""
    monkeypatch.setattr(Writer.flush, "__defaults__", (0.5,))
    trainer, held, kept = Trainer(epochs=2, plugins=[Journal(), "checkpoint"]), [], []

    @trainer.on("train_epoch_start", once=True)
    def hold(run):
        other = sqlite3.connect(run.dir / "journal.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        held.append(other)

    @trainer.on("checkpoint_saved")
    def release(run, path):
        kept.append(overdue.place(run.dir / "journal.db").exists())
        if held:
            held.pop().close()

    run = trainer.fit(line, make_loader(3))
    assert kept[0]
    assert not overdue.place(run.dir / "journal.db").exists()
    assert steps(run.dir, "train/loss")


def test_what_the_thread_did_not_come_to_is_kept_too(line, make_loader, monkeypatch, tmp_path):
    """A disk that hangs: one record is being written while the next ones wait behind it."""
    monkeypatch.setattr(Writer.flush, "__defaults__", (0.3,))
    append, go_on = JournalFile.append, threading.Event()

    def slow(self, entries):
        if any(kind == "metrics" and step == 2 for kind, _, step, _ in entries):
            go_on.wait(10)
        return append(self, entries)

    trainer, kept = Trainer(plugins=[Journal(seconds=0.02), Checkpoint(every_steps=4)]), []

    @trainer.on("train_batch_end")
    def log(run):
        run.log(mine=run.global_step)
        run.flush()
        time.sleep(0.05)
        if run.global_step == 1:
            monkeypatch.setattr(JournalFile, "append", slow)

    @trainer.on("checkpoint_saved", once=True)
    def look(run, path):
        monkeypatch.setattr(JournalFile, "append", append)
        with JournalFile.open(overdue.place(run.dir / "journal.db")) as file:
            kept.extend(file.series("train/mine").steps)
        go_on.set()

    run = trainer.fit(line, make_loader(6))
    assert {3, 4} <= set(kept)
    assert steps(run.dir, "train/mine") == [1, 2, 3, 4, 5, 6]


def crafted(run, rows=(), **pragma):
    """A file beside the journal that somebody else made."""
    path = overdue.place(run.dir / "journal.db")
    with JournalFile.create(path) as file:
        file.append([("tags", 1.0, 1, {"kind": "theirs"})])
    with sqlite3.connect(path) as other:
        for row in rows:
            other.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?)", row)
        for name, value in pragma.items():
            other.execute(f"PRAGMA {name} = {value}")
    return path


@pytest.mark.parametrize(
    "body", ['{"a":"text"}', '{"a":null}', '{"a":[1]}', f'{{"a":{"9" * 400}}}', '{"\\ud800":1}']
)
@pytest.mark.parametrize("kind", ["metrics", "other"])
def test_records_that_no_journal_has_are_set_aside_and_told(line, make_loader, kind, body):
    run = Trainer(plugins=["checkpoint"]).fit(line, make_loader(2))
    path = crafted(run, [(9, 5.0, kind, 1, body)])
    again = Trainer(epochs=2, plugins=["checkpoint"]).fit(line, make_loader(2), resume="auto")
    assert again.dir == run.dir
    assert again.status == "completed"
    assert any("is not in the journal" in error for error in again.errors)
    assert path.with_stem("journal-overdue-damaged-1").exists()


def test_one_of_a_newer_format_is_not_deleted(line, make_loader):
    run = Trainer(plugins=["checkpoint"]).fit(line, make_loader(2))
    path = crafted(run, user_version=9)
    Trainer(epochs=2, plugins=["checkpoint"]).fit(line, make_loader(2), resume="auto")
    assert path.with_stem("journal-overdue-damaged-1").exists()


def test_an_event_of_another_process_voids_nothing(line, make_loader):
    run = Trainer(plugins=["checkpoint"]).fit(line, make_loader(2))
    crafted(run, [(9, 5.0, "event", 0, '{"event":"resume"}')])
    again = Trainer(epochs=2, plugins=["checkpoint"]).fit(line, make_loader(2), resume="auto")
    assert steps(again.dir, "train/loss") == [1, 2, 3, 4]


def test_a_directory_of_that_name_is_not_removed(line, make_loader):
    run = Trainer(plugins=["checkpoint"]).fit(line, make_loader(2))
    mine = overdue.place(run.dir / "journal.db")
    mine.mkdir()
    (mine / "text.tex").write_text("two years of work")
    Trainer(epochs=2, plugins=["checkpoint"]).fit(line, make_loader(2), resume="auto")
    assert [each.read_text() for each in run.dir.glob("journal-overdue*/text.tex")]

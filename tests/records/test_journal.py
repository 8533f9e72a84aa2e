"""The journal of a run: what it holds, when it is on the disk, and what it makes of odd values."""

import hashlib
import json
import math
import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
import torch

from trainbus import JournalError, JournalFile, RecordRejected, Trainer, hookimpl
from trainbus.builtin import Checkpoint, Journal
from trainbus.records.journal import Entry


@pytest.fixture
def journal(tmp_path):
    """A new journal."""
    with JournalFile.create(tmp_path / "journal.db") as file:
        yield file


def again(journal):
    """The same file, opened by a reader."""
    return JournalFile.open(journal.path)


def metrics(step, at=0.0, **values):
    return Entry("metrics", at, step, values)


# --- what a run leaves ---------------------------------------------------------------------------


def test_every_number_that_listeners_are_told_is_in_the_journal(line, make_loader, read):
    told = {}

    class Listens:
        @hookimpl
        def on_metrics(self, step, metrics):
            for name, value in metrics.items():
                told.setdefault(name, []).append((step, value))

    run = Trainer(epochs=3, plugins=[Listens()]).fit(line, make_loader(4), make_loader(2))
    journal = read(run)
    assert {
        name: list(zip(series.steps, series.values, strict=True))
        for name in journal.names()
        for series in [journal.series(name)]
    } == told


def test_parameters_tags_and_events_are_in_the_journal(line, loader, read):
    line.hparams = {"width": 4, "nested": {"rate": 0.1}}
    trainer = Trainer(epochs=2, plugins=[Checkpoint()])
    trainer.on("fit_start")(lambda run: run.log_tags({"team": "red"}))
    run = trainer.fit(line, loader)
    journal = read(run)
    assert journal.params() == {"width": 4, "nested": {"rate": 0.1}}
    assert journal.tags() == {"team": "red"}
    events = [each.body["event"] for each in journal.records("event")]
    assert events == ["start", "checkpoint", "checkpoint", "end"]
    about = journal.about()
    assert (about["name"], about["id"]) == ("Line", run.dir.name)
    assert about["header"] == run.header


def test_the_header_holds_what_plugins_add_later(line, loader, read):
    class Late:
        @hookimpl
        def on_fit_start(self, run):
            run.header["late"] = "yes"

    run = Trainer(plugins=[Late()]).fit(line, loader)
    assert read(run).about()["header"]["late"] == "yes"


def test_artifacts_are_kept_as_files_with_checksums(line, loader, read, tmp_path):
    matplotlib = pytest.importorskip("matplotlib.figure")
    figure = matplotlib.Figure()
    figure.subplots().plot([1, 2])
    (tmp_path / "notes.bin").write_bytes(b"0123")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.pt").write_bytes(b"weights")
    trainer = Trainer()

    @trainer.on("fit_end")
    def tell(run):
        run.log_artifact("a/b c", torch.rand(3, 5, 7), "image")
        run.log_artifact("plot", figure, "figure")
        run.log_artifact("words", "größer **als**", "text")
        run.log_artifact("rows", [{"a": torch.tensor(1), "b": math.nan}], "table")
        run.log_artifact("notes", "notes.bin")
        run.log_artifact("model", "model", "model")

    run = trainer.fit(line, loader)
    bodies = {each.body["name"]: each.body for each in read(run).records("artifact")}
    assert [body["kind"] for body in bodies.values()] == [
        "image", "figure", "text", "table", "file", "model"
    ]  # fmt: skip
    for name in ("a/b c", "plot", "words", "rows", "notes"):
        content = (run.dir / bodies[name]["path"]).read_bytes()
        assert bodies[name]["sha256"] == hashlib.sha256(content).hexdigest()
        assert bodies[name]["bytes"] == len(content)
    assert bodies["notes"]["path"] == str(tmp_path / "notes.bin"), "a file stays where it is"
    assert bodies["model"]["bytes"] == 7
    assert (run.dir / bodies["words"]["path"]).read_text("utf-8") == "größer **als**"
    rows = json.loads((run.dir / bodies["rows"]["path"]).read_text())
    assert rows[0]["a"] == 1 and math.isnan(rows[0]["b"])


@pytest.mark.parametrize(
    ("image", "mode", "pixel"),
    [
        (torch.tensor([[[0.0, 1.0]], [[0.5, 0.0]], [[0.0, 2.0]]]), "RGB", (0, 128, 0)),
        (torch.tensor([[[7, 200]]], dtype=torch.uint8), "L", 7),
        (torch.tensor([[[True, False]]]), "L", 255),
        (torch.tensor([[[math.nan, 1.0]]]), "L", 0),
        (torch.full((4, 1, 2), 9, dtype=torch.uint8), "RGBA", (9, 9, 9, 9)),
    ],
)
def test_an_image_of_a_tensor_is_the_same_as_a_file(image, mode, pixel, line, loader, read):
    pillow = pytest.importorskip("PIL.Image")
    trainer = Trainer()
    trainer.on("fit_end")(lambda run: run.log_artifact("image", image, "image"))
    run = trainer.fit(line, loader)
    (record,) = read(run).records("artifact")
    with pillow.open(run.dir / record.body["path"]) as shown:
        assert (shown.mode, shown.size) == (mode, (2, 1))
        assert shown.getpixel((0, 0)) == pixel


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (torch.rand(2, 3), "image", r"shape \(2, 3\); an image is channels x height x width"),
        (torch.zeros(3, 0, 4), "image", "an image without pixels"),
        (torch.zeros(1, 2, 2, dtype=torch.int64), "image", "a tensor of torch.int64"),
        ("x", "image", "str is neither a tensor nor a PIL image"),
        (1, "figure", r"int has no savefig\(\)"),
        ([1, 2], "table", "list is no list of mappings"),
    ],
)
def test_an_artifact_of_a_wrong_value_is_left_out_and_the_run_goes_on(
    value, kind, message, line, loader, read, caplog
):
    trainer = Trainer()

    @trainer.on("fit_end")
    def tell(run):
        run.log_artifact("odd", value, kind)
        run.log_artifact("good", "words", "text")

    run = trainer.fit(line, loader)
    (error,) = run.errors
    assert error.startswith(f"{kind} 'odd' is left out: ") and error in caplog.text
    assert re.search(message, error)
    assert [each.body["name"] for each in read(run).records("artifact")] == ["good"]


def test_a_figure_that_is_changed_later_was_kept_as_it_was(line, loader, read):
    rows = [{"a": 1}]
    trainer = Trainer()

    @trainer.on("fit_end")
    def tell(run):
        run.log_artifact("rows", rows, "table")
        rows[0]["a"] = 2

    run = trainer.fit(line, loader)
    (record,) = read(run).records("artifact")
    assert json.loads((run.dir / record.body["path"]).read_text()) == [{"a": 1}]


def test_a_file_that_is_changed_before_it_is_sent_is_not_sent(memory, line, loader, tmp_path):
    path = tmp_path / "state.bin"
    path.write_bytes(b"one")
    trainer = Trainer(plugins=[memory])

    @trainer.on("fit_start")
    def tell(run):
        memory.error = OSError("not now")
        run.log_artifact("state", path)

    @trainer.on("fit_end")
    def change(run):
        deadline = time.monotonic() + 5
        while not list(tmp_path.glob("runs/*/journal.db")) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(1)
        path.write_bytes(b"two")
        memory.error = None

    run = trainer.fit(line, loader)
    assert memory.of("artifact") == []
    assert "state.bin was changed after it was logged" in run.errors[0]


def test_a_hundred_megabytes_are_kept_by_path_and_checksum(memory, line, loader, tmp_path, read):
    path = tmp_path / "big.bin"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    trainer = Trainer(plugins=[memory])
    trainer.on("fit_end")(lambda run: run.log_artifact("big", path, "model"))
    run = trainer.fit(line, loader)
    ((artifact,),) = memory.of("artifact")
    assert artifact.value == path
    (record,) = read(run).records("artifact")
    assert record.body["bytes"] == 100_000_000
    assert sum(each.stat().st_size for each in run.dir.rglob("*")) < 1_000_000


def test_what_a_run_logs_when_it_is_over_is_kept_for_a_replay(memory, line, loader, read, caplog):
    run = Trainer(plugins=[memory]).fit(line, loader)
    run.log_artifact("late", "words", "text")
    run.log_tags({"late": "yes"})
    journal = read(run)
    assert [each.body["name"] for each in journal.records("artifact")] == ["late"]
    assert journal.tags() == {"late": "yes"}
    assert memory.of("artifact") == [] and journal.logger("memory").position < journal.last
    assert "logged when the run was over: kept in" in caplog.text


def test_what_another_run_logs_is_not_in_this_runs_journal(line, loader, read):
    trainer = Trainer()
    first = trainer.fit(line, loader)
    trainer.on("fit_end")(lambda run: first.log_tags({"whose": "first"}))
    second = trainer.fit(line, loader)
    assert read(first).tags() == {"whose": "first"}
    assert read(second).tags() == {}


def test_numbers_of_torch_and_numpy_stay_numbers_as_parameters(line, loader, read):
    numpy = pytest.importorskip("numpy")
    line.hparams = {"a": torch.tensor(5), "b": numpy.float32(0.5), "c": Path("x"), "d": [1, None]}
    assert read(Trainer().fit(line, loader)).params() == {
        "a": 5,
        "b": 0.5,
        "c": "x",
        "d": [1, None],
    }


def test_a_name_that_no_file_can_hold_loses_nothing(line, loader, read):
    trainer = Trainer()
    trainer.on("fit_end")(lambda run: run.log({"half \udc00": 1.0}))
    run = trainer.fit(line, loader)
    assert run.errors == []
    assert list(read(run).series("train/half ?").values) == [1.0]


# --- when it is on the disk ----------------------------------------------------------------------


def test_what_is_logged_is_on_the_disk_within_a_second(make_line, make_loader, tmp_path):
    """Read by a second connection while the run goes on."""
    late = []

    class Watching(make_line):
        def training_step(self, batch, run):
            time.sleep(0.1)
            if run.batch_index >= 20:
                with JournalFile.open(run.dir / "journal.db") as journal:
                    late.append(run.global_step - journal.series("train/loss").steps[-1])
            return super().training_step(batch, run)

    Trainer().fit(Watching(), make_loader(40))
    assert max(late) <= 11, "steps of 0.1 s that are logged and not written"


def test_a_thousand_records_do_not_wait_for_the_second(make_line, make_loader, tmp_path):
    behind = []

    class Fast(make_line):
        def training_step(self, batch, run):
            for i in range(50):
                run.log({f"m{i}": 1.0})
            if run.batch_index % 20 == 19:
                time.sleep(0.05)  # the time that the thread needs
                with JournalFile.open(run.dir / "journal.db") as journal:
                    steps = journal.series("train/m0").steps
                    behind.append(run.global_step - (steps[-1] if len(steps) else 0))
            return super().training_step(batch, run)

    Trainer(plugins=[Journal(seconds=60, records=1000)]).fit(Fast(), make_loader(200))
    assert max(behind[1:]) * 50 <= 1500


def test_a_full_disk_loses_nothing_that_memory_can_hold(line, make_loader, monkeypatch, caplog):
    """A journal that cannot be written for a while is written later."""
    failing = [True]
    append = JournalFile.append

    def fail(self, entries):
        if failing[0] and any(entry[0] == "metrics" for entry in entries):
            raise JournalError("cannot write journal.db: database or disk is full")
        append(self, entries)

    monkeypatch.setattr(JournalFile, "append", fail)
    trainer = Trainer(epochs=2, plugins=[Journal(seconds=0.05)])

    @trainer.on("epoch_end")
    def mend(run):
        time.sleep(0.3)
        failing[0] = run.epoch == 0

    run = trainer.fit(line, make_loader(3))
    with JournalFile.open(run.dir / "journal.db") as journal:
        assert list(journal.series("train/loss").steps) == [1, 2, 3, 4, 5, 6]
    assert len(run.errors) == 1
    assert "database or disk is full; what is logged waits in memory" in run.errors[0]


# --- going back ----------------------------------------------------------------------------------


def test_what_a_resumed_run_logs_again_is_kept_and_sent_once(
    make_memory, make_line, make_loader, read
):
    """Killed at step 7 after a checkpoint at step 5, by an error; resumed to the end."""

    class Broken(make_line):
        fails = True

        def training_step(self, batch, run):
            if run.global_step == 7 and self.fails:
                raise ZeroDivisionError
            return super().training_step(batch, run)

    memory = make_memory()
    with pytest.raises(ZeroDivisionError):
        Trainer(epochs=2, plugins=[Checkpoint(keep_last=5), memory]).fit(Broken(), make_loader(5))
    sent = memory.steps("train/loss")
    task = Broken()
    task.fails = False
    (directory,) = Path("runs").iterdir()
    path = next(directory.glob("checkpoints/step-00000005"))
    trainer = Trainer(epochs=2, plugins=[Checkpoint(keep_last=5), memory])
    run = trainer.fit(task, make_loader(5), resume=path)
    assert run.dir.resolve() == directory.resolve()
    assert sent == [1, 2, 3, 4, 5, 6, 7]
    assert memory.steps("train/loss") == list(range(1, 11))
    assert memory.states[1] == {"starts": 1}, "the same remote run"
    assert list(read(run).series("train/loss").steps) == list(range(1, 11))


def test_values_that_differ_after_a_return_are_kept_and_the_older_ones_are_not_shown(journal):
    for step in range(1, 6):
        journal.append([metrics(step, loss=float(step))])
    journal.append([Entry("event", 0.0, 3, {"event": "resume"})])
    journal.go_back()
    journal.append([metrics(4, loss=4.0), metrics(5, loss=50.0), metrics(6, loss=6.0)])
    for each in (journal, again(journal)):
        assert each.series("loss").steps.tolist() == [1, 2, 3, 4, 5, 6]
        assert each.series("loss").values.tolist() == [1.0, 2.0, 3.0, 4.0, 50.0, 6.0]
    records = [dict(each.body) for each in journal.after(6) if each.kind == "metrics"]
    assert records == [{"loss": 50.0}, {"loss": 6.0}]


def test_a_step_that_goes_back_without_a_resume_is_kept(journal):
    journal.append([metrics(step, loss=0.0) for step in (1, 2, 3, 2, 3)])
    assert journal.series("loss").steps.tolist() == [1, 2, 3, 2, 3]


def test_parameters_that_are_told_again_are_kept_once(journal):
    for params in ({"a": 1, "b": 2}, {"a": 1}, {"b": 3}):
        journal.append([Entry("params", 0.0, 0, params)])
    assert [each.body for each in journal.records("params")] == [{"a": 1, "b": 2}, {"b": 3}]
    assert again(journal).params() == {"a": 1, "b": 3}


# --- values --------------------------------------------------------------------------------------

NAMES = ["größe, in µm", "日本/損失 (raw)", "a" * 5000, "with 'quotes' and \"more\"", "tab\tand\n"]


def test_any_name_and_any_number_comes_back(journal):
    values = [math.nan, math.inf, -math.inf, 0.1 + 0.2, 1e308, -0.0]
    for step, value in enumerate(values):
        journal.append([metrics(step, **dict.fromkeys(NAMES, value))])
    for each in (journal, again(journal)):
        assert each.names() == sorted(NAMES)
        for name in NAMES:
            assert list(map(repr, each.series(name).values)) == list(map(repr, values))
    records = again(journal).after(0)
    assert [repr(record.body[NAMES[0]]) for record in records] == list(map(repr, values))


def test_ten_thousand_parameters(journal):
    params = {f"layer {i}": {"rate": i / 7} for i in range(10_000)}
    journal.append([Entry("params", 0.0, 0, params)])
    assert again(journal).params() == params


def test_records_from_memory_and_from_the_file_are_the_same(journal):
    entries = [metrics(i, i / 10, a=float(i), **({"b": 0.5} if i % 3 else {})) for i in range(700)]
    entries[5] = Entry("params", 1.0, 5, {"x": [1, "two"]})
    entries[600] = Entry("tags", 2.0, 600, {"x": "y"})
    for start in range(0, 700, 70):
        journal.append(entries[start : start + 70])
    from_file = again(journal)
    for position, limit in ((0, 1000), (3, 4), (69, 2), (650, 1000), (699, 5), (700, 5)):
        assert journal.after(position, limit) == from_file.after(position, limit)
    assert [record.number for record in from_file.after(3, 4)] == [4, 5, 6, 7]


def test_the_file_is_read_while_it_is_written(journal):
    journal.append([metrics(1, loss=1.0)])
    reader = again(journal)
    journal.append([metrics(2, loss=2.0)])
    assert reader.series("loss").steps.tolist() == [1, 2]


def test_a_failed_write_leaves_the_file_as_it_was(journal):
    journal.append([metrics(1, loss=1.0)])
    with pytest.raises(RecordRejected, match="too big"):
        journal.append([metrics(2, loss=2.0), metrics(2**70, loss=2.0)])
    journal.append([metrics(2, loss=2.0)])
    assert again(journal).series("loss").steps.tolist() == [1, 2]
    assert journal.last == again(journal).last == 2


# --- opening -------------------------------------------------------------------------------------


def test_a_directory_without_a_journal(tmp_path):
    with pytest.raises(JournalError, match="no run logged there"):
        JournalFile.open(tmp_path / "journal.db")


def test_a_file_that_is_no_database(tmp_path):
    path = tmp_path / "journal.db"
    path.write_bytes(b"not a database at all" * 100)
    for open_it in (JournalFile.open, JournalFile.create):
        with pytest.raises(JournalError, match=r"journal\.db: file is not a database"):
            open_it(path)


def test_a_journal_of_another_format(journal):
    journal.append([metrics(1, loss=1.0)])
    journal.close()
    with closing(sqlite3.connect(journal.path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(JournalError, match="a journal of format 99, this trainbus reads format 1"):
        JournalFile.open(journal.path)


def test_a_database_of_another_program_is_no_journal_whatever_its_version(tmp_path):
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(JournalError, match="it has no table 'about'"):
        JournalFile.open(path)


def test_a_journal_on_a_medium_that_cannot_be_written(journal, tmp_path):
    journal.append([metrics(1, loss=1.0)])
    journal.close()
    # A copy alone, as on a read-only medium: neither `-wal` nor `-shm` beside it.
    copy = tmp_path / "elsewhere" / "journal.db"
    copy.parent.mkdir()
    copy.write_bytes(journal.path.read_bytes())
    copy.chmod(0o444)
    copy.parent.chmod(0o555)
    try:
        assert JournalFile.open(copy).series("loss").values.tolist() == [1.0]
    finally:
        copy.parent.chmod(0o755)

"""`trainbus replay`: a logger receives what it lacks, once, whatever happened to the run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainbus import JournalFile, Trainer
from trainbus.builtin import Checkpoint, Journal
from trainbus.records.journal import Entry
from trainbus.storage.lock import lock
from trainbus.testing import Line, make_line_loader

#: A logger that appends what it receives to a file; it keeps in its state what a service would.
LINES = '''
import json
import os
import time as clock
from pathlib import Path

from trainbus import PluginError, RecordRejected, hookimpl


class Lines:
    """Args: file, where to; token, what the service wants to see."""

    observer = True

    def __init__(self, file: str = "lines.jsonl", token: str = "t", slow: float = 0.0):
        self.file, self.token, self.slow = file, token, slow

    def _write(self, **what):
        if Path("down").exists():
            raise ConnectionError("the service is down")
        with open(self.file, "a") as file:
            file.write(json.dumps(what) + "\\n")

    @hookimpl
    def on_log_start(self, run):
        if self.token != "t":
            raise PluginError("plugin 'lines': no token: -o lines.token=t")
        run.state.setdefault("remote", clock.time_ns())
        run.header["lines"] = f"cat {self.file}"
        self._write(start=run.state["remote"], id=run.id, replay=run.replay, rank=run.rank)

    @hookimpl
    def on_params(self, run, params):
        self._write(params=params)

    @hookimpl
    def on_tags(self, run, tags):
        self._write(tags=tags)

    @hookimpl
    def on_metrics(self, run, step, metrics, time):
        if "train/rejected" in metrics:
            raise RecordRejected("no such metric, please")
        clock.sleep(self.slow)
        if step > int(os.environ.get("DOWN_AFTER", 10**9)):
            raise ConnectionError("the service is down")
        self._write(step=step, metrics=metrics, time=time, record=run.record)

    @hookimpl
    def on_artifact(self, run, artifact):
        self._write(artifact=artifact.name, value=str(artifact.value))

    @hookimpl
    def on_log_end(self, run, status):
        self._write(end=status)


class AllRanks(Lines):
    all_ranks = True
'''
TO = ("--to", "loggers:Lines", "-o", "lines.file=lines.jsonl")


class Fitting(Line):
    """A line that may fail at a step."""

    stops_at = None

    def __init__(self):
        super().__init__(lr=0.01)

    def training_step(self, batch, run):
        if run.global_step == self.stops_at:
            raise ZeroDivisionError("a bug")
        return super().training_step(batch, run)


@pytest.fixture(autouse=True)
def loggers(tmp_path, monkeypatch):
    """The logger is a module that can be imported: `--to loggers:Lines` names it `lines`."""
    (tmp_path / "loggers.py").write_text(LINES)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    sys.modules.pop("loggers", None)
    yield
    sys.modules.pop("loggers", None)


@pytest.fixture
def data():
    return make_line_loader(10)


@pytest.fixture
def fit(data):
    """`fit(*plugins)`: the directory of a run of ten steps."""

    def start(*plugins, task=None, **options):
        run = Trainer(plugins=plugins, **options).fit(task or Fitting(), data)
        return run.dir.relative_to(Path.cwd())

    return start


def lines(path="lines.jsonl"):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def of(key, path="lines.jsonl"):
    return [line[key] for line in lines(path) if key in line]


def read(directory):
    return JournalFile.open(directory / "journal.db")


# --- what is sent --------------------------------------------------------------------------------


def test_a_finished_run_is_sent_to_a_logger_that_it_did_not_have(trainbus, fit):
    directory = fit()
    done = trainbus("replay", "latest", *TO)
    with read(directory) as journal:
        assert done.stdout.splitlines() == [
            f"sent {journal.last} records of {directory} to lines", "lines: cat lines.jsonl",
        ]  # fmt: skip
        steps, times, values = journal.series("train/loss")
        assert journal.logger("lines").ended
        assert journal.about()["header"]["lines"] == "cat lines.jsonl"
    sent = [line for line in lines() if "train/loss" in line.get("metrics", {})]
    assert [line["step"] for line in sent] == list(steps)
    assert [line["time"] for line in sent] == list(times)
    assert [line["metrics"]["train/loss"] for line in sent] == list(values)
    assert of("params") == [{"lr": 0.01}]
    (first, *_, last) = lines()
    assert (first["id"], first["replay"], first["rank"]) == (directory.name, True, 0)
    assert last == {"end": "completed"}


def test_what_was_sent_is_not_sent_again(trainbus, fit):
    directory = fit()
    trainbus("replay", "latest", *TO)
    before = lines()
    with read(directory) as journal:
        last = journal.last
    done = trainbus("replay", "latest", *TO)
    assert done.stdout == f"lines has all {last} records of {directory}\n"
    assert lines() == before


def test_again_sends_all_as_a_new_remote_run(trainbus, fit):
    fit()
    trainbus("replay", "latest", *TO)
    first = lines()
    trainbus("replay", "latest", *TO, "--again")
    second = lines()[len(first) :]
    assert second[0]["start"] != first[0]["start"]
    assert second[1:] == first[1:]


def test_a_refusal_to_begin_again_forgets_nothing(trainbus, fit):
    directory = fit()
    trainbus("replay", "latest", *TO)
    with read(directory) as journal:
        before = journal.logger("lines")
    done = trainbus("replay", "latest", *TO, "--again", "-o", "lines.token=x", status=2)
    assert done.stderr == "error: plugin 'lines': no token: -o lines.token=t\n"
    with read(directory) as journal:
        assert journal.logger("lines") == before


def test_several_runs_are_sent_one_after_another(trainbus, fit):
    directories = [fit(), fit()]
    trainbus("replay", *(path.name for path in directories), *TO)
    assert of("id") == [path.name for path in directories]
    assert len(set(of("start"))) == 2
    assert of("end") == ["completed"] * 2


def test_artifacts_are_sent_as_they_were_logged(trainbus, data):
    trainer = Trainer()

    @trainer.on("fit_start")
    def log(run):
        run.log_tags({"team": "vision"})
        run.log_artifact("note", "**hello**", "text")
        run.log_artifact("table", [{"a": 1}], "table")

    trainer.fit(Fitting(), data)
    trainbus("replay", "latest", *TO)
    assert of("tags") == [{"team": "vision"}]
    assert of("value") == ["**hello**", "[{'a': 1}]"]


def test_an_artifact_that_is_gone_is_left_out_with_a_message(trainbus, data):
    trainer = Trainer()
    trainer.on("fit_start")(lambda run: run.log_artifact("note", "x", "text"))
    directory = trainer.fit(Fitting(), data).dir
    next((directory / "artifacts").iterdir()).unlink()
    done = trainbus("replay", "latest", *TO)
    assert "leaves something out: text 'note'" in done.stderr
    assert of("artifact") == [] and of("end") == ["completed"]


def test_a_record_that_the_logger_rejects_is_left_out_with_a_message(trainbus, data):
    trainer = Trainer()
    trainer.on("epoch_end")(lambda run: run.log({"rejected": 1.0}))
    trainer.fit(Fitting(), data)
    done = trainbus("replay", "latest", *TO)
    assert done.stderr.count("no such metric, please") == 1
    assert of("end") == ["completed"]


# --- what happened to the run --------------------------------------------------------------------


def test_the_status_of_a_failed_run_is_sent(trainbus, data):
    task = Fitting()
    task.stops_at = 5
    with pytest.raises(ZeroDivisionError):
        Trainer().fit(task, data)
    trainbus("replay", "latest", *TO)
    assert of("end") == ["failed"]
    assert of("step") == [1, 2, 3, 4, 5]


TRAIN = """
import time
from trainbus import Trainer
from trainbus.builtin import Journal
from trainbus.testing import Line, make_line_loader

class Slow(Line):
    def training_step(self, batch, run):
        time.sleep(0.005)
        run.log(step=run.global_step + 1)
        return super().training_step(batch, run)

Trainer(plugins=[Journal(seconds=0.1)], epochs=1000).fit(Slow(lr=0.1), make_line_loader(50))
"""


def test_a_killed_training_is_refused_while_it_lives_and_sent_when_it_is_dead(trainbus, tmp_path):
    (tmp_path / "train.py").write_text(TRAIN)
    process = subprocess.Popen([sys.executable, "train.py"])
    try:
        steps = 0
        while steps < 20:
            assert process.poll() is None
            time.sleep(0.1)
            runs = trainbus("runs", "--json").stdout if Path("runs").is_dir() else "[]"
            steps = max((run.get("steps", 0) for run in json.loads(runs)), default=0)
        (directory,) = Path("runs").iterdir()
        assert json.loads(trainbus("runs", "--json").stdout)[0]["status"] == "running"
        error = trainbus("replay", "latest", *TO, status=2).stderr
        assert error == f"error: {directory} is at work: its own loggers deliver what it logs\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert json.loads(trainbus("runs", "--json").stdout)[0]["status"] == "killed"
    trainbus("replay", "latest", *TO)
    assert of("end") == ["interrupted"]
    assert of("params") == [{"lr": 0.1}]
    with read(directory) as journal:
        logged = [int(value) for value in journal.series("train/step").values]
    assert logged == list(range(1, len(logged) + 1)) and len(logged) > 10
    sent = [
        line["metrics"]["train/step"] for line in lines() if "train/step" in line.get("metrics", {})
    ]
    assert sent == logged


def test_what_a_logger_missed_of_a_run_follows_in_the_same_remote_run(
    trainbus, fit, monkeypatch, tmp_path
):
    """The service goes down at step 4, and the logger is given up at the end of the run."""
    monkeypatch.setenv("DOWN_AFTER", "4")
    import loggers

    directory = fit(loggers.Lines(), Journal(patience=0.3, finish_seconds=1))
    assert of("step") == [1, 2, 3, 4]
    trainbus("replay", "latest", *TO, "--patience", "0.3", status=1)
    monkeypatch.delenv("DOWN_AFTER")
    trainbus("replay", "latest", *TO)
    assert len(set(of("start"))) == 1
    assert of("replay") == [False, True, True]
    assert of("step") == [*range(1, 11), 10]  # the mean of the epoch is at step 10, too
    assert of("record") == sorted(set(of("record")))
    assert of("end") == ["completed"]
    trainbus("runs", "show", str(directory))


def test_a_service_that_is_down_is_told_and_nothing_is_lost(trainbus, fit, tmp_path):
    directory = fit()
    trainbus("replay", "latest", *TO)  # so that the file is there
    (tmp_path / "lines.jsonl").unlink()
    (tmp_path / "down").touch()
    done = trainbus("replay", "latest", *TO, "--again", "--patience", "0.5", status=1)
    assert "ConnectionError: the service is down" in done.stderr
    assert "Traceback" not in done.stderr
    (tmp_path / "down").unlink()
    trainbus("replay", "latest", *TO, "--again")
    assert of("step") == [*range(1, 11), 10]
    assert directory.is_dir()


def test_a_failure_in_the_middle_names_reason_and_remedy(trainbus, fit, monkeypatch):
    directory = fit()
    monkeypatch.setenv("DOWN_AFTER", "6")
    done = trainbus("replay", "latest", *TO, "--patience", "0.3", status=1)
    (message,) = done.stderr.splitlines()
    said = "error: plugin 'lines' (loggers:Lines): ConnectionError: the service is down"
    assert message.startswith(said)
    assert f"trainbus replay {directory.resolve()} --to lines" in message
    shown = trainbus("runs", "show", "latest").stdout
    assert f"lacks 6 of 14 records: trainbus replay {directory} --to lines" in shown


def test_what_a_resumed_run_logged_again_is_sent_once(trainbus, data):
    """More than a thousand repeats, which is more than is read at once, and then the rest."""
    task = Fitting()
    task.stops_at = 1200
    plugins = [Checkpoint(every_steps=100, every_epochs=1000, keep_last=50)]
    with pytest.raises(ZeroDivisionError):
        Trainer(plugins=plugins, epochs=123).fit(task, data)
    (directory,) = Path("runs").iterdir()
    task.stops_at = None
    path = min(directory.glob("checkpoints/step-*"))
    Trainer(plugins=plugins, epochs=123).fit(task, data, resume=path)
    trainbus("replay", "latest", *TO)
    assert [x["step"] for x in lines() if "train/loss" in x.get("metrics", {})] == list(
        range(1, 1231)
    )
    assert of("end") == ["completed"]


def test_records_behind_many_repeats_are_found(tmp_path):
    with JournalFile.create(tmp_path / "journal.db") as journal:
        journal.append([("metrics", 0.0, i, {"a": float(i)}) for i in range(3000)])
        journal.append([Entry("event", 0.0, 5, {"event": "resume"})])
        journal.go_back()
        journal.append([("metrics", 1.0, i, {"a": float(i)}) for i in range(6, 3003)])
        from_memory = journal.after(3001)
    with JournalFile.open(tmp_path / "journal.db") as journal:
        assert [record.step for record in journal.after(3001)] == [3000, 3001, 3002]
        assert journal.after(3001) == from_memory


def test_all_processes_of_a_run_are_sent_to_a_logger_that_wants_them(trainbus, fit):
    directory = fit()
    with JournalFile.create(directory / "journal-rank1.db") as journal:
        journal.tell(id=directory.name, name="Fitting", started=0.0, header={})
        journal.append([Entry("metrics", 0.0, 1, {"train/loss": 7.0})])
    trainbus("replay", "latest", *TO)
    assert of("rank") == [0]
    done = trainbus(
        "replay", "latest", "--to", "loggers:AllRanks", "-o", "all_ranks.file=all.jsonl"
    )
    assert of("rank", "all.jsonl") == [0, 1]
    assert f"sent 1 records of {directory} (rank 1) to all_ranks" in done.stdout


# --- interruption --------------------------------------------------------------------------------


def test_ctrl_c_keeps_what_was_sent_and_the_next_replay_goes_on(trainbus, data, tmp_path):
    Trainer(epochs=30).fit(Fitting(), data)
    process = subprocess.Popen(
        [sys.executable, "-m", "trainbus", "replay", "latest", *TO, "-o", "lines.slow=0.1"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    shown = {}
    while not shown.get("lines", {}).get("has"):
        assert process.poll() is None
        time.sleep(0.1)
        shown = json.loads(trainbus("runs", "show", "latest", "--json").stdout)["loggers"]
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "goes on from here" in error and "Traceback" not in error
    before = len(of("step"))
    assert before < 330
    trainbus("replay", "latest", *TO)
    records = of("record")
    assert sorted(set(records)) == list(range(min(records), max(records) + 1))
    assert len(records) - len(set(records)) < 100  # of the last second, at most
    assert of("step")[-1] == 300
    assert len(set(of("start"))) == 1


# --- mistakes ------------------------------------------------------------------------------------

MISTAKES = {
    "no logger named": (["replay", "latest"], "Missing option '--to'"),
    "no run named": (["replay", "--to", "loggers:Lines"], "Missing argument 'RUN...'"),
    "no such run": (["replay", "lastest", *TO], "there is no run 'lastest' in runs"),
    "no journal": (["replay", "empty", *TO], "empty has no journal.db"),
    "a damaged journal": (["replay", "torn", *TO], "cannot read torn/journal.db"),
    "not installed": (["replay", "latest", "--to", "wandbb"], "no plugin 'wandbb' is installed"),
    "no logger": (["replay", "latest", "--to", "clip"], "plugin 'clip' (trainbus "),
    "no logger, either": (["replay", "latest", "--to", "clip"], "is no logger: it does not listen"),
    "no file": (["replay", "latest", "--to", "./log.py"], "'log.py' does not exist"),
    "an unknown option": (
        ["replay", "latest", *TO, "-o", "lines.fiel=x"], "did you mean 'file'?",
    ),
    "an ill-typed option": (
        ["replay", "latest", *TO, "-o", "lines.slow=very"], "-o lines.slow: option 'slow'",
    ),
    "an option of another plugin": (
        ["replay", "latest", *TO, "-o", "linse.file=x"], "did you mean 'lines'?",
    ),
    "no credentials": (
        ["replay", "latest", *TO, "-o", "lines.token=x"], "no token: -o lines.token=t",
    ),
    "patience below zero": (["replay", "latest", *TO, "--patience", "-1"], "--patience"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_message(arguments, message, trainbus, tmp_path):
    for name in ("runs/a", "empty", "torn"):
        (tmp_path / name).mkdir(parents=True)
    with JournalFile.create(tmp_path / "runs" / "a" / "journal.db") as journal:
        journal.tell(id="a", name="Net", started=0.0, header={})
    (tmp_path / "torn" / "journal.db").write_text("no database" * 1000)
    error = trainbus(*arguments, status=2).stderr
    assert message in error
    assert "Traceback" not in error


def test_a_run_that_this_process_holds_is_at_work(trainbus, fit):
    directory = fit()
    held = lock(directory)
    try:
        assert "is at work" in trainbus("replay", "latest", *TO, status=2).stderr
    finally:
        held.release()
    trainbus("replay", "latest", *TO)


def test_a_directory_that_cannot_be_written_is_explained(trainbus, fit):
    if os.geteuid() == 0:
        pytest.skip("root writes everywhere")
    directory = fit()
    directory.chmod(0o500)
    try:
        assert "cannot write" in trainbus("replay", "latest", *TO, status=2).stderr
    finally:
        directory.chmod(0o700)


# --- where the logger and its options come from --------------------------------------------------


def test_the_project_and_the_environment_set_options(trainbus, fit, tmp_path, monkeypatch):
    fit()
    (tmp_path / "trainbus.toml").write_text(
        'plugins = ["loggers:Lines"]\n[options.lines]\nfile = "of-project.jsonl"\n'
    )
    trainbus("replay", "latest", "--to", "lines")
    assert of("end", "of-project.jsonl") == ["completed"]
    monkeypatch.setenv("TRAINBUS_LINES_FILE", "unseen.jsonl")  # the fixture takes it away
    trainbus("replay", "latest", "--to", "lines", "--again", "-o", "lines.file=of-shell.jsonl")
    assert of("end", "of-shell.jsonl") == ["completed"]


def test_the_environment_sets_options(fit, process):
    fit()
    to = ("--to", "loggers:Lines")
    process("replay", "latest", *to, TRAINBUS_LINES_FILE="of-environment.jsonl")
    assert of("end", "of-environment.jsonl") == ["completed"]


def test_other_plugins_of_the_project_are_not_loaded(trainbus, fit, tmp_path):
    fit()
    (tmp_path / "trainbus.toml").write_text('plugins = ["./broken.py"]\n')
    (tmp_path / "broken.py").write_text("1 / 0")
    trainbus("replay", "latest", *TO)
    assert of("end") == ["completed"]


def test_a_file_may_be_the_logger(trainbus, fit, tmp_path):
    fit()
    (tmp_path / "mine.py").write_text(
        "from trainbus import hookimpl\n\n"
        "@hookimpl\ndef on_log_start(run): pass\n\n"
        "@hookimpl\ndef on_metrics(step): open('steps', 'a').write(f'{step} ')\n"
    )
    trainbus("replay", "latest", "--to", "./mine.py")
    assert (tmp_path / "steps").read_text().split() == [*map(str, range(1, 11)), "10"]


def test_tensorboard_receives_a_run_that_did_not_have_it(trainbus, fit):
    pytest.importorskip("trainbus_tensorboard")
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    directory = fit()
    trainbus("replay", "latest", "--to", "tensorboard")
    (path,) = {file.parent for file in directory.rglob("events.out.tfevents*")}
    events = event_accumulator.EventAccumulator(str(path))
    events.Reload()
    with read(directory) as journal:
        steps, _, values = journal.series("train/loss")
    found = events.Scalars("train/loss") if "train/loss" in events.Tags()["scalars"] else []
    if not found:  # written as tensors
        found = events.Tensors("train/loss")
        assert [each.step for each in found] == list(steps)
    else:
        assert [each.step for each in found] == list(steps)
        assert [each.value for each in found] == pytest.approx(list(values))

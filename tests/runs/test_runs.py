"""`trainbus runs`: what is told of runs is what their journals hold, and bad input is explained."""

import csv
import io
import json
import math
import os
import platform
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from trainbus import JournalFile, Trainer, terminal
from trainbus.records.journal import Entry, LoggerState
from trainbus.runs import chart
from trainbus.runs.plot_page import log_ticks, ticks
from trainbus.runs.stored_run import StoredRun
from trainbus.testing import Line


class Fitting(Line):
    """A line with an accuracy."""

    def __init__(self, lr):
        super().__init__(lr=lr, model={"width": 4, "bias": True})

    def validation_step(self, batch, run):
        run.log(accuracy=1 / (1 + super().validation_step(batch, run)))

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A directory of two runs of 12 steps that differ in `lr`; the second is the better one."""
    directory = tmp_path_factory.mktemp("trained") / "runs"
    torch.manual_seed(0)
    x = torch.randn(16, 4)
    batches = [(x[i : i + 4], x[i : i + 4].sum(1, keepdim=True)) for i in range(0, 16, 4)]
    for lr in (0.01, 0.1):
        trainer = Trainer(epochs=3, seed=1, run_dir=directory)

        @trainer.on("fit_start")
        def describe(run):
            run.log_tags({"team": "vision"})
            run.log_artifact("note", "**done**", "text")

        trainer.fit(Fitting(lr), batches, batches[:1])
    return directory


@pytest.fixture
def runs(trainbus, trained):
    """`runs(verb, *arguments)`: `trainbus runs` on the trained ones."""
    return lambda verb, *arguments, status=0: trainbus(
        "runs", verb, *arguments, "--dir", str(trained), status=status
    )


@pytest.fixture
def make_run(tmp_path):
    """`make_run(name, *entries, **about)`: a run of these records, in `runs`."""

    def make(name, *entries, loggers=None, **about):
        directory = tmp_path / "runs" / name
        directory.mkdir(parents=True)
        told = {
            "id": name, "name": "Net", "stage": "train", "started": 1000.0, "host": "elsewhere",
            "pid": 1, "command": ["train.py"], "version": "0.1.0", "header": {"device": "cpu"},
        }  # fmt: skip
        with JournalFile.create(directory / "journal.db") as journal:
            journal.tell(**told | about)
            sessions = [[]]
            for entry in entries:
                if entry.body.get("event") == "start":
                    sessions.append([])
                sessions[-1].append(entry)
            for session in sessions:
                journal.append(session)
            for logger, state in (loggers or {}).items():
                journal.set_logger(logger, state)
        return directory

    return make


def event(kind, time, step=0, **body):
    return Entry("event", time, step, {"event": kind, **body})


def end(time, step=0, status="completed", reason=None):
    return event("end", time, step, status=status, reason=reason)


def metrics(step, time=None, **values):
    return Entry("metrics", 1000.0 + step if time is None else time, step, values)


def rows_of(output):
    return [re.split(r" {2,}", line.strip()) for line in output.splitlines() if line.strip()]


# --- the list ------------------------------------------------------------------------------------


def test_the_newest_run_is_first_with_status_steps_and_metrics(runs, trained):
    head, newest, oldest = rows_of(runs("list").stdout)
    assert head[:5] == ["run", "status", "started", "time", "steps"]
    assert [oldest[0], newest[0]] == sorted(path.name for path in trained.iterdir())
    assert newest[1] == "completed" and newest[4] == "12"
    assert head[5:8] == ["valid/accuracy", "valid/loss", "train/loss_epoch"]


def test_runs_alone_lists_those_in_the_directory_runs(trainbus, trained, monkeypatch):
    monkeypatch.chdir(trained.parent)
    assert len(trainbus("runs").stdout.splitlines()) == 3
    assert trainbus("runs").stdout == trainbus("runs", str(trained)).stdout
    assert trainbus("runs").stdout == trainbus("runs", "list", "--dir", "runs").stdout


def test_the_list_for_programs_has_all_metrics(runs, trained):
    newest, oldest = json.loads(runs("list", "--json").stdout)
    assert newest["started"] > oldest["started"]
    with JournalFile.open(trained / newest["run"] / "journal.db") as journal:
        assert newest["metrics"] == {n: journal.series(n).values[-1] for n in journal.names()}
    assert Path(newest["dir"]).samefile(trained / newest["run"])


def test_runs_are_sorted_by_the_best_value_of_a_metric(trainbus, make_run):
    for name, values in {"good": (0.9, 0.1), "bad": (0.2, 0.3), "nan": (math.nan,)}.items():
        make_run(name, *(metrics(i, **{"valid/f1": v}) for i, v in enumerate(values)), end(2000.0))
    make_run("none", end(2000.0))
    highest = json.loads(trainbus("runs", "--highest", "valid/f1", "--json").stdout)
    assert [each["run"] for each in highest][:2] == ["good", "bad"]
    assert highest[0]["highest"] == {"valid/f1": 0.9}
    lowest = rows_of(trainbus("runs", "--lowest", "valid/f1").stdout)
    assert lowest[0][5] == "lowest valid/f1"
    assert [each[0] for each in lowest[1:3]] == ["good", "bad"]
    assert {each[0] for each in lowest[3:]} == {"nan", "none"}


def test_metrics_to_list_are_chosen_by_name_or_pattern(runs):
    head = rows_of(runs("list", "--metric", "train/loss", "--metric", "valid/*").stdout)[0]
    assert head[5:] == ["train/loss", "valid/accuracy", "valid/loss"]


def test_a_directory_of_runs_without_any_is_told(trainbus, tmp_path):
    (tmp_path / "runs").mkdir()
    assert trainbus("runs").stdout == "no run with a journal in runs\n"
    assert json.loads(trainbus("runs", "--json").stdout) == []


def test_a_damaged_journal_hides_no_other_run(trainbus, make_run, tmp_path):
    make_run("whole", end(2000.0))
    (make_run("torn", end(2000.0)) / "journal.db").write_bytes(b"no database" * 100)
    done = trainbus("runs")
    assert [row[0] for row in rows_of(done.stdout)] == ["run", "whole"]
    assert "damaged: cannot read" in done.stderr and "torn" in done.stderr
    told = json.loads(trainbus("runs", "--json").stdout)
    assert [each["status"] for each in told] == ["completed", "damaged"]


def test_no_listing_imports_torch(trained, python, monkeypatch):
    script = (
        "import sys; from trainbus.cli import main\n"
        "main(['runs']); main(['runs', 'show', 'latest']); main(['runs', 'plot', 'latest'])\n"
        "main(['runs', 'compare', *sys.argv[1:]]); main(['runs', 'export', 'latest'])\n"
        "import trainbus.runs.replay\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'matplotlib', 'pyarrow')))"
    )
    monkeypatch.chdir(trained.parent)
    python("-c", script, *(path.name for path in trained.iterdir()))
    (trained.parent / "runs.html").unlink()


def test_reading_leaves_nothing_behind(trainbus, make_run):
    directory = make_run("a", metrics(1, loss=1.0), end(2000.0))
    for arguments in (["list"], ["show", "a"], ["export", "a"], ["plot", "a"]):
        trainbus("runs", *arguments)
    assert [path.name for path in directory.iterdir()] == ["journal.db"]


# --- statuses and times --------------------------------------------------------------------------


def status_of(directory):
    run = StoredRun(directory)
    try:
        return run.status
    finally:
        run.close()


HERE = platform.node()


def test_a_run_without_an_end_is_running_while_its_process_is_alive(make_run):
    start = event("start", 1000.0)
    assert status_of(make_run("a", start, host=HERE, pid=os.getpid())) == "running"
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert status_of(make_run("b", start, host=HERE, pid=process.pid)) == "killed"
    assert status_of(make_run("c", start, host="elsewhere", pid=os.getpid())) == "unfinished"


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_a_process_of_the_same_number_that_does_not_hold_the_run_is_another(make_run):
    directory = make_run("a", event("start", 1000.0), host=HERE, pid=os.getpid())
    (directory / ".lock").touch()
    assert status_of(directory) == "killed"


def test_an_end_before_a_resumption_is_not_the_end(make_run):
    first = [event("start", 1000.0), end(1010.0, status="interrupted")]
    assert status_of(make_run("a", *first)) == "interrupted"
    assert status_of(make_run("b", *first, event("start", 2000.0))) == "unfinished"


def test_the_time_at_work_leaves_out_what_was_between_two_starts(make_run):
    directory = make_run(
        "a",
        event("start", 1000.0), metrics(1, 1030.0, loss=1.0),
        event("start", 5000.0), event("resume", 5001.0, 1), metrics(2, 5010.0, loss=1.0),
        end(5012.0, 2),
    )  # fmt: skip
    run = StoredRun(directory)
    assert run.seconds == 42.0
    assert run.steps == 2
    run.close()


def test_the_steps_of_a_killed_run_are_those_of_its_newest_record(make_run):
    run = StoredRun(make_run("a", event("start", 1000.0), metrics(7, loss=1.0)))
    assert (run.steps, run.seconds) == (7, 7.0)
    run.close()


# --- one run -------------------------------------------------------------------------------------


def test_show_tells_all_that_is_known(runs, trained):
    output = runs("show", "latest").stdout
    for line in (
        r"status +completed",
        r"device +cpu.*",
        r"  lr +0\.1",
        r"  model\.width +4",
        r"  team +vision",
        r"  train/loss +[\d.]+ +[\d.]+ +[\d.]+ +12  [▁▂▃▄▅▆▇█]{12}",
        r"  note +text +step 0 +8 B +artifacts/note-0-\w+\.md",
        r"  [\d: +-]{25} +step 12 +end +completed",
    ):
        assert re.search(f"^{line}$", output, re.MULTILINE), line


def test_show_for_programs_holds_numbers_of_each_metric(trainbus, make_run):
    values = (1.0, math.nan, -3.0, math.inf)
    make_run("a", *(metrics(i, loss=value) for i, value in enumerate(values)), end(2000.0))
    told = json.loads(trainbus("runs", "show", "a", "--json").stdout)
    assert told["metrics"]["loss"] == {
        "last": "inf", "lowest": -3.0, "highest": 1.0, "count": 4, "not_finite": 2
    }  # fmt: skip
    assert told["events"][-1]["event"] == "end"


def test_show_tells_what_each_logger_lacks_and_what_sends_it(trainbus, make_run):
    made = make_run(
        "my run", *(metrics(i, loss=1.0) for i in range(9)), end(2000.0, 9),
        loggers={
            "all": LoggerState(10, {}, True),
            "half": LoggerState(4, {}, False),
            "unfinished": LoggerState(10, {}, False),
        },
    )  # fmt: skip
    rows = {row[0]: row[1] for row in rows_of(trainbus("runs", "show", "my").stdout)[-3:]}
    assert rows["all"] == "has all 10 records"
    assert rows["half"] == "lacks 6 of 10 records: trainbus replay 'runs/my run' --to half"
    assert rows["unfinished"].startswith("was not told of the end: trainbus replay ")
    assert made.is_dir()


def test_repeats_behind_a_resumption_are_not_lacking(trainbus, make_run):
    """A logger that has what the run logged before its kill has what it logs again."""
    directory = make_run("a", *(metrics(i, loss=1.0) for i in range(1, 6)))
    with JournalFile.create(directory / "journal.db") as journal:
        journal.append([event("resume", 1010.0, 2)])
        journal.go_back()
        journal.set_logger("jsonl", LoggerState(journal.last, {}, True))
        journal.append([metrics(i, loss=1.0) for i in (3, 4)])
    output = trainbus("runs", "show", "a").stdout
    assert re.search(r"jsonl +has all", output)


def test_an_artifact_that_is_gone_is_told(trainbus, make_run):
    body = {"name": "w", "kind": "file", "path": "gone.bin", "bytes": 2048, "sha256": ""}
    make_run("a", Entry("artifact", 1000.0, 3, body), end(2000.0))
    output = trainbus("runs", "show", "a").stdout
    assert re.search(r"w +file +step 3 +2\.05 kB +gone\.bin \(not there any more\)", output)


@pytest.mark.parametrize(
    ("values", "columns", "drawn"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"),
        ([0] * 50 + [1] * 50, 4, "▁▁██"),
        ([5.0], 8, "▅"),
        ([0.1 + 0.2] * 1000 + [0.3], 7, "▅▅▅▅▅▅▅"),
        ([1, math.nan, math.inf, 2], 4, "▁  █"),
        ([math.nan], 4, " "),
        ([-1.7e308, 1.7e308], 4, "▁█"),
        ([], 4, ""),
    ],
)
def test_sparklines(values, columns, drawn):
    assert terminal.sparkline(values, columns) == drawn


def test_a_sparkline_is_ascii_where_the_terminal_has_no_blocks(process, make_run):
    make_run("a", metrics(1, loss=0.0), metrics(2, loss=1.0), end(2000.0))
    done = process("runs", "show", "a", PYTHONIOENCODING="ascii")
    assert re.search(r"loss +1 +0 +1 +2  _#\n", done.stdout)


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(1.25, "1.2 s"), (245, "4:05"), (3723, "1:02:03"), (273900, "3 d 04:05")],
)
def test_durations(seconds, written):
    assert terminal.duration(seconds) == written


# --- which run is meant --------------------------------------------------------------------------


def test_a_run_is_named_by_path_id_part_or_latest(trainbus, make_run, monkeypatch):
    make_run("2026-01-01_Net", end(2000.0), started=1.0)
    newest = make_run("2025-12-31_Net", end(2000.0), started=2.0)
    for name in (
        "2025-12-31_Net", "2025", "12-31", "latest", "runs/2025-12-31_Net", str(newest),
        "runs/2025-12-31_Net/journal.db",
    ):  # fmt: skip
        told = json.loads(trainbus("runs", "show", name, "--json").stdout)
        assert told["run"] == "2025-12-31_Net", name
    monkeypatch.chdir(newest)
    told = json.loads(trainbus("runs", "show", ".", "--json").stdout)
    assert told["run"] == "2025-12-31_Net"


def test_a_beginning_is_preferred_to_another_part(trainbus, make_run):
    make_run("a-b", end(2000.0))
    make_run("b-a", end(2000.0))
    assert json.loads(trainbus("runs", "show", "b", "--json").stdout)["run"] == "b-a"


MISTAKES = {
    "no directory of runs": (["runs"], "no directory 'runs'"),
    "no such directory": (["runs", "no/where"], "there is no directory 'no/where'"),
    "a misspelt verb": (["runs", "shwo"], "did you mean 'show'?"),
    "both orders": (["runs", "good", "--lowest", "a", "--highest", "a"], "not both"),
    "order by what nobody logged": (
        ["runs", "good", "--highest", "valid/acuracy"], "did you mean 'valid/accuracy'?",
    ),
    "a metric that nobody logged": (
        ["runs", "show", "run-1", "--dir", "good", "--metric", "x*"], "no metric 'x*' was logged",
    ),
    "no run of that name": (
        ["runs", "show", "rnu-1", "--dir", "good"], "did you mean 'run-1'?",
    ),
    "several runs": (
        ["runs", "show", "run", "--dir", "good"], "'run' may be any of 2 runs in good: run-1, run-2"
    ),
    "no run at a path": (["runs", "show", "good/x"], "there is no run 'good/x'"),
    "no run, nor a directory of runs": (["runs", "show", "x"], "give --dir DIRECTORY"),
    "an empty directory of runs": (["runs", "show", "x", "--dir", "empty"], "it holds no run"),
    "latest of none": (["runs", "show", "latest", "--dir", "empty"], "it holds no run"),
    "no journal": (["runs", "show", "empty"], "empty has no journal.db: no run logged there"),
    "no database": (["runs", "show", "torn"], "cannot read torn/journal.db"),
    "an empty file": (["runs", "show", "hollow"], "hollow/journal.db: it has no table"),
    "one run to compare": (["runs", "compare", "good/run-1"], "two runs or more"),
    "the same run twice": (["runs", "compare", "good/run-1", "./good/run-1"], "two runs or more"),
    "nothing to plot": (["runs", "plot", "good/run-2"], "no metric was logged"),
    "an unknown kind of plot": (
        ["runs", "plot", "good/run-1", "-o", "a.gif"], "-o a.gif: give a file that ends in .html",
    ),
    "a plot to nowhere": (
        ["runs", "plot", "good/run-1", "-o", "no/a.html"], "-o no/a.html: cannot be written",
    ),
    "a PNG to nowhere": (
        ["runs", "plot", "good/run-1", "-o", "no/a.png"], "-o no/a.png: cannot be written",
    ),
    "an unknown kind of table": (
        ["runs", "export", "good/run-1", "-o", "a.xlsx"], "ends in .csv or .parquet",
    ),
    "a table to nowhere": (
        ["runs", "export", "good/run-1", "-o", "no/a.csv"], "-o no/a.csv: cannot be written",
    ),
    "a Parquet file to nowhere": (
        ["runs", "export", "good/run-1", "-o", "no/a.parquet"], "cannot be written",
    ),
    "a directory as a file": (
        ["runs", "export", "good/run-1", "-o", "dir.csv"], "dir.csv: cannot be written",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_message(arguments, message, trainbus, make_run, tmp_path):
    make_run("run-1", metrics(1, **{"valid/accuracy": 1.0}), end(2000.0))
    make_run("run-2", end(2000.0))
    (tmp_path / "runs").rename(tmp_path / "good")
    for name in ("empty", "torn", "hollow", "dir.csv"):
        (tmp_path / name).mkdir()
    (tmp_path / "torn" / "journal.db").write_text("no database" * 1000)
    (tmp_path / "hollow" / "journal.db").touch()
    error = trainbus(*arguments, status=2).stderr
    assert message in error
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not [*tmp_path.glob("*.part")]


def test_a_journal_that_is_torn_in_the_middle_is_explained(trainbus, make_run):
    """Whatever page is overwritten, nothing but a message comes of it."""
    entries = [metrics(i, loss=1.0, other=2.0) for i in range(3000)]
    path = (
        make_run("a", Entry("params", 1.0, 0, {"a": "x" * 9000}), *entries, end(2000.0))
        / "journal.db"
    )
    whole = path.read_bytes()
    explained = 0
    for page in range(len(whole) // 4096):
        path.write_bytes(whole[: page * 4096] + b"\xff" * 4096 + whole[(page + 1) * 4096 :])
        for verb in (["show"], ["export"]):
            try:
                trainbus("runs", *verb, "a")
            except AssertionError:
                error = trainbus("runs", *verb, "a", status=2).stderr
                assert error.startswith("error: cannot read runs/a/journal.db")
                explained += 1
    assert explained > 5


# --- comparing -----------------------------------------------------------------------------------


def test_a_comparison_shows_only_parameters_that_differ(runs, trained):
    names = sorted(path.name for path in trained.iterdir())
    rows = rows_of(runs("compare", *names).stdout)
    assert rows[0] == names
    assert ["lr", "0.01", "0.1"] in rows
    assert "model.width" not in {row[0] for row in rows}
    assert "team" not in {row[0] for row in rows}


def test_a_comparison_marks_the_best_where_the_name_tells_which_that_is(trainbus, make_run):
    for name, values in {"one": (3.0, 1.0, 2.0), "two": (4.0, 0.5, 5.0)}.items():
        logged = (
            metrics(i, **{"valid/loss": v, "valid/accuracy": v, "beta": v})
            for i, v in enumerate(values)
        )
        make_run(name, *logged, end(2000.0, 2))
    output = trainbus("runs", "compare", "one", "two").stdout
    rows = rows_of(output[output.index("metrics") :])[1:]
    assert rows == [
        ["beta", "last", "2", "5"], ["lowest", "1", "0.5"], ["highest", "3", "5"],
        ["valid/accuracy", "last", "2", "5"], ["highest", "3", "5 *"],
        ["valid/loss", "last", "2", "5"], ["lowest", "1", "0.5 *"],
    ]  # fmt: skip
    assert "no parameter differs" in output


def test_what_a_run_does_not_have_is_a_dash(trainbus, make_run):
    make_run("one", Entry("params", 1.0, 0, {"lr": 0.1}), metrics(1, loss=1.0), end(2000.0))
    make_run("two", Entry("params", 1.0, 0, {"depth": 3}), metrics(1, other=1.0), end(2000.0))
    rows = rows_of(trainbus("runs", "compare", "one", "two").stdout)
    assert ["lr", "0.1", "-"] in rows and ["depth", "-", "3"] in rows
    assert ["loss", "last", "1", "-"] in rows


def test_a_comparison_for_programs(runs, trained):
    names = sorted(path.name for path in trained.iterdir())
    told = json.loads(runs("compare", *names, "--json").stdout)
    assert told["params"] == {"lr": dict(zip(names, (0.01, 0.1), strict=True))}
    assert told["metrics"]["train/loss"][names[0]]["count"] == 12


# --- exporting -----------------------------------------------------------------------------------


def test_an_exported_csv_holds_every_value_exactly(runs, trained):
    names = sorted(path.name for path in trained.iterdir())
    rows = list(csv.DictReader(io.StringIO(runs("export", *names).stdout)))
    assert list(rows[0]) == ["run", "name", "step", "time", "value"]
    for name in names:
        with JournalFile.open(trained / name / "journal.db") as journal:
            for metric in journal.names():
                mine = [row for row in rows if (row["run"], row["name"]) == (name, metric)]
                assert [int(row["step"]) for row in mine] == list(journal.series(metric).steps)
                assert [float(row["time"]) for row in mine] == list(journal.series(metric).times)
                assert [float(row["value"]) for row in mine] == list(journal.series(metric).values)


def test_csv_survives_any_name_and_any_number(trainbus, make_run, tmp_path):
    values = [1e308, -0.0, math.nan, -math.inf]
    make_run("a", *(metrics(i, **{'od"d, näme\n/x': v}) for i, v in enumerate(values)), end(9.0))
    assert trainbus("runs", "export", "a", "-o", "out.csv").stdout.startswith(
        "4 values of 1 metric"
    )
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["name"] for row in rows} == {'od"d, näme\n/x'}
    assert str([float(row["value"]) for row in rows]) == str(values)


def test_an_exported_parquet_file_is_the_same_table(runs, trained, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    names = sorted(path.name for path in trained.iterdir())
    runs("export", *names, "--metric", "valid/*", "-o", "out.parquet")
    table = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    rows = csv.DictReader(io.StringIO(runs("export", *names, "--metric", "valid/*").stdout))
    expected = [
        {**row, "step": int(row["step"]), **{k: float(row[k]) for k in ("time", "value")}}
        for row in rows
    ]
    assert table == expected
    assert len(table) == 12


def test_a_reader_that_stops_early_is_no_error(make_run):
    make_run("a", *(metrics(i, loss=0.1) for i in range(20000)), end(1e6))
    done = subprocess.run(
        f"'{sys.executable}' -m trainbus runs export a | head -n 1",
        shell=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "run,name,step,time,value\n"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("verb", "output", "module", "line"),
    [
        ("export", "a.parquet", "pyarrow", "pip install pyarrow"),
        ("plot", "a.png", "matplotlib", "pip install matplotlib"),
    ],
)
def test_what_is_missing_is_named_with_the_line_that_installs_it(
    verb, output, module, line, runs, monkeypatch, tmp_path
):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, f"{module}.figure", None)
    assert line in runs(verb, "latest", "-o", output, status=2).stderr
    assert [*tmp_path.iterdir()] == []


# --- plotting ------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a page holds: its tags, and whether each is closed; what it would load."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.loaded = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.loaded += [v for k, v in attributes if k in ("src", "href", "xlink:href")]
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def test_a_page_of_charts_needs_nothing_else(runs, trained, tmp_path):
    names = sorted(path.name for path in trained.iterdir())
    assert runs("plot", *names).stdout == "4 charts of 2 runs: runs.html\n"
    text_of_page = (tmp_path / "runs.html").read_text("utf-8")
    page = Page(text_of_page)
    assert not page.open and not page.loaded
    assert "http" not in text_of_page and "@import" not in text_of_page
    assert len(page.all("svg")) == 4
    assert len(page.all("polyline")) == 8
    assert "<th>lr</th>" in text_of_page and "model.width" not in text_of_page
    data = json.loads(re.search(r'id="data">(.*)</script>', text_of_page)[1])
    assert data["runs"] == names
    assert data["charts"][0]["lines"][1]["x"] == list(range(1, 13))


def test_a_page_survives_any_name_and_any_number(trainbus, make_run, tmp_path):
    odd = "</script><b>&\"'"
    values = [1.0, math.nan, -1.7e308, 1.7e308, math.inf, 2.0]
    for name in ("<i>", "b"):
        logged = (metrics(i, **{odd: v, "nothing": math.nan}) for i, v in enumerate(values))
        make_run(name, Entry("params", 0.0, 0, {odd: name}), *logged, end(9.0))
    for options in ([], ["--log"], ["--x", "time"]):
        trainbus("runs", "plot", "<i>", "b", *options)
        written = (tmp_path / "runs.html").read_text("utf-8")
        page = Page(written)
        assert not page.open
        assert not page.all("b") and len(page.all("i")) == 2  # the swatches of the two runs
        assert "nan" not in "".join(str(each) for each in page.all("polyline"))
        charts = json.loads(re.search(r'id="data">(.*)</script>', written)[1])["charts"]
        assert charts[0]["lines"][0]["y"][1] is None


def test_a_gap_in_the_values_is_a_gap_in_the_line(trainbus, make_run, tmp_path):
    values = [1.0] * 40 + [math.nan] * 5 + [2.0] * 40 + [math.nan, 3.0]
    make_run("a", *(metrics(i, loss=v) for i, v in enumerate(values)), end(9.0))
    trainbus("runs", "plot", "a")
    page = Page((tmp_path / "runs.html").read_text("utf-8"))
    assert len(page.all("polyline")) == 2
    assert len(page.all("circle")) == 1


def test_a_long_line_is_thinned_and_keeps_its_peaks():
    y = [0.0] * 100_000
    y[12_345], y[77_777] = 9.0, -9.0
    thin = chart.thinned(chart.Line(0, [float(i) for i in range(len(y))], y), 1000)
    assert len(thin.x) <= 1002
    assert (thin.x[0], thin.x[-1]) == (0.0, 99_999.0)
    assert dict(zip(thin.x, thin.y, strict=True))[12_345.0] == max(thin.y) == 9.0
    assert min(thin.y) == -9.0
    assert thin.x == sorted(thin.x)


def test_time_begins_with_the_run(trainbus, make_run, tmp_path):
    make_run("a", *(metrics(i, 1000.0 + 60 * i, loss=i) for i in range(1, 31)), end(9.0))
    trainbus("runs", "plot", "a", "--x", "time")
    page = (tmp_path / "runs.html").read_text("utf-8")
    (chart,) = json.loads(re.search(r'id="data">(.*)</script>', page)[1])["charts"]
    assert "minutes since the start" in page
    assert chart["lines"][0]["x"] == list(range(1, 31))


def test_a_png_is_an_image_of_all_charts(runs, trained, tmp_path):
    image = pytest.importorskip("PIL.Image")
    names = sorted(path.name for path in trained.iterdir())
    runs("plot", *names, "-o", "all.png")
    runs("plot", *names, "--metric", "valid/loss", "--log", "--x", "time", "-o", "one.png")
    sizes = {}
    for name in ("all", "one"):
        with image.open(tmp_path / f"{name}.png") as opened:
            opened.load()
            sizes[name] = opened.size
            assert len(opened.convert("RGB").getcolors(1 << 24)) > 20
    assert sizes["all"][0] > 1.5 * sizes["one"][0]


def test_a_png_survives_any_name_and_any_number(trainbus, make_run, tmp_path):
    pytest.importorskip("matplotlib")
    values = [1.0, math.nan, math.inf, -2.0]
    name = "$\\frac{</b>"
    make_run(
        "$x$", *(metrics(i, **{name: v, "none": math.nan}) for i, v in enumerate(values)), end(9.0)
    )
    trainbus("runs", "plot", "$x$", "-o", "a.png")
    trainbus("runs", "plot", "$x$", "-o", "b.png", "--log")
    assert (tmp_path / "a.png").stat().st_size > 5000


def test_too_many_charts_for_one_png_are_refused(trainbus, make_run):
    pytest.importorskip("matplotlib")
    make_run("a", metrics(1, **{f"m/{i}": 1.0 for i in range(101)}), end(9.0))
    error = trainbus("runs", "plot", "a", "-o", "a.png", status=2).stderr
    assert "choose some with --metric" in error
    trainbus("runs", "plot", "a", "-o", "a.html")


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-3, 17), (0.98, 0.99), (1e-9, 3e-9), (-1e300, 1e300), (0, 1e-320)]
)
def test_ticks_are_few_round_and_inside(low, high):
    found = ticks(low, high, 5)
    assert 2 <= len(found) <= 9
    assert all(low - 1e-9 * abs(low) <= each <= high + 1e-9 * abs(high) for each in found)


def test_ticks_of_a_logarithmic_axis():
    assert log_ticks(-2.1, 1.0) == pytest.approx([0.01, 0.1, 1.0, 10.0])
    assert log_ticks(0.0, 1.5) == pytest.approx([1, 2, 5, 10, 20])
    assert len(log_ticks(-200, 300)) <= 8
    assert log_ticks(0.3, 0.4) == pytest.approx([2.0, 2.2, 2.4], abs=0.11)


# --- copies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["at work", "ended"])
def test_a_run_goes_on_from_a_copy_of_it(trainbus, when, line, loader):
    from trainbus.builtin import Checkpoint

    def fit(epochs, run_dir="runs", resume=None, back_up=False):
        keep = Checkpoint(monitor="valid/loss")
        trainer = Trainer(epochs=epochs, run_dir=run_dir, plugins=[keep])
        if back_up:
            trainer.on("epoch_start")(
                lambda run: trainbus("runs", "backup", "latest") if run.epoch == 1 else None
            )
        trainer.on("fit_start")(lambda run: run.log_artifact("notes", "some", "text"))
        return trainer.fit(line, loader, loader, resume=resume)

    run = fit(2, back_up=when == "at work")
    if when == "ended":
        told = trainbus("runs", "backup", run.dir.name).stdout
        assert f"copied to backups/{run.dir.name}" in told
    (copy,) = Path("backups").iterdir()
    assert copy.name == run.dir.name
    assert not list(copy.glob(".*.part")) + list(copy.glob("*-wal"))
    (told,) = json.loads(trainbus("runs", "backups", "--json").stdout)
    assert told["status"] == ("killed" if when == "at work" else "completed")
    again = fit(3, "backups", "auto")
    assert (again.dir, again.global_step) == (copy.resolve(), 15)
    with JournalFile.open(copy / "journal.db") as journal:
        assert list(journal.series("train/loss").steps) == list(range(1, 16))
    assert (copy / "checkpoints" / "best").resolve().parent == copy.resolve() / "checkpoints"
    assert list((copy / "artifacts").iterdir())


def test_a_copy_of_before_gives_way_and_anything_else_does_not(trainbus, make_run):
    make_run("one", metrics(1, loss=1.0))
    for _ in range(2):
        trainbus("runs", "backup", "one")
    Path("elsewhere/one").mkdir(parents=True)
    refused = trainbus("runs", "backup", "one", "-o", "elsewhere", status=2).stderr
    assert "exists and is no run" in refused
    refused = trainbus("runs", "backup", "one", "-o", "runs/one", status=2).stderr
    assert "in the run's own directory" in refused

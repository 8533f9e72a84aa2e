"""A run's life: its name and place, its end, going on, records that come again."""

import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from trainbus import PluginError, RecordRejected, Trainer
from trainbus.records.artifacts import Artifact
from trainbus.testing import Line
from trainbus_trackio import Trackio, client


def test_project_and_run_have_the_names_of_the_task_and_the_directory(batches, read):
    class Lonely(Line):
        pass

    run = Trainer(plugins=["trackio"]).fit(Lonely(), batches)
    assert read("Lonely").run.name == run.dir.name


def test_a_failed_run_says_so_and_keeps_what_it_logged(batches, project, read):
    class Broken(Line):
        def training_step(self, batch, run):
            if run.global_step == 3:
                raise ZeroDivisionError("three")
            return super().training_step(batch, run)

    with pytest.raises(ZeroDivisionError):
        Trainer(plugins=[Trackio(project)]).fit(Broken(), batches)
    assert read(project).run.config["run/status"] == "failed"
    assert [step for step, _ in read(project).series("train/loss")] == [1, 2, 3]


def test_a_fit_that_goes_on_is_the_same_run(batches, project, read):
    plugins = ["checkpoint", Trackio(project)]
    Trainer(epochs=1, plugins=plugins).fit(Line(lr=0.1, old=1), batches)
    plugins[1] = Trackio(project, name="another name, which comes too late")
    run = Trainer(epochs=2, plugins=plugins).fit(Line(lr=0.2), batches, resume="auto")
    assert run.errors == []
    assert read(project).run.name == run.dir.name
    assert [step for step, _ in read(project).series("train/loss")] == list(range(1, 11))
    config = read(project).run.config
    assert (config["lr"], config["old"], config["run/status"]) == (0.2, 1, "completed")


def test_a_test_is_a_run_of_its_own(batches, project, read):
    trainer = Trainer(plugins=[Trackio(project)])
    task = Line(width=1)
    trainer.fit(task, batches)
    metrics = trainer.test(task, batches)
    fitted, tested = read(project).runs
    assert read(project).series("test/loss", tested) == [(0, metrics["test/loss"])]
    assert read(project).series("test/loss", fitted) == []
    assert len(read(project).series("train/loss", fitted)) == 5


def test_a_step_that_goes_back_loses_nothing(batches, project, read):
    trainer = Trainer(epochs=2, plugins=[Trackio(project)])

    @trainer.on("train_epoch_end")
    def go_back(run):
        run.global_step = 2

    trainer.fit(Line(), batches)
    steps = [step for step, _ in read(project).series("train/loss")]
    assert steps == [1, 2, 3, 4, 5, 3, 4, 5, 6, 7]


def test_a_dry_run_leaves_nothing(batches, tmp_path, project, read):
    Trainer(plugins=[Trackio(project)], dry_run=2).fit(Line(), batches)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="does not exist"):
        read(project)


# --- once ----------------------------------------------------------------------------------------


def hand_over(logger, run, tmp_path, first=1):
    """Records 1 to 5, as `Delivery` hands them over."""
    picture, weights = tmp_path / "a.png", tmp_path / "weights.pt"
    picture.write_bytes(b"a picture")
    weights.write_bytes(b"some weights")
    for run.record in range(first, 6):
        if run.record == 1:
            logger.on_params({"lr": 0.1})
        elif run.record < 4:
            logger.on_metrics(run, run.record, {"loss": float(run.record)}, 1e9)
        elif run.record == 4:
            logger.on_artifact(run, Artifact("picture", "image", picture, 4, 1e9))
        else:
            logger.on_artifact(run, Artifact("weights", "model", weights, 5, 1e9))


def counts(reader, place):
    pictures = list((place / "media" / reader.project.replace(" ", "")).rglob("*.png"))
    return len(reader.series("loss")), len(reader.series("picture")), len(pictures)


def test_what_a_killed_process_wrote_and_did_not_note_is_not_doubled(
    info, project, read, place, tmp_path, cli
):
    """Killed between the flush and the note of it, all its records are delivered again."""
    for _ in range(2):
        logger, run = Trackio(project), info()
        logger.on_log_start(run)
        hand_over(logger, run, tmp_path)
        logger.on_log_flush()
        logger._stop_monitors()
    logger.on_log_end("completed")
    assert counts(read(project), place) == (2, 1, 1)
    assert read(project).run.config["lr"] == 0.1
    (artifact,) = cli("list", "artifacts", "--project", project)["artifacts"]
    assert artifact["num_versions"] == 1


def test_a_flush_that_failed_loses_and_doubles_nothing(info, project, read, place, tmp_path):
    logger, run = Trackio(project), info()
    logger.on_log_start(run)
    hand_over(logger, run, tmp_path)
    database = place / f"{project.replace(' ', '')}.db"
    database.rename(tmp_path / "away")
    database.mkdir()
    with pytest.raises(sqlite3.OperationalError):
        logger.on_log_flush()
    database.rmdir()
    (tmp_path / "away").rename(database)
    hand_over(logger, run, tmp_path)
    logger.on_log_end("completed")
    assert counts(read(project), place) == (2, 1, 1)
    assert read(project).run.config["lr"] == 0.1


def test_on_a_network_file_system_trackio_imports_it_later_and_once(
    info, project, read, place, tmp_path, monkeypatch
):
    """There Trackio's clients write files that its dashboard takes in."""
    from trackio import fragments

    monkeypatch.setenv("TRACKIO_STORAGE_MODE", "jsonl")
    for _ in range(2):
        logger, run = Trackio(project, system_metrics=False), info()
        logger.on_log_start(run)
        hand_over(logger, run, tmp_path)
        logger.on_log_flush()
    logger.on_log_end("completed")
    fragments.import_inbox_dir()
    assert counts(read(project), place) == (2, 1, 1)
    assert read(project).run.config["lr"] == 0.1
    assert read(project).run.config["run/status"] == "completed"


def test_a_replay_finds_the_run_with_nothing_but_its_directory(info, project, read, place):
    options = {"project": project, "name": "mine", "group": "first", "dir": place}
    run = info()
    Trackio(**options, system_metrics=False).on_log_start(run)
    with pytest.raises(PluginError, match=r"-o trackio\.dir="):  # a file names no place
        Trackio().on_log_start(info(run.state, replay=True))
    logger, run = Trackio(dir=place), info(run.state, replay=True)
    logger.on_log_start(run)
    logger.on_metrics(run, 1, {"loss": 1.0}, 1e9)
    logger.on_log_end("completed")
    assert read(project).run.name == "mine"
    assert read(project).series("loss") == [(1, 1.0)]
    assert read(project).run.config["_Group"] == "first"


@pytest.mark.parametrize("name", ["../mine", "a/../../mine", "/mine", "a//b", "."])
def test_a_name_in_the_journal_is_no_place(info, project, name):
    with pytest.raises(PluginError, match="did not write what the journal"):
        Trackio(project).on_log_start(info({"name": name}))


def test_an_artifact_that_trackio_cannot_take_is_left_out(info, project, tmp_path):
    logger, run = Trackio(project, system_metrics=False), info()
    logger.on_log_start(run)
    hand_over(logger, run, tmp_path)
    other_kind = Artifact("weights", "file", tmp_path / "weights.pt", 1, 1e9)
    with pytest.raises(RecordRejected, match=r"file 'weights': .* already exists with type"):
        logger.on_artifact(run, other_kind)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordRejected, match=r"model 'nothing': .* has no files"):
        logger.on_artifact(run, Artifact("nothing", "model", tmp_path / "empty", 1, 1e9))


# --- the machine ---------------------------------------------------------------------------------


def monitors():
    return [each for each in threading.enumerate() if "_monitor_loop" in each.name]


def test_the_load_of_the_machine_is_logged_until_the_run_ends(info, project, cli, monkeypatch):
    monkeypatch.setattr(client, "_SYSTEM_SECONDS", 0.02)
    logger, run = Trackio(project), info()
    logger.on_log_start(run)
    assert monitors()
    time.sleep(0.5)
    logger.on_log_end("completed")
    assert not monitors()
    found = cli("list", "system-metrics", "--project", project, "--run", "first")
    assert {"cpu/utilization", "memory/utilization"} & set(found["system_metrics"])


def test_a_replay_does_not_measure_the_machine(info, project):
    logger = Trackio(project)
    logger.on_log_start(info(replay=True))
    assert not monitors()
    logger.on_log_end("completed")


def test_an_option_switches_the_monitors_off(info, project):
    logger = Trackio(project, system_metrics=False)
    logger.on_log_start(info())
    assert not monitors()


# --- what stops a run before its first step -------------------------------------------------------


def refused(trainer, task, batches, match):
    steps = []
    trainer.on("train_batch_start")(lambda run: steps.append(run.global_step))
    with pytest.raises(PluginError, match=match):
        trainer.fit(task, batches)
    assert steps == []


def test_without_the_sdk_the_run_does_not_start(batches, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    refused(Trainer(plugins=["trackio"]), Line(), batches, r"pip install 'trackio>=0.39'")


def test_an_old_sdk_is_named(batches, monkeypatch):
    import trackio

    monkeypatch.setattr(trackio, "__version__", "0.2.9")
    match = r"plugin 'trackio' .* finds trackio 0.2.9: pip install"
    refused(Trainer(plugins=["trackio"]), Line(), batches, match)


def test_a_directory_that_cannot_be_written_is_named(batches, place, project):
    in_the_way = place / f"{project.replace(' ', '')}.db"
    in_the_way.mkdir(parents=True)
    match = rf"cannot write project '{project}' in {place}: unable to open database"
    try:
        refused(Trainer(plugins=[Trackio(project)]), Line(), batches, match)
    finally:
        in_the_way.rmdir()


def test_a_project_that_trackio_does_not_allow_is_named(batches):
    match = "cannot write project 'registry-x' .* reserved"
    refused(Trainer(plugins=[Trackio("registry-x")]), Line(), batches, match)


@pytest.mark.parametrize("variable", ["TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"])
def test_a_wish_to_send_it_elsewhere_is_not_passed_over(batches, monkeypatch, variable):
    monkeypatch.setenv(variable, "me/there")
    match = rf"{variable} is set: unset it, and send the project later with `trackio sync`"
    refused(Trainer(plugins=["trackio"]), Line(), batches, match)


def test_another_directory_than_that_of_an_imported_trackio_is_refused(batches, place):
    match = (
        rf"cannot use dir='.*logs': trackio was imported before, with {place}. Set .*logs instead"
    )
    refused(Trainer(plugins=[Trackio(dir="logs")]), Line(), batches, match)


@pytest.mark.parametrize("name", ["../x", "/x", "a//b", " "])
def test_a_name_that_leaves_its_directory_is_refused(name):
    with pytest.raises(PluginError, match="name="):
        Trackio(name=name)


# --- in a process of its own ---------------------------------------------------------------------

FIT = """
import sys, torch
from trainbus import Trainer
from trainbus_trackio import Trackio, client

def no_network(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        raise SystemExit(f"{event}{arguments}")

sys.addaudithook(no_network)
model = torch.nn.Linear(1, 1)
trainer = Trainer(plugins=[Trackio("alone", dir="my logs")])
with trainer.open(model, torch.optim.SGD(model.parameters(), lr=0.1)) as run:
    for batch in run.batches([torch.ones(1, 1)] * 3, epochs=1):
        loss = model(batch).mean()
        run.log(loss=loss)
        run.step(loss)
assert not run.errors, run.errors
print(run.header["trackio"])
"""


def test_dir_has_the_projects_and_nothing_reaches_for_the_network(tmp_path, monkeypatch):
    """Also when someone is logged in at the Hub, whom Trackio's own client would look up."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.delenv("TRACKIO_DIR")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    done = subprocess.run([sys.executable, "-c", FIT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "TRACKIO_DIR='my logs' trackio show --project alone\n"
    assert (tmp_path / "my logs" / "alone.db").is_file()
    listing = done.stdout.replace("show --project alone", "list projects")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    shell = subprocess.run(
        listing, shell=True, capture_output=True, text=True, env=os.environ | {"PATH": path}
    )
    assert "alone" in shell.stdout


def test_importing_the_plugin_imports_neither_torch_nor_the_sdk():
    code = (
        "import sys, trainbus_trackio; "
        "assert not {'torch', 'numpy', 'trackio', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

"""What becomes of a run: its experiment, its metrics, its end, and its continuation."""

import os
import subprocess
import sys
import time
from contextvars import copy_context
from urllib.parse import unquote

import pytest

from trainbus import PluginError, StopRun, Trainer
from trainbus.builtin.journal import Journal
from trainbus.cli import main
from trainbus.testing import Line
from trainbus_mlflow import MLflow
from trainbus_mlflow.remote import limited

CLOSED = "http://127.0.0.1:1"


def test_every_metric_is_there_once_at_its_step_and_time(batches, read, database):
    started = time.time()
    trainer = Trainer(epochs=2, plugins=[MLflow(database)])
    told = {}

    @trainer.on("metrics")
    def listen(step, metrics):
        for name, value in metrics.items():
            told.setdefault(name, []).append((step, value))

    run = trainer.fit(Line(), batches, batches)
    remote = read(database)
    assert [step for step, _ in told["train/loss"]] == list(range(1, 11))
    assert {name: remote.series(name) for name in remote.names} == told
    (first, *_) = remote.client.get_metric_history(remote.id, "train/loss")
    assert started * 1000 - 1 <= first.timestamp <= time.time() * 1000 + 1
    assert run.errors == []


def test_a_run_is_named_after_its_directory_in_the_experiment_of_its_task(batches, read, database):
    run = Trainer(plugins=[MLflow(database)]).fit(Line(width=4), batches)
    remote = read(database)
    assert remote.client.get_experiment(remote.info.experiment_id).name == "Line"
    assert remote.info.run_name == run.dir.name == remote.tags["trainbus.run"]
    assert remote.info.status == "FINISHED"
    assert remote.info.end_time >= remote.info.start_time
    assert remote.tags["mlflow.user"]
    assert remote.params["width"] == "4"
    assert run.header["mlflow"] == f"mlflow ui --backend-store-uri {database}"


def test_options_name_the_experiment_the_run_and_its_tags(batches, read, database):
    plugin = MLflow(database, experiment="digits", run_name="first", tags={"team": "vision"})
    trainer = Trainer(plugins=[plugin])
    trainer.on("fit_start")(lambda run: run.log_tags({"kind": "größe", "empty": ""}))
    trainer.fit(Line(), batches)
    remote = read(database)
    assert remote.client.get_experiment(remote.info.experiment_id).name == "digits"
    assert remote.info.run_name == "first"
    assert {"team": "vision", "kind": "größe", "empty": ""}.items() <= remote.tags.items()


def test_the_environment_names_the_store_and_the_experiment(batches, read, database, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "from outside")
    Trainer(plugins=["mlflow"]).fit(Line(), batches)
    remote = read(database)
    assert remote.client.get_experiment(remote.info.experiment_id).name == "from outside"


def test_without_a_uri_it_is_the_store_that_mlflow_itself_would_use(
    batches, read, database, tmp_path
):
    run = Trainer(plugins=["mlflow"]).fit(Line(), batches)
    where = run.header["mlflow"].removeprefix("mlflow ui --backend-store-uri ")
    assert unquote(where) == database  # ./mlflow.db, which the fixture made
    assert read(database).info.status == "FINISHED"


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "FINISHED"), (StopRun("enough"), "FINISHED"), (ValueError("three"), "FAILED"),
     (KeyboardInterrupt(), "KILLED")],
    ids=["completed", "stopped", "failed", "interrupted"],
)  # fmt: skip
def test_the_status_says_how_it_ended(batches, read, database, error, status):
    trainer = Trainer(plugins=[MLflow(database)])

    @trainer.on("train_batch_end")
    def fail(run):
        if run.global_step == 3 and error is not None:
            raise error

    if isinstance(error, (ValueError, KeyboardInterrupt)):
        with pytest.raises(type(error)):
            trainer.fit(Line(), batches)
    else:
        trainer.fit(Line(), batches)
    remote = read(database)
    assert remote.info.status == status
    assert [step for step, _ in remote.series("train/loss")][:3] == [1, 2, 3]


def test_a_resumed_run_goes_on_as_the_same_run(batches, read, database):
    def train(epochs, **hparams):
        trainer = Trainer(epochs=epochs, plugins=[MLflow(database), "checkpoint"])
        return trainer.fit(Line(**hparams), batches, resume="auto")

    first = train(1, width=4, note="a")
    id = read(database).id
    second = train(2, width=8, note="a")
    assert second.dir == first.dir
    remote = read(database)
    assert remote.id == id
    assert remote.info.status == "FINISHED"
    assert [step for step, _ in remote.series("train/loss")] == list(range(1, 11))
    assert remote.params["width"] == "4"
    (error,) = second.errors
    assert "'width'" in error and "keeps the first value of a run, '4', and not '8'" in error


def test_a_continued_run_is_running_until_its_end(begun, read):
    case = begun()
    case.plugin.on_log_end(case.run, "failed")
    id = case.run.state["run_id"]
    assert read(case.uri, id).info.status == "FAILED"
    case.plugin.on_log_start(case.run)
    assert read(case.uri, id).info.status == "RUNNING"
    case.plugin.on_log_end(case.run, "completed")
    assert read(case.uri).info.status == "FINISHED"


def test_fit_and_test_are_two_runs_of_one_instance(batches, read, database):
    trainer = Trainer(plugins=[MLflow(database)])
    task = Line()
    trainer.fit(task, batches)
    fitted = read(database)
    trainer.test(task, batches)
    (tested,) = [run.info.run_id for run in fitted.runs() if run.info.run_id != fitted.id]
    assert read(database, tested).names == ["test/loss"]
    assert "test/loss" not in read(database, fitted.id).names


def test_a_thread_that_comes_back_late_writes_to_its_own_run(begun, info, read):
    case = begun()
    later = info()
    case.plugin.on_log_start(later)
    case.plugin.on_tags(case.run, {"of": "the first"})
    case.plugin.on_tags(later, {"of": "the second"})
    for run, of in ((case.run, "the first"), (later, "the second")):
        assert read(case.uri, run.state["run_id"]).tags["of"] == of


def test_a_dry_run_leaves_nothing(batches, read, database):
    Trainer(plugins=[MLflow(database)], dry_run=2).fit(Line(), batches)
    with pytest.raises(ValueError, match="not enough values"):
        read(database)


def test_nothing_of_mlflows_global_state_is_touched(batches, database):
    import mlflow
    from mlflow.environment_variables import (
        MLFLOW_HTTP_REQUEST_MAX_RETRIES,
        MLFLOW_HTTP_REQUEST_TIMEOUT,
    )

    before = dict(os.environ), mlflow.get_tracking_uri()
    seen = []
    trainer = Trainer(plugins=[MLflow(database)])
    trainer.on("fit_end")(lambda: seen.append(mlflow.active_run()))
    trainer.fit(Line(), batches)
    assert seen == [None]
    assert (dict(os.environ), mlflow.get_tracking_uri()) == before
    with limited(5), limited(10):
        assert MLFLOW_HTTP_REQUEST_TIMEOUT.get() == 10
        assert MLFLOW_HTTP_REQUEST_MAX_RETRIES.get() == 0
    assert MLFLOW_HTTP_REQUEST_TIMEOUT.get() == 120
    assert MLFLOW_HTTP_REQUEST_MAX_RETRIES.get() == 7


# --- what stops a run before its first step ------------------------------------------------------


def refused(trainer, batches):
    """The message that stops the run."""
    steps = []
    trainer.on("train_batch_start")(lambda run: steps.append(run.global_step))
    with pytest.raises(PluginError) as caught:
        trainer.fit(Line(), batches)
    assert steps == []
    return str(caught.value)


def test_a_server_that_is_not_there_is_told_at_once(batches):
    started = time.monotonic()
    message = refused(Trainer(plugins=[MLflow(CLOSED)]), batches)
    assert message.startswith(
        "plugin 'mlflow': http://127.0.0.1:1 cannot be reached ([Errno 111] Connection refused): "
        "start the server or mend the address"
    )
    assert time.monotonic() - started < 10


def test_a_run_that_was_deleted_is_not_continued(begun):
    from mlflow import MlflowClient

    case = begun()
    id = case.run.state["run_id"]
    MlflowClient(tracking_uri=case.uri).delete_run(id)
    with pytest.raises(PluginError, match=f"`mlflow runs restore --run-id {id}` brings it back"):
        case.plugin.on_log_start(case.run)


def test_a_run_of_another_store_is_not_continued(info, database):
    run = info(state={"run_id": "0123456789abcdef0123456789abcdef"})
    with pytest.raises(PluginError, match="Give the tracking_uri that it began with"):
        MLflow(database).on_log_start(run)


def test_a_deleted_experiment_is_told(batches, database):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=database)
    id = client.create_experiment("Line")
    client.delete_experiment(id)
    message = refused(Trainer(plugins=[MLflow(database)]), batches)
    assert f"`mlflow experiments restore --experiment-id {id}` brings it back" in message


def test_without_the_sdk_the_run_does_not_start(batches, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    message = refused(Trainer(plugins=[MLflow(CLOSED)]), batches)
    assert "plugin 'mlflow' (trainbus-mlflow) cannot import its SDK" in message
    assert "pip install 'mlflow-skinny>=3.7'" in message


def test_too_old_an_sdk_is_told(batches, monkeypatch):
    import mlflow

    monkeypatch.setattr(mlflow, "__version__", "3.6.1")
    message = refused(Trainer(plugins=[MLflow(CLOSED)]), batches)
    assert "needs mlflow-skinny 3.7 or newer and found 3.6.1" in message


@pytest.mark.parametrize("uri", [None, "postgresql://me:secret@db/mlflow"])
def test_a_database_without_sqlalchemy_is_told(batches, monkeypatch, uri):
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    message = refused(Trainer(plugins=[MLflow(uri)]), batches)
    assert "mlflow-skinny comes without sqlalchemy. Name a server" in message
    assert "pip install 'trainbus-mlflow[sqlite]'" in message
    assert "secret" not in message


def test_system_metrics_without_psutil_are_told(batches, monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    plugin = MLflow(CLOSED, system_metrics=True)
    message = refused(Trainer(plugins=[plugin]), batches)
    assert "pip install 'trainbus-mlflow[system]'" in message


@pytest.mark.parametrize("option", ["tracking_uri", "experiment", "run_name"])
def test_an_empty_option_is_refused(option):
    with pytest.raises(PluginError, match=f"MLflow\\({option}=''\\): give a text"):
        MLflow(**{option: ""})


def test_importing_the_plugin_imports_neither_torch_nor_the_sdk():
    code = "import sys, trainbus_mlflow; assert not {'torch', 'mlflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- offline -------------------------------------------------------------------------------------


def test_a_run_without_its_server_is_sent_later(batches, read, database):
    plugins = [MLflow(CLOSED, offline_fallback=True), Journal(finish_seconds=1)]
    run = Trainer(plugins=plugins).fit(Line(width=4), batches)
    assert run.status == "completed"
    assert run.header["mlflow"].startswith("offline: http://127.0.0.1:1 cannot be reached")
    (error,) = run.errors
    assert f"trainbus replay {run.dir.absolute()} --to mlflow" in error
    ended = time.time()

    time.sleep(0.5)
    command = ["replay", str(run.dir), "--to", "mlflow", "-o", f"mlflow.tracking_uri={database}"]
    with pytest.raises(SystemExit) as done:
        copy_context().run(main, command)
    assert done.value.code == 0
    remote = read(database)
    assert [step for step, _ in remote.series("train/loss")] == [1, 2, 3, 4, 5]
    assert remote.params["width"] == "4"
    assert remote.info.status == "FINISHED"
    assert remote.info.start_time <= remote.info.end_time <= ended * 1000  # as it was


def test_a_replay_does_not_go_offline(info):
    with pytest.raises(PluginError, match="cannot be reached"):
        MLflow(CLOSED, offline_fallback=True).on_log_start(info(replay=True))

"""Comet, MLflow and W&B in one run: Comet's client takes over its neighbours if it is let."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from zipfile import ZipFile

import pytest

from trainbus import JournalFile

for sdk in ("comet_ml", "mlflow", "wandb"):
    pytest.importorskip(f"trainbus_{sdk.removesuffix('_ml')}", exc_type=ImportError)

PROGRAM = textwrap.dedent("""
    import sys

    for name in sys.argv[1:]:  # what the user's program imports before
        if name != "run":
            __import__(name)
    from trainbus import Trainer, testing
    from trainbus_comet import Comet
    from trainbus_mlflow import MLflow
    from trainbus_wandb import Wandb

    class Line(testing.Line):
        def training_step(self, batch, run):
            run.log({"step squared": run.global_step**2})
            return super().training_step(batch, run)

    loggers = [
        Comet(mode="offline"),
        MLflow(tracking_uri="sqlite:///mlflow.db", experiment="together"),
        Wandb(project="together", mode="offline"),
    ]
    batches = testing.make_line_loader()
    if "run" in sys.argv:  # Comet's client is here before the others
        Trainer(run_dir="before", plugins=loggers[:1]).fit(Line(), batches)
    trainer = Trainer(epochs=2, plugins=loggers)

    @trainer.on("train_batch_end", once=True)
    def use_mlflow_by_hand(run):
        import mlflow  # what Comet's client replaces, if it is let

        mlflow.set_tracking_uri("sqlite:///mlflow.db")
        with mlflow.start_run():
            mlflow.log_metric("by hand", 1.0)

    run = trainer.fit(Line(), batches)
    assert run.errors == [], run.errors
""")

ENVIRONMENT = {
    "COMET_ERROR_TRACKING_ENABLE": "0",
    "COMET_URL_OVERRIDE": "http://127.0.0.1:9/clientlib/",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
    "OMP_NUM_THREADS": "1",
}


def slow(*modules):
    return pytest.param(" ".join(modules), marks=pytest.mark.slow)


@pytest.fixture(params=["", slow("run"), slow("comet_ml"), slow("mlflow", "comet_ml")])
def finished(request, tmp_path):
    """A run of a new interpreter: its loggers import their clients at the same time.

    Unless the program has imported some itself, or had a run with Comet alone before.
    """
    keep = {name: value for name, value in os.environ.items() if "_API_KEY" not in name}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *request.param.split()],
        env={**keep, **ENVIRONMENT, "HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (directory,) = Path("runs").iterdir()
    with JournalFile.open(directory / "journal.db") as journal:
        logged = {
            name: sorted(zip(series.steps, series.values, strict=True))
            for name in journal.names()
            for series in [journal.series(name)]
        }
    return directory, logged


def in_comet(directory):
    (archive,) = (directory / "comet").glob("*.zip")
    found = {}
    for line in ZipFile(archive).read("messages.json").splitlines():
        if metric := json.loads(line)["payload"].get("metric"):
            name = metric["metricName"]
            found.setdefault(name, []).append((metric["step"], metric["metricValue"]))
    found.pop("process duration", None)  # the client's own, in its own time
    return {name: sorted(points) for name, points in found.items()}


def in_mlflow(run_name):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{Path('mlflow.db').absolute()}")
    experiment = client.get_experiment_by_name("together")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == (run_name, "FINISHED")
    return {
        name: sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, name))
        for name in run.data.metrics
    }


def in_wandb(directory):
    (file,) = directory.rglob("run-*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = {}
    for line in done.stdout.splitlines():
        row = json.loads(line).get("history", {}).get("item", {})
        step = row.get("trainer/global_step")
        for name in row:
            if name != "trainer/global_step" and not name.startswith("_"):
                found.setdefault(name, []).append((step, row[name]))
    return {name: sorted(points) for name, points in found.items()}


def test_each_finds_every_metric_of_the_run_and_nothing_else(finished):
    directory, logged = finished
    assert {len(logged[name]) for name in ("train/loss", "train/step squared")} == {10}
    assert in_comet(directory) == logged
    assert in_mlflow(directory.name) == logged
    assert in_wandb(directory) == logged
    assert not Path(".cometml-runs").exists()  # where Comet's client puts what it took over

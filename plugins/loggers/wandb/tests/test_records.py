"""What becomes of what a run logs: one offline run, read back."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import wandb
from matplotlib.figure import Figure

from trainbus import Trainer
from trainbus.testing import Line
from trainbus_wandb import Wandb

LONG = "long" * 200
ODD = "größe / with spaces.and dots"
PARAMETERS = {f"p{i}": i / 7 for i in range(10_000)}
ROWS = [{"a": 1, "b": "x"}, {"a": float("nan"), "c": [1, {"d": None}]}]


class Sized(Line):
    def training_step(self, batch, run):
        run.log(size=len(batch[0]))
        return super().training_step(batch, run)


@pytest.fixture(scope="module")
def logged(tmp_path_factory, batches, read):
    """A fit with everything in it: the run, and the reader of its file."""
    place = tmp_path_factory.mktemp("logged")
    trainer = Trainer(
        epochs=2,
        run_dir=place / "runs",
        plugins=[Wandb(project="lines", group="g", job_type="train")],
    )
    weights = place / "weights"
    (weights / "sub").mkdir(parents=True)
    (weights / "sub" / "größe.bin").write_bytes(b"1")
    (weights / "config.json").write_text("{}")
    (place / "data.csv").write_text("a,b")

    @trainer.on("train_batch_end", once=True)
    def log(run):
        run.log({"nan": float("nan"), "up": math.inf, "down": -math.inf, LONG: 1, ODD: 2})
        run.log_tags({"team": "vision", "long": "x" * 70})
        run.log_tags({"team": "größe"})
        figure = Figure()
        figure.subplots().plot([1, 2])
        run.log_artifact("curve", figure, "figure")
        run.log_artifact("valid/first one", torch.rand(3, 5, 4), "image")
        run.log_artifact("../" + LONG, torch.rand(1, 2, 2), "image")
        run.log_artifact("note", "# größe <b>\n" * 3, "text")
        run.log_artifact("table", ROWS, "table")
        run.log_artifact("ta/ble", [{"ü": 1}], "table")
        run.log_artifact(LONG, [], "table")
        run.log_artifact("data", place / "data.csv", "file")
        run.log_artifact("best/größe", weights, "model")
        run.log_artifact("best größe", weights, "model")

    hparams = {"optimizer": {"name": "sgd", "betas": [0.9, None]}, "start": float("nan"), ODD: True}
    run = trainer.fit(Sized(**PARAMETERS, **hparams), batches, batches)
    assert not run.errors
    (file,) = read(run.dir.absolute())
    return run, file


def test_values_of_one_record_are_one_row_at_their_step(logged):
    _, file = logged
    rows = [row for row in file.rows if "train/loss" in row]
    assert [row["trainer/global_step"] for row in rows] == list(range(1, 11))
    assert all(row["train/size"] == 2 for row in rows)


def test_validation_metrics_stand_at_the_step_after_which_they_were_taken(logged):
    _, file = logged
    assert [step for step, _ in file.series("valid/loss")] == [5, 10]


def test_charts_have_the_global_step_as_their_axis(logged):
    _, file = logged
    metrics = {each.glob_name: each.step_metric for each in file.of("metric")}
    assert metrics["*"] == "trainer/global_step"


def test_rows_are_numbered_by_the_records_of_the_journal(logged):
    _, file = logged
    numbers = [row["_step"] for row in file.rows]
    assert numbers == sorted(set(numbers))


def test_rows_have_the_time_at_which_they_were_logged(logged):
    run, file = logged
    from trainbus import JournalFile

    with JournalFile.open(run.dir / "journal.db") as journal:
        times = list(journal.series("train/loss").times)
    assert [row["_timestamp"] for row in file.rows if "train/loss" in row] == times


def test_numbers_that_are_not_finite_and_odd_names_arrive(logged):
    _, file = logged
    (row,) = [row for row in file.rows if "train/nan" in row]
    assert math.isnan(row["train/nan"])
    assert row["train/up"] == math.inf and row["train/down"] == -math.inf
    assert row[f"train/{LONG}"] == 1
    assert row[ODD] == 2  # it has a stage of its own


def test_ten_thousand_nested_and_odd_parameters_are_the_config(logged):
    _, file = logged
    config = file.config
    assert {name: config[name] for name in PARAMETERS} == PARAMETERS
    assert config["optimizer"] == {"name": "sgd", "betas": [0.9, None]}
    assert config["start"] == "nan" and config[ODD] is True


def test_a_tag_replaces_the_older_one_with_its_key(logged):
    _, file = logged
    assert list(file.run.tags) == ["team:größe"]
    assert file.config["tags"] == {"team": "größe", "long": "x" * 70}


def test_the_run_has_its_name_and_its_place(logged):
    run, file = logged
    first = file.of("run")[0]
    assert first.display_name == run.dir.name
    assert (first.project, first.run_group, first.job_type) == ("lines", "g", "train")


def test_figures_and_images_are_images_at_their_step(logged):
    _, file = logged
    for name, size in {"curve": None, "valid/first one": (4, 5)}.items():
        (row,) = [row for row in file.rows if f"{name}._type" in row]
        assert row[f"{name}._type"] == "image-file" and row["trainer/global_step"] == 1
        assert size in (None, (row[f"{name}.width"], row[f"{name}.height"]))
        assert (file.files / row[f"{name}.path"]).read_bytes().startswith(b"\x89PNG")


def test_a_name_that_is_too_long_for_a_file_is_shortened(logged):
    _, file = logged
    (name,) = [key for row in file.rows for key in row if key.startswith("../") and "path" in key]
    assert len(name) <= 100 + len(".path")
    (row,) = [row for row in file.rows if name in row]
    path = file.files / row[name]
    assert path.is_file() and path.resolve().is_relative_to(file.files.resolve())


def test_texts_are_shown_as_they_were_written(logged):
    _, file = logged
    (row,) = [row for row in file.rows if "note._type" in row]
    assert row["note._type"] == "html-file"
    assert "# größe &lt;b&gt;\n# größe" in (file.files / row["note.path"]).read_text("utf-8")


def test_tables_have_all_columns_and_rows(logged):
    _, file = logged
    (row,) = [row for row in file.rows if "table._type" in row]
    table = json.loads((file.files / row["table.path"]).read_text())
    assert table["columns"] == ["a", "b", "c"]
    assert table["data"][0] == [1, "x", None]
    assert table["data"][1][2] == [1, {"d": None}]
    assert len([key for row in file.rows for key in row if key.endswith(".ncols")]) == 3


def test_files_and_models_are_artifacts_of_the_run(logged):
    _, file = logged
    sent = {each.name: each for each in file.of("artifact") if each.type != "run_table"}
    run_id = file.of("run")[0].run_id
    data = sent.pop(f"data-{run_id}")
    assert data.type == "file" and set(data.aliases) == {"latest", "step-1"}
    assert Path(data.manifest.contents[0].local_path).read_text() == "a,b"
    assert len(sent) == 2  # two names that differ in what W&B does not take stay two
    for name, model in sent.items():
        assert name.startswith("best-gr-e-") and name.endswith(f"-{run_id}")
        assert json.loads(model.metadata)["name"] in ("best/größe", "best größe")
        assert model.type == "model"
        assert [each.path for each in model.manifest.contents] == ["config.json", "sub/größe.bin"]


def test_nothing_is_captured_from_the_console(logged):
    _, file = logged
    assert not file.of("output") and not file.of("output_raw")


def test_the_global_run_of_the_client_is_left_alone(logged):
    assert wandb.run is None


def test_wandb_itself_reads_the_same_from_the_file(logged):
    _, file = logged
    command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--json", file.path]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    read = [each["history"]["item"] for each in map(json.loads, lines) if each["type"] == "history"]
    losses = [row["train/loss"] for row in read if "train/loss" in row]
    assert losses == [value for _, value in file.series("train/loss")]
    assert len(read) == len(file.rows)


def test_a_big_file_is_copied_before_the_run_goes_on(tmp_path, batches, read):
    big = tmp_path / "big.bin"
    with big.open("wb") as file:
        for i in range(100):
            file.write(bytes([i]) * 1_000_000)
    trainer = Trainer(plugins=[Wandb()])
    trainer.on("train_batch_end", once=True)(lambda run: run.log_artifact("big", big, "file"))
    run = trainer.fit(Line(), batches)
    big.unlink()
    (artifact,) = read(run.dir)[0].of("artifact")
    copy = Path(artifact.manifest.contents[0].local_path)
    assert copy.stat().st_size == 100_000_000
    copy.unlink()


def test_a_picture_that_is_none_is_left_out_and_the_rest_goes_on(batches, read, caplog):
    class Broken:
        def savefig(self, file, format):
            file.write(b"no picture")

    trainer = Trainer(plugins=[Wandb()])
    trainer.on("train_batch_end", once=True)(lambda run: run.log_artifact("a", Broken(), "figure"))
    run = trainer.fit(Line(), batches)
    (message,) = [each for each in caplog.messages if "leaves something out" in each]
    assert "figure 'a': cannot identify image file" in message
    assert len(read(run.dir)[0].series("train/loss")) == 5

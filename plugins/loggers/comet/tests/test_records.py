"""What Comet gets of each record, read back from the archive that it would be sent from."""

import csv
import io
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trainbus import Trainer
from trainbus.testing import Line
from trainbus_comet import Comet

LONG = "a" * 150
PARAMS = {
    "width": 4, "name": "größe", "none": None, "nan": math.nan, "betas": [0.9, 0.99],
    "optimizer": {"lr": 0.1, "schedule": {"warmup": 3}}, LONG + "1": 1, LONG + "2": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def archive(batches, archives, tmp_path_factory):
    """One run that logs all that services choke on."""
    directory = tmp_path_factory.mktemp("records")
    (directory / "model").mkdir()
    (directory / "model" / "part").mkdir()
    (directory / "model" / "part" / "weights.pt").write_bytes(b"weights")
    (directory / "model" / "config.json").write_text("{}")
    (directory / "big.bin").write_bytes(bytes(100_000_000))
    trainer = Trainer(
        epochs=2, run_dir=directory / "runs", plugins=[Comet(mode="offline", project="lines")]
    )

    @trainer.on("train_batch_end", once=True)
    def log(run):
        run.log({"nan": math.nan, "inf": math.inf, "minus": -math.inf, "my 損失/é (raw)": 2.5})
        run.log({f"{LONG}1": 1, f"{LONG}2": 2})
        run.log_params({f"param {i}": i for i in range(10_000)})
        run.log_tags({"team": "blue", "größe": "µm"})
        run.log_artifact("notes", "# Größe\n*fine*", "text")
        run.log_artifact("per class", [{"class": "a,b", "f1": 0.5}, {"n": 3}], "table")
        run.log_artifact("no rows", [], "table")
        run.log_artifact("valid/first image", torch.zeros(3, 2, 2), "image")
        run.log_artifact("weights", directory / "model", "model")
        run.log_artifact("one file", directory / "model" / "config.json", "model")
        run.log_artifact("folder", directory / "model", "file")
        run.log_artifact("data/big", directory / "big.bin", "file")

    @trainer.on("train_epoch_end", once=True)
    def go_back(run):
        run.global_step = 2

    run = trainer.fit(Line(**PARAMS), batches, batches)
    assert run.errors == []
    (archive,) = archives(run.dir / "comet")
    return archive


def test_every_metric_is_there_at_its_step(archive):
    steps = [1, 2, 3, 4, 5, 3, 4, 5, 6, 7]  # it went back to 2
    assert [step for step, _ in archive.series("train/loss")] == steps
    assert all(isinstance(value, float) for _, value in archive.series("train/loss"))
    assert len(archive.series("valid/loss")) == 2


def test_what_is_no_finite_number_has_comets_word_for_it(archive):
    assert archive.series("train/nan") == [(1, "NaN")]
    assert archive.series("train/inf") == [(1, "Infinity")]
    assert archive.series("train/minus") == [(1, "-Infinity")]


def test_a_name_may_have_any_characters(archive):
    assert archive.series("my 損失/é (raw)") == [(1, 2.5)]


def test_long_names_that_begin_alike_stay_apart(archive):
    long = [name for name in archive.names() if name.startswith("train/aaa")]
    assert {len(name) for name in long} == {100}
    assert sorted(archive.series(name)[0][1] for name in long) == [1, 1, 2, 2]  # and the means
    params = [value for name, value in archive.params().items() if name.startswith("aaa")]
    assert sorted(params) == [1, 2]


def test_parameters_are_hyperparameters_and_nested_ones_have_joined_names(archive):
    params = archive.params()
    assert (params["width"], params["name"], params["none"]) == (4, "größe", None)
    assert (params["nan"], params["betas"]) == ("NaN", [0.9, 0.99])
    assert (params["optimizer|lr"], params["optimizer|schedule|warmup"]) == (0.1, 3)


def test_ten_thousand_parameters_are_all_there(archive):
    params = archive.params()
    assert [params[f"param {i}"] for i in range(10_000)] == list(range(10_000))


def test_tags_are_columns_and_labels(archive):
    assert (archive.others()["team"], archive.others()["größe"]) == ("blue", "µm")
    assert set(archive.about["tags"]) == {"team: blue", "größe: µm"}


def test_a_text_is_a_text_with_its_name(archive):
    ((about, content),) = archive.uploads("text-sample")
    assert (about["name"], about["step"], content.decode()) == ("notes", 1, "# Größe\n*fine*")


def test_an_image_is_an_image(archive):
    ((about, content),) = archive.uploads("visualization")
    assert (about["figName"], about["step"]) == ("valid/first image", 1)
    assert content.startswith(b"\x89PNG")


def test_a_table_is_a_csv_file_with_all_its_columns(archive):
    files = {about["fileName"]: content for about, content in archive.uploads("asset")}
    rows = csv.DictReader(io.StringIO(files["per class.csv"].decode()))
    assert list(rows) == [
        {"class": "a,b", "f1": "0.5", "n": ""}, {"class": "", "f1": "", "n": "3"}
    ]  # fmt: skip
    assert files["no rows.csv"].strip() == b""


def test_a_model_is_a_model_whether_file_or_directory(archive):
    models = {
        (about["groupingName"], Path(about["fileName"]).name): content
        for about, content in archive.uploads("model-element")
    }
    assert models == {
        ("weights", "weights.pt"): b"weights",
        ("weights", "config.json"): b"{}",
        ("one file", "config.json"): b"{}",
    }


def test_a_file_keeps_its_suffix_and_a_directory_its_files(archive):
    files = {about["fileName"]: content for about, content in archive.uploads("asset")}
    assert len(files["data/big.bin"]) == 100_000_000
    assert files["model/part/weights.pt"] == b"weights"


def test_the_experiment_belongs_to_its_project_and_says_how_it_ended(archive):
    assert archive.about["project_name"] == "lines"
    assert archive.others()["status"] == "completed"
    assert archive.others()["Name"] == archive.path.parent.parent.name


def test_nothing_automatic_is_recorded(archive):
    kinds = {each["type"] for each in archive.messages}
    assert kinds == {"metric_msg", "parameter_msg", "log_other", "file_upload"}
    assert not any(name.startswith("sys.") for name in archive.names())


def test_comets_own_reader_lists_the_same(archive):
    command = [sys.executable, "-m", "comet_ml.scripts.comet_offline", "--csv"]
    command += [str(archive.path), "--section", "metric", "--level", "detail"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    listed = {row[5] for row in csv.reader(io.StringIO(done.stdout)) if "metric" in row}
    assert archive.names() <= listed


def test_each_message_passes_the_check_that_comes_before_an_upload(archive):
    from comet_ml import schemas

    checks = {
        "metric_msg": schemas.get_metric_msg_validator(),
        "parameter_msg": schemas.get_parameter_msg_validator(),
        "log_other": schemas.get_log_other_msg_validator(),
        "file_upload": schemas.get_upload_msg_validator(),
    }
    few = archive.messages[:500] + archive.messages[-500:]
    for message in few:
        checks[message["type"]].validate(message["payload"])
    schemas.get_experiment_file_validator().validate(archive.about)
    assert json.dumps(archive.about)

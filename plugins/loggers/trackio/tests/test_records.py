"""What becomes of a run's records, read back with Trackio's own command and library."""

import math
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from trainbus import Trainer
from trainbus.testing import Line
from trainbus_trackio import Trackio

PROJECT, LONG = "größe of things", "n" * 5000
HPARAMS = {
    "lr": 0.1, "name": "größe", "size": (3, 4), "limit": None, "start": math.nan,
    "optimizer": {"betas": {"first": 0.5}}, "many": 10**40, "path": "\udcff", "_seed": 7,
    **{f"p{i}": i for i in range(10_000)},
}  # fmt: skip
TABLE = [{"class": "a|b", "f1": 0.5}, {"class": "größe", "f1": math.nan, "more": [1, 10**40]}]


@pytest.fixture(scope="module")
def fitted(place, tmp_path_factory, batches):
    """A fit that logs something of each kind; the run, what was told to others, its directory."""
    directory = tmp_path_factory.mktemp("fit")
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        Path("weights.pt").write_bytes(bytes(1234))
        Path("export/parts").mkdir(parents=True)
        Path("export/config.json").write_text("{}")
        Path("export/parts/größe 1.bin").write_bytes(b"one")
        trainer = Trainer(plugins=[Trackio(PROJECT, name="best one", group="first tries")])

        @trainer.on("metrics")
        def listen(step, metrics, time):
            told.append((step, dict(metrics), time))

        @trainer.on("train_batch_end", once=True)
        def log(run):
            run.log({"nan": math.nan, "inf": math.inf, "huge": -1e300, "größe, in µm": 1})
            run.log({"日本/損失 (raw)": 2, LONG: 3})
            run.log_tags({"team": "vision", "größe": "日本"})
            figure = Figure(figsize=(2, 1), dpi=50)
            figure.subplots().plot([1, 2])
            run.log_artifact("curve", figure, "figure")
            run.log_artifact("a/b c", torch.zeros(3, 4, 5), "image")
            run.log_artifact("time", TABLE, "table")
            run.log_artifact("my notes", "# Größe\n*fine*", "text")
            run.log_artifact("weights", "weights.pt", "file")
            run.log_artifact("the größe", "export", "model")

        run = trainer.fit(Line(**HPARAMS), batches)
        assert run.errors == []
    return run, told, directory / run.dir


def value(read, name):
    ((step, found),) = read(PROJECT).series(name)
    assert step == 1
    return found


def test_every_metric_is_there_once_with_its_step_and_its_time(fitted, cli):
    told = fitted[1]
    found = cli(
        "get", "metric", "--project", PROJECT, "--run", "best one", "--metric", "train/loss"
    )
    expected = [(step, m["train/loss"]) for step, m, _ in told if "train/loss" in m]
    assert [(each["step"], each["value"]) for each in found["values"]] == expected
    assert len(expected) == 5


def test_a_row_has_the_time_when_it_was_logged(fitted, read):
    from trainbus_trackio.store import iso

    rows = [row for row in read(PROJECT).logs() if "train/loss" in row]
    assert [row["timestamp"] for row in rows] == [
        iso(time) for _, metrics, time in fitted[1] if "train/loss" in metrics
    ]


def test_not_a_number_infinity_and_any_name_are_kept(fitted, read):
    assert math.isnan(value(read, "train/nan"))
    assert value(read, "train/inf") == math.inf
    assert value(read, "train/huge") == -1e300
    assert value(read, "train/größe, in µm") == 1
    assert value(read, "日本/損失 (raw)") == 2
    assert value(read, f"train/{LONG}") == 3


def test_parameters_are_the_configuration_as_they_are_nested(fitted, read):
    config = read(PROJECT).run.config
    assert config["lr"] == 0.1
    assert config["name"] == "größe"
    assert config["size"] == [3, 4]
    assert config["limit"] is None
    assert math.isnan(config["start"])
    assert config["optimizer"] == {"betas": {"first": 0.5}}
    assert config["many"] == str(10**40)
    assert config["path"] == "?"
    assert config["param/_seed"] == 7
    assert config["p9999"] == 9999


def test_tags_group_start_and_end_are_in_the_configuration(fitted, read):
    config = read(PROJECT).run.config
    assert (config["tag/team"], config["tag/größe"]) == ("vision", "日本")
    assert config["_Group"] == "first tries"
    assert config["run/status"] == "completed"
    assert config["_Created"] < read(PROJECT).logs()[-1]["timestamp"]


@pytest.mark.parametrize("name", ["curve", "a/b c"])
def test_figures_and_images_are_pictures(fitted, read, place, name):
    found = value(read, name)
    assert found["_type"] == "trackio.image"
    picture = (place / "media" / found["file_path"]).read_bytes()
    assert picture in [path.read_bytes() for path in (fitted[2] / "artifacts").glob("*.png")]


def test_a_text_is_a_report(fitted, cli):
    (report,) = cli("list", "reports", "--project", PROJECT)["reports"]
    assert (report["report"], report["content"]) == ("my notes", "# Größe\n*fine*")
    assert (report["run"], report["step"]) == ("best one", 1)


def test_a_table_is_a_table_and_a_reserved_name_gets_a_prefix(fitted, read):
    assert value(read, "__time") == {
        "_type": "trackio.table",
        "_value": [
            {"class": "a|b", "f1": 0.5},
            {"class": "größe", "f1": "NaN", "more": [1, str(10**40)]},
        ],
    }


def test_a_file_is_an_artifact(fitted, cli):
    found = cli("get", "artifact", "--project", PROJECT, "--name", "weights")
    assert [(each["path"], each["size"]) for each in found["manifest"]] == [("weights.pt", 1234)]
    assert (found["type"], found["version"], found["metadata"]) == ("file", 0, {"step": 1})


def test_a_directory_is_an_artifact_with_all_its_files(fitted, cli, tmp_path):
    import trackio
    from trackio.cas import blob_path

    (listed,) = (
        each
        for each in cli("list", "artifacts", "--project", PROJECT)["artifacts"]
        if each["type"] == "model"
    )
    assert listed["description"] == "the größe"
    found = cli("get", "artifact", "--project", PROJECT, "--name", listed["name"])
    assert {
        each["path"]: blob_path(PROJECT, each["digest"]).read_bytes() for each in found["manifest"]
    } == {"config.json": b"{}", "parts/größe 1.bin": b"one"}
    assert trackio.Artifact(listed["name"], "model").name == listed["name"]


def test_the_header_has_the_command_that_shows_it(fitted, place):
    expected = f"TRACKIO_DIR={place} trackio show --project 'größe of things'"
    assert fitted[0].header["trackio"] == expected


@pytest.mark.filterwarnings("ignore:Reserved keys renamed")
def test_rows_look_like_those_of_trackios_own_client(fitted, read):
    """Were they different, a newer Trackio might not show them."""
    import trackio

    own = trackio.init(project="own", name="one", embed=False, auto_log_cpu=False)
    own.log({"loss": math.nan, "note": trackio.Markdown("x"), "table": trackio.Table(data=[{}])})
    picture = next((fitted[2] / "artifacts").glob("*.png"))
    own.log({"picture": trackio.Image(picture), "time": 1})
    trackio.finish()
    rows = {name: each for row in read("own").logs() for name, each in row.items()}
    assert rows["note"] == {"_type": "trackio.markdown", "_value": "x"}
    assert rows["table"] == {"_type": "trackio.table", "_value": [{}]}
    assert rows["picture"].keys() == value(read, "curve").keys()
    assert rows["picture"]["_type"] == "trackio.image"
    assert rows["picture"]["file_path"].startswith("own/one/1/")
    assert value(read, "curve")["file_path"].startswith("größeofthings/best one/1/")
    assert "__time" in rows


@pytest.mark.slow
def test_a_hundred_megabytes_are_kept(batches, project, cli):
    Path("big.bin").write_bytes(bytes(100_000_000))
    trainer = Trainer(plugins=[Trackio(project)])
    trainer.on("fit_start")(lambda run: run.log_artifact("big", "big.bin"))
    assert trainer.fit(Line(), batches).errors == []
    found = cli("get", "artifact", "--project", project, "--name", "big")
    assert found["manifest"][0]["size"] == 100_000_000

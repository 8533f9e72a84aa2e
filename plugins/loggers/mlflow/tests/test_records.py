"""What a record becomes in MLflow, read back from its database."""

import json
import math
import time

import pytest
import torch

from trainbus import Artifact, PluginError, RecordRejected, Trainer
from trainbus.testing import Line
from trainbus_mlflow import MLflow, names

LARGEST = 1.7976931348623157e308


def test_nan_and_infinities(begun, read):
    case = begun()
    case.plugin.on_metrics(case.run, 1, {"nan": math.nan, "up": math.inf, "down": -math.inf}, 5.0)
    case.plugin.on_log_flush(case.run)
    remote = read(case.uri)
    assert math.isnan(remote.series("nan")[0][1])
    assert remote.series("up") == [(1, LARGEST)]  # that is how MLflow's database keeps infinity
    assert remote.series("down") == [(1, -LARGEST)]


def test_what_is_delivered_again_is_there_once(begun, read):
    case = begun()
    for last in (2, 3):  # the second delivery has one record more
        for step in range(1, last + 1):
            values = {"loss": 1 / step, "nan": math.nan, "inf": math.inf}
            case.plugin.on_metrics(case.run, step, values, 1_700_000_000 + step / 3)
        case.plugin.on_log_flush(case.run)
    remote = read(case.uri)
    assert remote.series("loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert [step for step, _ in remote.series("nan")] == [1, 2, 3]
    assert [step for step, _ in remote.series("inf")] == [1, 2, 3]


def test_a_step_that_goes_back_loses_nothing(begun, read):
    case = begun()
    for at, step in enumerate([1, 2, 3, 2, 3, 4]):
        case.plugin.on_metrics(case.run, step, {"loss": at}, 1_700_000_000 + at)
    case.plugin.on_log_flush(case.run)
    assert [step for step, _ in read(case.uri).series("loss")] == [1, 2, 3, 2, 3, 4]


def test_more_than_a_batch_of_metrics_is_sent(begun, read):
    case = begun()
    for step in range(50):
        case.plugin.on_metrics(case.run, step, {f"m{i}": step for i in range(45)}, 1e9 + step)
    case.plugin.on_log_flush(case.run)
    remote = read(case.uri)
    assert len(remote.names) == 45
    assert remote.series("m44") == [(step, step) for step in range(50)]


@pytest.mark.parametrize(
    "name", ["train/loss", "größe, in µm"[:5], "日本/損失", "a b", "a:b-c_d.e", "x" * 250]
)
def test_a_name_that_mlflow_takes_stays(name):
    assert names.name(name) == name


ODD = ["a(b)", "a[b]", "a_b_", "größe, in µm", "a//b", "/a", "a/", "../a", ".", "", "x" * 251,
       "x" * 252, "a\n", "😀", "%", "y" * 5000]  # fmt: skip


def test_other_names_are_changed_and_stay_apart(begun, read):
    sent = {name: names.name(name) for name in ODD}
    assert len(set(sent.values())) == len(ODD)
    case = begun()
    case.plugin.on_metrics(case.run, 1, dict.fromkeys(ODD, 1.0), 1e9)
    case.plugin.on_log_flush(case.run)
    case.plugin.on_params(case.run, dict.fromkeys(ODD, "p"))
    case.plugin.on_tags(case.run, dict.fromkeys(ODD, "t"))
    remote = read(case.uri)
    assert set(remote.names) == set(remote.params) == set(sent.values())
    assert set(sent.values()) <= set(remote.tags)
    assert sent["a(b)"] == "a_b_-" + sent["a(b)"][-8:]
    assert names.name("a(b)") == sent["a(b)"]
    assert len(sent["y" * 5000]) == 250


def test_one_number_that_mlflow_refuses_costs_only_itself(begun, read):
    case = begun()
    for step in range(300):
        case.plugin.on_metrics(case.run, step, {"good": step}, 1e9 + step)
        if step in (7, 200):
            case.plugin.on_metrics(case.run, step, {f"bad{step}": step}, -5.0)  # before 1970
    with pytest.raises(RecordRejected, match=r"metrics 'bad7', 'bad200': .*[Tt]imestamp"):
        case.plugin.on_log_flush(case.run)
    remote = read(case.uri)
    assert remote.names == ["good"]
    assert len(remote.series("good")) == 300


def test_a_run_that_is_deleted_meanwhile_loses_nothing(begun, read):
    from mlflow import MlflowClient

    case = begun()
    client, id = MlflowClient(tracking_uri=case.uri), case.run.state["run_id"]

    def deliver():
        for step in range(5):
            case.plugin.on_metrics(case.run, step, {"loss": step}, 1e9 + step)
        case.plugin.on_log_flush(case.run)

    client.delete_run(id)
    with pytest.raises(PluginError, match=f"mlflow runs restore --run-id {id}"):
        deliver()
    client.restore_run(id)
    deliver()
    assert len(read(case.uri, id).series("loss")) == 5


# --- parameters and tags -------------------------------------------------------------------------


def test_nested_long_and_odd_parameters(begun, read):
    case = begun()
    params = {
        "optimizer": {"name": "adam", "betas": [0.9, 0.999], "more": {"lr": 0.1}},
        "long": "x" * 10_000, "none": None, "flag": True, "empty": "", "größe": "日本",
    }  # fmt: skip
    for _ in range(2):  # as delivered again
        case.plugin.on_params(case.run, params)
    assert read(case.uri).params == {
        "optimizer.name": "adam", "optimizer.betas": "[0.9, 0.999]", "optimizer.more.lr": "0.1",
        "long": "x" * 5997 + "...", "none": "None", "flag": "True", "empty": "", "größe": "日本",
    }  # fmt: skip


@pytest.mark.slow
def test_ten_thousand_parameters(begun, read):
    case = begun()
    params = {f"layer {i // 100}": {} for i in range(10_000)}
    for i in range(10_000):
        params[f"layer {i // 100}"][f"p{i}"] = i
    case.plugin.on_params(case.run, params)
    remote = read(case.uri)
    assert len(remote.params) == 10_000
    assert remote.params["layer 99.p9999"] == "9999"


def test_a_parameter_that_changed_is_told_and_the_others_arrive(begun, read):
    case = begun()
    case.plugin.on_params(case.run, {"lr": 0.1, "width": 4})
    with pytest.raises(
        RecordRejected, match=r"'lr': .* first value of a run, '0.1', and not '0.2'"
    ):
        case.plugin.on_params(case.run, {"lr": 0.2, "width": 4, "depth": 3})
    assert read(case.uri).params == {"lr": "0.1", "width": "4", "depth": "3"}


def test_a_tag_can_change_and_a_long_one_is_cut(begun, read):
    case = begun()
    case.plugin.on_tags(case.run, {"team": "a", "long": "x" * 9000})
    case.plugin.on_tags(case.run, {"team": "b"})
    tags = read(case.uri).tags
    assert tags["team"] == "b"
    assert tags["long"] == "x" * 4997 + "..."


# --- artifacts -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def logged(tmp_path_factory, empty_database):
    """One run that logs an artifact of each kind."""
    import shutil

    from matplotlib.figure import Figure

    from trainbus import Task

    path = tmp_path_factory.mktemp("artifacts")
    shutil.copy(empty_database, path / "mlflow.db")
    (path / "export" / "deep").mkdir(parents=True)
    (path / "export" / "config.json").write_text("{}")
    (path / "export" / "deep" / "weights.bin").write_bytes(bytes(10))
    (path / "report.csv").write_text("a,b\n")
    figure = Figure()
    figure.add_subplot().plot([1, 2])

    class Nothing(Task):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(1, 1)

        def training_step(self, batch, run):
            run.log_artifact("report", path / "report.csv", "file")
            run.log_artifact("my model", path / "export", "model")
            run.log_artifact("curves/größe", figure, "figure")
            run.log_artifact("seven", torch.zeros(3, 2, 2), "image")
            run.log_artifact("seven", torch.ones(3, 2, 2), "image")
            run.log_artifact("../up: *here*?", torch.ones(3, 2, 2), "image")
            run.log_artifact("損失" * 100, "long", "text")
            run.log_artifact("notes", "# Größe", "text")
            rows = [{"class": "a", "f1": 0.5}, {"class": "b", "f1": math.nan, "n": 3}]
            run.log_artifact("per class", rows, "table")
            run.log_artifact("no rows", [], "table")
            return self.linear(batch).mean()

        def configure_optimizer(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    uri = f"sqlite:///{path}/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        run = Trainer(plugins=[MLflow(uri)]).fit(Nothing(), [torch.ones(1, 1)])
    return uri, run


def test_each_kind_of_artifact_is_a_file_with_its_step(logged, read):
    uri, run = logged
    assert run.errors == []
    files = read(uri).files()
    assert len(files) == 11
    assert {
        "report/step-00000001/report.csv",
        "my model/step-00000001/config.json",
        "my model/step-00000001/deep/weights.bin",
        "curves/größe/step-00000001.png",
        "seven/step-00000001.png",
        "notes/step-00000001.md",
        "per class/step-00000001.json",
        "no rows/step-00000001.json",
    } < set(files)


def test_odd_and_long_names_of_artifacts_become_paths(logged, read):
    folders = {file.rpartition("/")[0] for file in read(logged[0]).files()}
    assert any(folder.startswith("up_ _here__-") for folder in folders)
    (long,) = [folder for folder in folders if folder.startswith("損失損失")]
    assert len(long) == 60


def test_images_of_one_name_and_step_are_all_kept(logged, read):
    from io import BytesIO

    from PIL import Image

    remote = read(logged[0])
    first, second = sorted(file for file in remote.files() if file.startswith("seven/"))[::-1]
    assert {Image.open(BytesIO(remote.load(f))).getpixel((0, 0)) for f in (first, second)} == {
        (0, 0, 0),
        (255, 255, 255),
    }


def test_a_text_and_a_table_are_read_back(logged, read, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", logged[0])  # `load_table` looks there
    remote = read(logged[0])
    assert remote.load("notes/step-00000001.md").decode() == "# Größe"
    assert json.loads(remote.load("per class/step-00000001.json")) == {
        "columns": ["class", "f1", "n"],
        "data": [["a", 0.5, None], ["b", None, 3]],
    }
    experiment = remote.info.experiment_id
    table = remote.client.load_table(experiment, "per class/step-00000001.json", [remote.id])
    assert table["class"].tolist() == ["a", "b"]


def test_an_artifact_that_is_delivered_again_is_there_once(begun, read, tmp_path):
    case = begun()
    (tmp_path / "one.png").write_bytes(b"1")
    (tmp_path / "two.png").write_bytes(b"2")
    for _ in range(2):
        for case.run.record, file in ((4, "one.png"), (5, "two.png")):
            image = Artifact("seven", "image", tmp_path / file, 3)
            case.plugin.on_artifact(case.run, image)
            case.plugin.on_artifact(case.run, Artifact("rows", "table", [{"a": 1}], 3))
    remote = read(case.uri)
    assert [f for f in remote.files() if f.startswith("seven")] == [
        "seven/step-00000003-5.png",
        "seven/step-00000003.png",
    ]
    assert remote.load("seven/step-00000003.png") == b"1"
    assert remote.load("seven/step-00000003-5.png") == b"2"
    assert len(json.loads(remote.tags["mlflow.loggedArtifacts"])) == 2


# --- the machine ---------------------------------------------------------------------------------


def test_system_metrics_are_measured_beside_the_training(batches, read, database, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    trainer = Trainer(plugins=[MLflow(database, system_metrics=True)])
    trainer.on("train_batch_end")(lambda run: time.sleep(0.2))
    trainer.fit(Line(), batches * 3)
    remote = read(database)
    system = [name for name in remote.names if name.startswith("system/")]
    assert len(system) >= 7
    memory = remote.series("system/system_memory_usage_percentage")
    assert len(memory) >= 2
    assert all(0 < value < 100 for _, value in memory)
    assert [step for step, _ in memory] == sorted({step for step, _ in memory})


def test_a_replay_measures_nothing(info, database, read):
    plugin, run = MLflow(database, system_metrics=True), info(replay=True)
    plugin.on_log_start(run)
    plugin.on_metrics(run, 1, {"loss": 1.0}, 1e9)
    plugin.on_log_flush(run)
    assert read(database).names == ["loss"]

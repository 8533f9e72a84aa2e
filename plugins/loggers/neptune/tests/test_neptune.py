"""What Neptune's client keeps of a run, read back with its own reader."""

import base64
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trainbus import PluginError, Trainer
from trainbus.testing import Line
from trainbus_neptune import Neptune

LONG = "a" * 1500
PARAMS = {
    "width": 4, "name": "größe", "none": None, "nan": math.nan, "betas": [0.9, 0.99], "on": True,
    "optimizer": {"lr": 0.1, "schedule": {"warmup": 3}}, "wide": 2**40,
}  # fmt: skip


@pytest.fixture(scope="module")
def logged(batches, parts, tmp_path_factory):
    """One run that logs all that services choke on, and what its client kept."""
    directory = tmp_path_factory.mktemp("records")
    (directory / "model" / "part").mkdir(parents=True)
    (directory / "model" / "part" / "weights.pt").write_bytes(b"weights")
    (directory / "big.bin").write_bytes(bytes(100_000_000))
    trainer = Trainer(epochs=2, run_dir=directory / "runs", plugins=["neptune"])

    @trainer.on("train_batch_end", once=True)
    def log(run):
        run.log({"odd/nan": math.nan, "odd/inf": -math.inf, "my 損失/é (raw)": 2.5, LONG: 1})
        run.log({"train/loss/deeper": 1.0, "/": 1.0})
        run.log_params({f"param {i}": i for i in range(10_000)})
        run.log_tags({"team": "blue", "größe": "µm"})
        run.log_artifact("notes", "# Größe\n*fine*", "text")
        run.log_artifact("per class", [{"class": "a,b", "f1": 0.5}, {"n": 3}], "table")
        run.log_artifact("first image", torch.zeros(3, 2, 2), "image")
        run.log_artifact("weights", directory / "model", "model")
        run.log_artifact("data/big", directory / "big.bin", "file")

    @trainer.on("train_epoch_end", once=True)
    def go_back(run):
        run.global_step = 2

    run = trainer.fit(Line(**PARAMS), batches, batches)
    (offline,) = parts(run.dir / "neptune")
    return run, offline


def test_every_metric_is_there_at_its_step_also_when_that_goes_back(logged):
    _, offline = logged
    steps = [1, 2, 3, 4, 5, 3, 4, 5, 6, 7]
    assert [step for step, _ in offline.series("train/loss")] == steps
    assert len(offline.series("valid/loss")) == 2


def test_a_point_has_the_time_at_which_it_was_logged(logged):
    run, offline = logged
    times = [point.ts for point in offline.points("train/loss")]
    assert times == sorted(times)
    assert run.dir.stat().st_mtime - 60 < times[0] < run.dir.stat().st_mtime + 60


def test_any_name_is_kept(logged):
    _, offline = logged
    assert offline.series("my 損失/é (raw)") == [(1, 2.5)]
    assert offline.series(f"train/{LONG}") == [(1, 1.0)]


def test_what_neptune_never_takes_is_reported_once_and_costs_only_itself(logged):
    run, offline = logged
    (error,) = [error for error in run.errors if "odd/nan" in error]
    assert "plugin 'neptune'" in error
    assert "odd/nan is nan" in error
    assert "odd/inf is -inf" in error
    assert "train/loss/deeper" in error  # `train/loss` is a series, not a group of them
    assert not {"odd/nan", "odd/inf", "train/loss/deeper"} & offline.names()


def test_parameters_are_fields(logged):
    _, offline = logged

    newest = {"/".join(each.path): each for each in offline.operations}

    def value(name):
        return newest[f"parameters/{name}"].value

    assert (value("width"), value("name"), value("on"), value("wide")) == (4, "größe", True, 2**40)
    assert (value("none"), value("nan"), value("betas")) == ("None", "nan", "[0.9, 0.99]")
    assert (value("optimizer/lr"), value("optimizer/schedule/warmup")) == (0.1, 3)
    assert [value(f"param {i}") for i in range(10_000)] == list(range(10_000))


def test_tags_are_fields_and_labels(logged):
    _, offline = logged
    assert (offline.value("tags/team"), offline.value("tags/größe")) == ("blue", "µm")
    (labels,) = offline.of("sys/tags")
    assert labels.values == {"team: blue", "größe: µm"}


def test_artifacts_of_each_kind_are_kept(logged):
    _, offline = logged
    assert offline.file("text/notes/1").decode() == "# Größe\n*fine*"
    assert offline.file("table/per class/1").decode().split() == ["class,f1,n", '"a,b",0.5,', ",,3"]
    ((step, image),) = offline.series("image/first image")
    assert step == 1
    assert base64.b64decode(image.data).startswith(b"\x89PNG")
    assert len(offline.file("file/data/big/1")) == 100_000_000
    (model,) = offline.of("model/weights/1")
    assert [Path(path).name for path in model.file_globs] == ["model"]


def test_the_run_has_its_name_and_says_how_it_ended(logged):
    run, offline = logged
    assert offline.value("sys/name") == run.dir.name
    assert offline.value("trainbus/status") == "completed"
    assert offline.value("sys/failed") is False


def test_the_header_says_where_the_files_are_and_that_the_service_is_closed(logged):
    run, _ = logged
    directory = run.dir.absolute() / "neptune"
    assert run.header["neptune"] == f"files in {directory} (the service closed in March 2026)"


def test_a_failing_run_says_so(batches, parts):
    class Broken(Line):
        def training_step(self, batch, run):
            if run.global_step == 3:
                raise ZeroDivisionError("three")
            return super().training_step(batch, run)

    with pytest.raises(ZeroDivisionError):
        Trainer(plugins=[Neptune(dir="here", name="mine")]).fit(Broken(), batches)
    (offline,) = parts("here")
    assert offline.value("sys/failed") is True
    assert (offline.value("sys/name"), offline.value("trainbus/status")) == ("mine", "failed")
    assert [step for step, _ in offline.series("train/loss")] == [1, 2, 3]


def test_a_resumed_run_is_a_second_part_with_the_rest(batches, parts):
    def fit(epochs, resume=None):
        trainer = Trainer(epochs=epochs, plugins=["checkpoint", "neptune"])
        return trainer.fit(Line(), batches, resume=resume)

    run = fit(1)
    assert fit(2, "auto").dir == run.dir
    one, two = parts(run.dir / "neptune")
    assert [step for step, _ in one.series("train/loss")] == [1, 2, 3, 4, 5]
    assert [step for step, _ in two.series("train/loss")] == [6, 7, 8, 9, 10]
    assert one.value("trainbus/run") == two.value("trainbus/run") == run.dir.name


def test_one_instance_serves_several_runs(batches, parts):
    trainer = Trainer(epochs=1, plugins=[Neptune(dir="here")])
    trainer.fit(Line(width=4), batches)
    trainer.test(Line(), batches)
    first, second = parts("here")
    assert "parameters/width" in first.names()
    assert "parameters/width" not in second.names()
    assert len(second.series("test/loss")) == 1


def test_debug_goes_through_the_client_and_keeps_nothing(batches):
    run = Trainer(epochs=1, plugins=[Neptune(mode="debug")]).fit(Line(), batches)
    assert run.errors == []
    assert run.header["neptune"].startswith("debug mode, nothing is kept")
    assert not [path for path in (run.dir / "neptune").rglob("*") if path.is_file()]


def test_system_metrics_are_kept_if_they_are_asked_for(batches, parts):
    run = Trainer(epochs=1, plugins=[Neptune(system_metrics=True)]).fit(Line(), batches)
    (offline,) = parts(run.dir / "neptune")
    assert any(name.startswith("monitoring/") for name in offline.names())


def test_the_client_writes_nothing_to_the_terminal(batches, capfd):
    Trainer(epochs=1, plugins=["neptune"]).fit(Line(), batches)
    captured = capfd.readouterr()
    assert "neptune" not in captured.out + captured.err


def test_a_dry_run_leaves_nothing(batches, tmp_path):
    Trainer(plugins=[Neptune(dir="here")], dry_run=2).fit(Line(), batches)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["async", "sync", "read-only"])
def test_a_mode_that_needs_the_service_is_refused_with_the_reason(mode):
    with pytest.raises(PluginError, match=r"closed in March 2026.*'offline'"):
        Neptune(mode=mode)


def test_an_unknown_mode_is_refused():
    with pytest.raises(PluginError, match=r"mode='online'\): give 'offline' or 'debug'"):
        Neptune(mode="online")


def test_a_directory_that_cannot_be_made_stops_the_run(batches):
    Path("file").write_text("in the way")
    with pytest.raises(PluginError, match=r"plugin 'neptune' cannot begin: .*file"):
        Trainer(plugins=[Neptune(dir="file")]).fit(Line(), batches)


def test_without_the_sdk_the_run_does_not_start(batches, monkeypatch):
    monkeypatch.setitem(sys.modules, "neptune", None)
    with pytest.raises(PluginError, match=r"pip install 'neptune>=1.14'"):
        Trainer(plugins=["neptune"]).fit(Line(), batches)


def test_importing_the_plugin_imports_neither_torch_nor_the_sdk():
    code = (
        "import sys, trainbus_neptune; "
        "assert not {'torch', 'numpy', 'PIL', 'neptune'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

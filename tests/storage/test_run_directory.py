"""What a run leaves on the disk."""

import json

import pytest

from trainbus import Trainer
from trainbus.builtin import Checkpoint


def test_runs_of_the_same_second_get_directories_of_their_own(line, loader):
    trainer = Trainer()
    directories = {trainer.fit(line, loader).dir for _ in range(3)}
    assert len(directories) == 3
    assert all("_Line" in directory.name for directory in directories)


def test_without_a_plugin_that_writes_there_is_no_directory(line, loader, tmp_path):
    run = Trainer(plugins=["-manifest", "-journal"]).fit(line, loader)
    assert not run.has_dir
    assert list(tmp_path.iterdir()) == []


def test_evaluation_makes_no_directory(line, loader, tmp_path):
    Trainer().validate(line, loader)
    list(Trainer().predict(line, loader))
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_tells_what_the_run_was(line, loader):
    trainer = Trainer(epochs=2, seed=7, plugins=[Checkpoint(monitor="valid/loss")])
    run = trainer.fit(line, loader, loader)
    record = json.loads((run.dir / "run.json").read_text())
    assert record["status"] == "completed"
    assert (record["epochs"], record["steps"]) == (2, 10)
    assert record["trainer"]["seed"] == 7
    assert record["metrics"] == run.metrics
    plugins = {each["name"]: each for each in record["plugins"]}
    assert list(plugins) == ["journal", "manifest", "nonfinite", "checkpoint"]
    assert plugins["checkpoint"]["switched on by"] == "Trainer"
    assert plugins["checkpoint"]["options"]["monitor"] == "valid/loss"
    assert record["hooks"]["on_savepoint"] == ["checkpoint"]


def test_the_manifest_tells_how_a_failed_run_ended(make_line, loader, tmp_path):
    class Broken(make_line):
        def training_step(self, batch, run):
            run.dir.joinpath("seen").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        Trainer().fit(Broken(), loader)
    (path,) = tmp_path.glob("runs/*/run.json")
    assert json.loads(path.read_text())["status"] == "failed"

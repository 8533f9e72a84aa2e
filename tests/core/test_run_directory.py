"""What a run leaves on the disk."""

import json

import pytest
import torch

from trainbus import CheckpointError, Trainer, hookimpl
from trainbus.builtin import Checkpoint


def test_runs_of_the_same_second_get_directories_of_their_own(line, loader):
    trainer = Trainer()
    directories = {trainer.fit(line, loader).dir for _ in range(3)}
    assert len(directories) == 3
    assert all("_Line" in directory.name for directory in directories)


def test_without_a_plugin_that_writes_there_is_no_directory(line, loader, tmp_path):
    run = Trainer(plugins=["-manifest"]).fit(line, loader)
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
    assert list(plugins) == ["manifest", "nonfinite", "checkpoint"]
    assert plugins["checkpoint"]["switched on by"] == "Trainer"
    assert plugins["checkpoint"]["options"]["monitor"] == "valid/loss"
    assert record["hooks"]["on_epoch_end"] == ["checkpoint"]


def test_the_manifest_tells_how_a_failed_run_ended(make_line, loader, tmp_path):
    class Broken(make_line):
        def training_step(self, batch, run):
            run.dir.joinpath("seen").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        Trainer().fit(Broken(), loader)
    (path,) = tmp_path.glob("runs/*/run.json")
    assert json.loads(path.read_text())["status"] == "failed"


def test_the_best_and_the_last_state_are_kept(line, loader):
    best = Checkpoint(monitor="valid/loss", mode="max")  # the first epoch's is the largest
    trainer = Trainer(epochs=3, plugins=[best])
    weights = []
    trainer.on("epoch_end", tryfirst=True)(
        lambda run: weights.append(run.task.linear.weight.detach().clone())
    )
    run = trainer.fit(line, loader, loader)
    trained = line.linear.weight.detach().clone()
    assert best.best_path == run.dir / "checkpoints" / "best.pt"
    run.load_checkpoint(best.best_path)
    assert torch.equal(line.linear.weight, weights[0])
    run.load_checkpoint(run.dir / "checkpoints" / "last.pt")
    assert torch.equal(line.linear.weight, trained)
    assert (run.epoch, run.global_step) == (3, 15)


def test_a_checkpoint_holds_a_section_for_each_plugin_with_state(line, loader, record):
    class Counter:
        count = 0

        @hookimpl
        def on_fit_start(self):
            pass

        def state_dict(self):
            return {"count": self.count}

        def load_state_dict(self, state):
            self.count = state["count"]

    counter = Counter()
    trainer = Trainer(plugins=[counter])
    events = record(trainer)

    @trainer.on("epoch_end")
    def save(run):
        counter.count = 5
        run.save_checkpoint(run.dir / "state.pt")
        counter.count = 0
        run.load_checkpoint(run.dir / "state.pt")

    trainer.fit(line, loader)
    assert counter.count == 5
    assert [e for e in events if "checkpoint" in e] == ["checkpoint_saved", "checkpoint_loaded"]


def test_a_checkpoint_that_does_not_fit_says_where(line, loader):
    trainer = Trainer(plugins=["checkpoint"])
    run = trainer.fit(line, loader)
    path = run.dir / "checkpoints" / "last.pt"
    line.linear = torch.nn.Linear(5, 1)
    line.extra = torch.nn.Linear(1, 1, bias=False)
    with pytest.raises(CheckpointError) as caught:
        run.load_checkpoint(path)
    assert "linear.weight: (1, 4) in the file, (1, 5) in the model" in str(caught.value)
    assert "only in the model: extra.weight" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_damaged_or_missing_checkpoint(line, loader, tmp_path, content):
    path = tmp_path / "bad.pt"
    if content is not None:
        path.write_bytes(content)
    run = Trainer().fit(line, loader)
    with pytest.raises(CheckpointError, match=r"bad\.pt"):
        run.load_checkpoint(path)


def test_a_checkpoint_with_code_in_it_is_not_executed(line, loader, tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    torch.save({"format": 1, "model": Hostile()}, tmp_path / "hostile.pt")
    run = Trainer().fit(line, loader)
    with pytest.raises(CheckpointError, match="may execute code"):
        run.load_checkpoint(tmp_path / "hostile.pt")
    assert not (tmp_path / "executed").exists()


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(line, loader, tmp_path):
    trainer = Trainer()
    run = trainer.fit(line, loader)
    path = tmp_path / "state.pt"
    run.save_checkpoint(path)
    before = path.read_bytes()

    class Unsaveable:
        def state_dict(self):
            return {"socket": (i for i in range(3))}

        def load_state_dict(self, state):
            pass

    trainer.bus.register(Unsaveable(), "unsaveable")
    with pytest.raises(CheckpointError, match=r"state.pt: plugins: unsaveable: socket is a gen"):
        run.save_checkpoint(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.glob("*.pt*")] == ["state.pt"]

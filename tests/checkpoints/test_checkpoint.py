"""Checkpoints: what they hold, and what happens to damaged, foreign and hostile ones."""

import hashlib
import json
import logging
import shutil

import pytest
import torch

from trainbus import CheckpointError, Trainer, hookimpl
from trainbus.builtin import Checkpoint


class Counter:
    """A plugin with a state."""

    count = 0

    @hookimpl
    def on_train_batch_end(self):
        self.count += 1

    def state_dict(self):
        return {"count": self.count, "tensor": torch.ones(2)}

    def load_state_dict(self, state):
        self.count = state["count"]


@pytest.fixture
def saved(line, loader):
    """A run of two epochs that kept all its states."""
    return Trainer(epochs=2, plugins=[Checkpoint(keep_last=10)]).fit(line, loader, loader)


def states(run):
    return sorted(p.name for p in (run.dir / "checkpoints").iterdir())


def weights(task):
    return task.linear.weight.detach().clone()


def test_the_last_states_are_kept_and_older_ones_go(line, loader):
    run = Trainer(epochs=4, plugins=[Checkpoint(keep_last=2)]).fit(line, loader)
    assert states(run) == ["step-00000015", "step-00000020"]


def test_states_inside_an_epoch(line, loader):
    run = Trainer(plugins=[Checkpoint(every_steps=2, keep_last=9)]).fit(line, loader)
    assert states(run) == ["step-00000002", "step-00000004", "step-00000005"]


def test_the_best_states_are_kept_with_a_link_to_the_best(line, loader):
    keep = Checkpoint(monitor="valid/loss", keep_best=2)
    trainer = Trainer(epochs=4, plugins=[keep])
    after = {}
    trainer.on("epoch_end", tryfirst=True)(
        lambda run: after.update({run.global_step: weights(run.task)})
    )
    run = trainer.fit(line, loader, loader)  # the loss falls in every epoch
    assert states(run) == ["best", "best-00000015", "best-00000020", "step-00000020"]
    assert (run.dir / "checkpoints" / "best").resolve().name == "best-00000020"
    run.load_weights(run.dir / "checkpoints" / "best-00000015")
    assert torch.equal(line.linear.weight, after[15])


def test_a_best_that_gets_worse_stays(line, loader):
    keep = Checkpoint(monitor="valid/loss", mode="max")  # the first epoch's is the largest
    run = Trainer(epochs=3, plugins=[keep]).fit(line, loader, loader)
    assert keep.best_path(run).name == "best-00000005"


def test_a_manifest_tells_what_is_in_it(saved):
    manifest = json.loads((saved.dir / "checkpoints/step-00000010/manifest.json").read_text())
    assert manifest["about"] == {
        "run": "Line", "status": "running", "epoch": 2, "global_step": 10, "batches": 0,
        "order": 2,
    }  # fmt: skip
    assert set(manifest["parts"]) == {"model", "optimizers", "loop", "plugins"}
    assert manifest["versions"]["torch"] == str(torch.__version__)


def test_plugins_have_sections_and_absent_ones_are_kept(line, loader, caplog):
    counter = Counter()
    run = Trainer(plugins=[counter, "checkpoint"]).fit(line, loader)
    path = run.dir / "checkpoints" / "step-00000005"
    without = Trainer(epochs=2, plugins=["checkpoint"]).fit(line, loader, resume=path)
    assert "sections of plugins that are not active: counter; they are kept" in caplog.text
    fresh = Counter()
    last = without.dir / "checkpoints" / "step-00000010"
    Trainer(epochs=3, plugins=[fresh]).fit(line, loader, resume=last)
    assert fresh.count == 5 + 5


def test_a_section_that_could_not_be_read_again_is_refused(line, loader, tmp_path):
    class Unsaveable(Counter):
        def state_dict(self):
            return {"path": tmp_path}

    trainer = Trainer(plugins=[Unsaveable()])
    run = trainer.fit(line, loader)
    with pytest.raises(CheckpointError, match="plugins: unsaveable: path is a PosixPath"):
        run.save_checkpoint(tmp_path / "state")
    assert not (tmp_path / "state").exists()


def test_resume_auto_takes_the_newest_run_and_begins_one_where_there_is_none(line, loader):
    trainer = Trainer(epochs=1, plugins=["checkpoint"])
    first = trainer.fit(line, loader, resume="auto")
    again = Trainer(epochs=3, plugins=["checkpoint"]).fit(line, loader, resume="auto")
    assert again.dir == first.dir
    assert (again.epoch, again.global_step) == (3, 15)


def test_resume_best(line, loader):
    keep = Checkpoint(monitor="valid/loss", mode="max")
    Trainer(epochs=3, plugins=[keep]).fit(line, loader, loader)
    run = Trainer(epochs=2).fit(line, loader, resume="best")
    assert run.global_step == 10


def test_resume_best_without_one_is_told(line, loader):
    with pytest.raises(CheckpointError, match="no run in runs kept a best checkpoint"):
        Trainer().fit(line, loader, resume="best")


@pytest.mark.parametrize("part", ["model.pt", "optimizers.pt", "loop.pt", "plugins.pt"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_a_damaged_newest_one_gives_way_to_the_one_before(
    saved, line, loader, caplog, part, damage
):
    file = saved.dir / "checkpoints" / "step-00000010" / part
    data = bytearray(file.read_bytes())
    if damage == "truncated":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    else:
        file.unlink()
    run = Trainer(epochs=2).fit(line, loader, resume="auto")
    assert run.global_step == 10, "it went on from step 5"
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert any(part in text and "trying an older checkpoint" in text for text in warnings)


def test_a_damaged_manifest_gives_way_too(saved, line, loader, caplog):
    (saved.dir / "checkpoints" / "step-00000010" / "manifest.json").write_text("{")
    Trainer(epochs=2).fit(line, loader, resume="auto")
    assert "step-00000010 is damaged; trying an older checkpoint" in caplog.text


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_what_is_no_checkpoint_is_told(line, loader, tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=name):
        Trainer().fit(line, loader, resume=tmp_path / name)


def test_a_newer_format_is_told(saved, line, loader):
    path = saved.dir / "checkpoints" / "step-00000010"
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(CheckpointError, match="format 99, this trainbus reads up to"):
        Trainer().fit(line, loader, resume=path)


def test_code_in_a_part_is_not_executed(saved, line, loader, tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    path = saved.dir / "checkpoints" / "step-00000010"
    torch.save(Hostile(), path / "model.pt")
    manifest = json.loads((path / "manifest.json").read_text())
    digest = hashlib.sha256((path / "model.pt").read_bytes()).hexdigest()
    manifest["parts"]["model"] = {"sha256": digest, "bytes": 0}
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="may execute code"):
        Trainer().fit(line, loader, resume=path)
    assert not (tmp_path / "executed").exists()


def test_a_model_that_does_not_fit_says_where(saved, line):
    line.linear = torch.nn.Linear(5, 1)
    line.extra = torch.nn.Linear(1, 1, bias=False)
    with pytest.raises(CheckpointError) as caught:
        saved.load_checkpoint(saved.dir / "checkpoints" / "step-00000010")
    assert "linear.weight: (1, 4) in the file, (1, 5) in the model" in str(caught.value)
    assert "only in the model: extra.weight" in str(caught.value)


def test_another_loader_is_noticed(line, make_loader):
    trainer = Trainer(epochs=1, plugins=[Checkpoint(every_steps=4)])
    trainer.on("train_batch_end")(lambda run: run.global_step == 4 and run.stop())
    run = trainer.fit(line, make_loader(5))
    path = run.dir / "checkpoints" / "step-00000004"
    with pytest.raises(CheckpointError, match="behind batch 4 of its epoch, but the loader gave"):
        Trainer(epochs=1).fit(line, make_loader(2), resume=path)


def test_a_full_disk_leaves_the_checkpoint_of_before(saved, tmp_path):
    """A limit on the size of files stands for the full disk."""
    import resource

    path = tmp_path / "state"
    saved.save_checkpoint(path)
    before = {p.name: p.read_bytes() for p in path.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match="cannot write the checkpoint"):
            saved.save_checkpoint(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {p.name: p.read_bytes() for p in path.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir() if "state" in p.name] == ["state"]


def test_an_epoch_that_a_signal_cut_short_is_continued_with_the_same_bits(make_line, make_loader):
    import os
    import signal

    def fit(task, interrupt):
        trainer = Trainer(epochs=2, seed=1, accumulate=2, plugins=[Checkpoint(keep_last=9)])

        @trainer.on("train_batch_start")
        def press(run):
            if interrupt and run.epoch == 1 and run.batch_index == 1:
                os.kill(os.getpid(), signal.SIGINT)

        return trainer.fit(task, make_loader(5, shuffle=True), resume="auto")

    torch.manual_seed(0)
    whole = make_line(dropout=0.3)
    start = {name: value.clone() for name, value in whole.state_dict().items()}
    with pytest.raises(KeyboardInterrupt):
        fit(whole, interrupt=True)
    fit(whole, interrupt=False)
    shutil.rmtree("runs")
    other = make_line(dropout=0.3)
    other.load_state_dict(start)
    fit(other, interrupt=False)
    assert torch.equal(whole.linear.weight, other.linear.weight)


def test_an_epoch_without_validation_is_no_mistake(line, loader):
    keep = Checkpoint(monitor="valid/loss", keep_last=9)
    run = Trainer(epochs=3, validate_every=2, plugins=[keep]).fit(line, loader, loader)
    assert states(run) == [
        "best", "best-00000010", "best-00000015", "step-00000005", "step-00000010",
        "step-00000015",
    ], "the last weights are validated in any case; the best of before stays"  # fmt: skip


def test_a_run_that_is_stopped_in_its_first_epoch_keeps_its_last_state(line, loader):
    keep = Checkpoint(monitor="valid/loss")
    trainer = Trainer(epochs=3, plugins=[keep])
    trainer.on("train_batch_end")(lambda run: run.global_step == 2 and run.stop("enough"))
    run = trainer.fit(line, loader, loader)
    assert (run.status, states(run)) == ("stopped", ["step-00000002"])


def test_the_end_of_a_fit_is_kept_whatever_the_cadence(line, loader):
    run = Trainer(epochs=3, plugins=[Checkpoint(every_epochs=2)]).fit(line, loader)
    assert states(run) == ["step-00000015"]


def test_the_best_weights_are_those_that_were_measured(line, make_loader):
    keep = Checkpoint(monitor="valid/loss")
    valid = make_loader(2)
    run = Trainer(validate_every=0.5, plugins=[keep]).fit(line, make_loader(5), valid)
    run.load_weights(run.dir / "checkpoints" / "best")
    value = Trainer().validate(line, valid)["valid/loss"]
    assert value == pytest.approx(keep.best[0][0])


def test_what_does_not_fit_changes_nothing(saved, make_line, loader):
    class Two(make_line):
        def configure_optimizer(self):
            return [torch.optim.SGD([p], lr=0.1) for p in self.parameters()]

    task = Two()
    before = weights(task)
    path = saved.dir / "checkpoints" / "step-00000010"
    with pytest.raises(CheckpointError, match="holds 1 optimizers, the task has 2"):
        Trainer().fit(task, loader, resume=path)
    assert torch.equal(task.linear.weight, before)


def test_numbers_of_numpy_are_kept_as_plain_ones(make_line, loader):
    import numpy

    class Tuned(make_line):
        def configure_optimizer(self):
            return torch.optim.SGD(self.parameters(), lr=numpy.float64(0.01))

    run = Trainer(plugins=["checkpoint"]).fit(Tuned(), loader)
    assert states(run) == ["step-00000005"]

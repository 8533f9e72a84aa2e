"""The equal mean of the last epochs' weights, and statistics of its own."""

import pytest
import torch
from torch import nn

from trainbus import PluginError, Task, Trainer
from trainbus.builtin import SWA, Checkpoint

X = torch.randn(32, 3, generator=torch.Generator().manual_seed(0)) * 3 + 5
DATA = [(X[i : i + 8],) for i in range(0, 32, 8)]


class Net(Task):
    """A line behind a batch normalization, or without."""

    def __init__(self, norm=False):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3) if norm else nn.Identity()
        self.last = nn.Linear(3, 1)
        self.ends = []

    def training_step(self, batch, run):
        loss = self.last(self.norm(self.first(batch[0]))).pow(2).mean()
        run.log(loss=loss)
        return loss

    def validation_step(self, batch, run):
        run.log(loss=self.training_step(batch, run))

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(task, swa, epochs=4, **options):
    trainer = Trainer(epochs=epochs, plugins=[swa, *options.pop("plugins", [])], **options)
    trainer.on("epoch_end")(lambda run: task.ends.append(task.last.weight.detach().clone()))
    return trainer.fit(task, DATA, DATA, resume=options.get("resume"))


def test_the_mean_of_the_last_epochs_is_left():
    task = Net()
    fit(task, SWA(start=2))
    assert torch.allclose(task.last.weight, (task.ends[2] + task.ends[3]) / 2, atol=1e-7)


def test_a_part_of_the_run():
    task = Net()
    fit(task, SWA(start=0.5))
    assert torch.allclose(task.last.weight, (task.ends[2] + task.ends[3]) / 2, atol=1e-7)


def test_a_constant_rate_from_there_on():
    task, rates = Net(), []
    trainer = Trainer(epochs=2, plugins=[SWA(start=1, lr=0.5)])
    used = trainer.on("after_optimizer_step")
    used(lambda run: rates.append(run.optimizer.param_groups[0]["lr"]))
    trainer.fit(task, DATA)
    assert rates == [0.01] * 4 + [0.5] * 4


def test_statistics_are_those_of_the_averaged_weights():
    task = Net(norm=True)
    fit(task, SWA(start=1))
    with torch.no_grad():
        seen = [task.first(batch[0]) for batch in DATA]
    assert torch.allclose(task.norm.running_mean, torch.stack([s.mean(0) for s in seen]).mean(0))
    assert task.norm.momentum == 0.1


def test_training_is_not_changed_on_the_way():
    one, other = Net(), Net()
    fit(one, SWA(start=1))
    trainer = Trainer(epochs=4)
    trainer.on("epoch_end")(lambda run: other.ends.append(other.last.weight.detach().clone()))
    trainer.fit(other, DATA, DATA)
    assert all(map(torch.equal, one.ends, other.ends))


def test_a_resumed_run_has_the_same_mean():
    alone, stopped = Net(norm=True), Net(norm=True)
    Trainer(epochs=4, run_dir="one", plugins=[SWA(start=1)]).fit(alone, DATA)

    def go(**options):
        plugins = [SWA(start=1), Checkpoint()]
        trainer = Trainer(run_dir="two", plugins=plugins, **options)
        return trainer.fit(stopped, DATA, resume="auto")

    trainer = Trainer(epochs=4, run_dir="two", plugins=[SWA(start=1), Checkpoint()])
    trainer.on("epoch_end")(lambda run: run.stop() if run.epoch == 2 else None)
    trainer.fit(stopped, DATA, resume="auto")
    go(epochs=4)
    assert torch.equal(alone.last.weight, stopped.last.weight)


@pytest.mark.parametrize("options", [{"start": 1.5}, {"start": "x"}, {"lr": 0}, {"batches": 0}])
def test_what_cannot_be_is_refused(options):
    with pytest.raises(PluginError, match="give"):
        SWA(**options)


def test_a_step_that_needs_gradients_leaves_the_statistics_and_says_so(caplog):
    class Own(Net):
        manual = True

        def training_step(self, batch, run):
            loss = super().training_step(batch, run)
            run.backward(loss)
            run.optimizer_step()

        def validation_step(self, batch, run):
            run.log(loss=super().training_step(batch, run))

    task = Own(norm=True)
    fit(task, SWA(start=1))
    assert "statistics of batch normalization are those of training" in caplog.text
    norms = [each for each in task.modules() if isinstance(each, torch.nn.BatchNorm1d)]
    assert norms
    assert all(int(each.num_batches_tracked) > len(list(DATA)) for each in norms)

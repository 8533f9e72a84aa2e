"""What is logged of the optimizers, and that it costs nothing where nobody records."""

import pytest
import torch

from trainbus import Task, Trainer
from trainbus.builtin import Clip, Watch
from trainbus.testing.synchronisations import Waiting

DATA = [torch.ones(2, 3)] * 4


class Net(Task):
    """A line with an optimizer of two groups, or another."""

    def __init__(self, configure=None):
        super().__init__()
        torch.manual_seed(0)
        self.line = torch.nn.Linear(3, 1)
        self.configure = configure or (lambda task: torch.optim.SGD(task.parameters(), lr=0.1))

    def training_step(self, batch, run):
        return self.line(batch).mean()

    def configure_optimizer(self):
        return self.configure(self)


def fit(task, watch, **options):
    rows = {}
    trainer = Trainer(plugins=[watch, *options.pop("plugins", [])], **options)
    trainer.on("metrics")(lambda run, step, metrics: rows.setdefault(step, {}).update(metrics))
    trainer.fit(task, DATA)
    return rows


def test_rates_and_norms_of_each_step():
    rows = fit(Net(), Watch())
    norm = torch.tensor([1.0, 1.0, 1.0, 1.0]).norm().item()  # of the weights and of the bias
    assert sorted(rows) == [1, 2, 3, 4]
    for row in rows.values():
        assert row["train/lr"] == 0.1
        assert row["train/grad_norm"] == pytest.approx(norm)


def test_momentum_and_decay_by_group():
    def configure(task):
        groups = [
            {"params": [task.line.weight], "name": "body", "lr": 0.1},
            {"params": [task.line.bias], "lr": 0.2},
        ]
        return torch.optim.AdamW(groups, lr=0.1, betas=(0.8, 0.9), weight_decay=0.5)

    row = fit(Net(configure), Watch())[1]
    assert (row["lr/body"], row["lr/1"]) == (0.1, 0.2)
    assert (row["train/momentum"], row["train/weight_decay"]) == (0.8, 0.5)


def test_updates_are_measured_against_the_weights():
    task = Net()
    before = torch.cat([p.detach().flatten() for p in task.parameters()])
    row = fit(task, Watch(updates=True, layers=True), max_steps=1)[1]
    ratio = 0.1 * 2.0 / before.norm().item()
    assert row["train/update_ratio"] == pytest.approx(ratio, rel=1e-5)
    assert row["update_ratio/line.bias"] == pytest.approx(0.1 / abs(before[-1].item()), rel=1e-4)
    assert row["grad_norm/line.weight"] == pytest.approx(3**0.5)


def test_norms_are_those_before_clipping():
    row = fit(Net(), Watch(), plugins=[Clip(0.1)])[1]
    assert row["train/grad_norm"] == pytest.approx(2.0)


def test_only_steps_that_record_are_measured(monkeypatch):
    norms, own = [], torch._foreach_norm
    monkeypatch.setattr(torch, "_foreach_norm", lambda *a: norms.append(1) or own(*a))
    rows = fit(Net(), Watch(), log_every=2)
    assert sorted(step for step in rows if "train/grad_norm" in rows[step]) == [2, 4]
    assert len(norms) == 2


def test_several_optimizers_have_numbers():
    def configure(task):
        return [
            torch.optim.SGD([p], lr=lr) for p, lr in zip(task.parameters(), (0.1, 0.2), strict=True)
        ]

    row = fit(Net(configure), Watch())[1]
    assert (row["lr/0"], row["lr/1"]) == (0.1, 0.2)
    assert row["grad_norm/1"] == 1.0


def test_the_device_is_not_waited_for():
    def waited(plugins):
        waiting = Waiting()
        trainer = Trainer(plugins=plugins)
        trainer.on("train_batch_start")(lambda: setattr(waiting, "on", True))
        trainer.on("train_batch_end")(lambda: setattr(waiting, "on", False))
        with waiting.watching():
            trainer.fit(Net(), DATA)
        return waiting.places.total()

    assert waited([Watch(updates=True, layers=True)]) == waited([])

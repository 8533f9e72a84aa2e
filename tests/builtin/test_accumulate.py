"""Windows of accumulated batches that change with the epochs."""

import pytest
import torch
from torch.nn import functional

from trainbus import PluginError, Trainer, hookimpl
from trainbus.builtin.accumulate import Accumulate


class Steps:
    """Notes the optimizer steps of each epoch."""

    def __init__(self):
        self.by_epoch = {}

    @hookimpl
    def on_after_optimizer_step(self, run):
        self.by_epoch[run.epoch] = self.by_epoch.get(run.epoch, 0) + 1


def test_steps_are_made_of_the_batches_that_the_epoch_says(line, make_loader):
    steps = Steps()
    trainer = Trainer(epochs=5, plugins=[Accumulate({1: 4, 3: 1}), steps], accumulate=2)
    trainer.fit(line, make_loader(batches=8))
    assert steps.by_epoch == {0: 4, 1: 2, 2: 2, 3: 8, 4: 8}


def test_the_order_of_the_epochs_does_not_matter():
    plugin = Accumulate({8: 1, 0: 8, 4: 4})
    assert [plugin.window(epoch, 99) for epoch in (0, 3, 4, 7, 8, 20)] == [8, 8, 4, 4, 1, 1]


def test_the_weights_are_those_of_a_loop_by_hand(make_line, make_loader):
    """Windows of 3 and then of 2 over 5 batches, the last window of each epoch short."""
    by_hand, task = make_line(), make_line()
    task.load_state_dict(by_hand.state_dict())
    loader = make_loader(batches=5)
    Trainer(epochs=2, plugins=[Accumulate({0: 3, 1: 2})]).fit(task, loader)

    optimizer = by_hand.configure_optimizer()
    batches = list(loader)
    for window in (3, 2):
        for start in range(0, len(batches), window):
            part = batches[start : start + window]
            for x, y in part:
                (functional.mse_loss(by_hand(x), y) / len(part)).backward()
            optimizer.step()
            optimizer.zero_grad()
    for a, b in zip(task.parameters(), by_hand.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_trainers_value_is_there_at_the_end(line, make_loader):
    run = Trainer(epochs=1, plugins=[Accumulate({0: 4})], accumulate=2).fit(line, make_loader())
    assert run.accumulate == 2


def test_it_works_in_a_loop_of_ones_own(line, make_loader):
    with Trainer(plugins=[Accumulate({0: 4, 1: 2})]).open(line) as run:
        for batch in run.batches(make_loader(batches=8), epochs=2):
            run.step(line.training_step(batch, run))
    assert run.global_step == 2 + 4


def test_the_option_comes_from_a_file(tmp_path):
    (tmp_path / "trainbus.toml").write_text(
        'plugins = ["trainbus.builtin.accumulate:Accumulate"]\n'
        "options.accumulate.windows = {0 = 8, 4 = 1}\n"
    )
    assert Trainer().bus.plugins["accumulate"].windows == {0: 8, 4: 1}


def test_the_option_comes_from_a_shell(monkeypatch):
    monkeypatch.setenv("TRAINBUS_ACCUMULATE_WINDOWS", "{0 = 8, 4 = 1}")
    trainer = Trainer(plugins=["trainbus.builtin.accumulate:Accumulate"])
    assert trainer.bus.plugins["accumulate"].windows == {0: 8, 4: 1}


@pytest.mark.parametrize("windows", [{}, {0: 0}, {-1: 2}, {0: 1.5}, {0: True}, {"0": 2}, 4])
def test_wrong_windows_are_refused(windows):
    with pytest.raises(PluginError, match="windows="):
        Accumulate(windows)

"""A run that goes on with batches of another size: what is exact, and what is told."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from trainbus import Loader, Task, Trainer

SAMPLES = 60


class Seen(Task):
    """Notes which samples it was trained on."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(1, 2)
        self.seen = []

    def training_step(self, batch, run):
        self.seen += batch[0].flatten().int().tolist()
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=0.001)


def data():
    return TensorDataset(
        torch.arange(SAMPLES).float()[:, None], torch.zeros(SAMPLES, dtype=torch.long)
    )


def trainer(epochs=1, **options):
    return Trainer(epochs=epochs, plugins=["checkpoint"], run_dir="runs", seed=1, **options)


def stopped_and_resumed(make_loader, first, then, batches=3, epochs=1):
    task = Seen()
    trainer(epochs, max_steps=batches).fit(task, make_loader(first))
    run = trainer(epochs).fit(task, make_loader(then), resume="auto")
    assert run.status == "completed"
    return task.seen


def ours(size):
    return Loader(data(), size, shuffle=True)


@pytest.mark.parametrize("first", [4, 7, 8])
@pytest.mark.parametrize("then", [1, 3, 4, 5, 8, 16, 60])
def test_a_loader_of_trainbus_goes_on_at_the_sample(caplog, first, then):
    assert sorted(stopped_and_resumed(ours, first, then)) == list(range(SAMPLES))
    assert (f"this run has batches of {then}" in caplog.text) == (first != then)
    assert "tells a length" not in caplog.text


def test_it_does_so_a_third_time():
    task = Seen()
    for size, steps in ((8, 2), (5, 4), (3, None)):
        trainer(max_steps=steps).fit(task, ours(size), resume="auto")
    assert sorted(task.seen) == list(range(SAMPLES))


@pytest.mark.parametrize(("then", "twice"), [(4, 0), (12, 0), (16, 8)])
def test_another_loader_is_read_again_and_no_sample_is_left_out(caplog, then, twice):
    def plain(size):
        return DataLoader(data(), size)

    seen = stopped_and_resumed(plain, 8, then)
    assert set(seen) == set(range(SAMPLES))
    assert len(seen) - SAMPLES == twice
    assert ("trained on twice" in caplog.text) == bool(twice)
    assert f"made with batches of 8, this run has batches of {then}" in caplog.text


def test_between_epochs_it_is_told(caplog):
    seen = stopped_and_resumed(ours, 6, 10, batches=10, epochs=2)
    assert sorted(seen) == sorted([*range(SAMPLES)] * 2)
    assert "made with batches of 6, this run has batches of 10" in caplog.text


def test_another_window_inside_an_epoch_is_told(caplog):
    task = Seen()
    trainer(max_steps=2, accumulate=2).fit(task, ours(6))
    trainer(accumulate=3).fit(task, ours(6), resume="auto")
    assert sorted(task.seen) == list(range(SAMPLES))
    assert "made with accumulate=2, this run has 3" in caplog.text


@pytest.mark.parametrize(("first", "then", "stop"), [(8, 16, 7), (16, 8, 3), (8, 4, 5)])
def test_the_last_weights_are_validated_once(first, then, stop):
    def made(**options):
        return trainer(validate_every=0.5, **options)

    class Validated(Seen):
        def validation_step(self, batch, run):
            validated.append(run.global_step)

    validated, task = [], Validated()
    made(max_steps=stop).fit(task, ours(first), [next(iter(ours(4)))])
    before = len(validated)
    run = made().fit(task, ours(then), [next(iter(ours(4)))], resume="auto")
    assert validated[-1] == run.global_step
    assert len(set(validated[before:])) == len(validated[before:])


@pytest.mark.parametrize("limit", [3, 6])
def test_a_limit_that_is_passed_already_ends_the_epoch(limit):
    task = Seen()
    trainer(max_steps=6).fit(task, ours(6))
    run = trainer(limit_batches=limit).fit(task, ours(6), resume="auto")
    assert (run.status, run.epoch) == ("completed", 1)

"""Throughput: samples, tokens, floating-point operations, and the share of the device's peak."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from trainbus import Accelerator, PluginError, Task, Trainer
from trainbus_profiler import Profiler

#: A linear layer of 64 to 128 for 8 samples: a product forward, and one backward, for the weight;
#: the input needs no gradient. A multiplication and an addition are two operations.
FLOPS = 2 * (2 * 8 * 64 * 128)


class Wide(Task):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 128)

    def training_step(self, batch, run):
        return self.linear(batch).square().mean()

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Manual(Wide):
    def training_step(self, batch, run):
        run.backward(super().training_step(batch, run))
        run.optimizer_step()


@pytest.fixture
def fitted():
    """`fitted(task, batches, **options)`: the profile and its speed."""

    def fit(task, batches, accelerator="auto", accumulate=1, **options):
        profiler = Profiler(trace=0, show=False, **options)
        trainer = Trainer(plugins=[profiler], accelerator=accelerator, accumulate=accumulate)
        run = trainer.fit(task, batches)
        profile = profiler.profile
        return run, profile, profile.speed(profile.timeline.sections["steps"])

    return fit


def batches(count=6):
    return [torch.randn(8, 64) for _ in range(count)]


@pytest.mark.parametrize("task", [Wide, Manual])
def test_operations_are_exact_for_a_linear_layer(fitted, task):
    _, profile, speed = fitted(task(), batches())
    assert profile.flops == FLOPS
    assert speed["flops_per_second"] == pytest.approx(FLOPS / speed["step_seconds"])


def test_operations_of_an_accumulated_batch_are_those_of_one_batch(fitted):
    _, profile, _ = fitted(Wide(), batches(), accumulate=2)
    assert profile.flops == FLOPS


def test_operations_in_a_loop_by_hand(fitted):
    profiler = Profiler(trace=0, show=False)
    task = Wide()
    with Trainer(plugins=[profiler]).open(task) as run:
        for batch in run.batches(batches(), epochs=1):
            run.step(task.training_step(batch, run))
    assert profiler.profile.flops == FLOPS


def test_the_batch_that_is_counted_is_told_apart(fitted):
    _, profile, _ = fitted(Wide(), batches(6))
    assert profile.of("observed").batches == 1
    assert profile.of("steps").batches == 4


def test_samples_per_second(fitted):
    _, profile, speed = fitted(Wide(), batches(6))
    steps = profile.timeline.sections["steps"]
    assert steps.samples == 4 * 8
    assert speed["samples_per_second"] == pytest.approx(4 * 8 / steps.seconds)


class Known(Accelerator):
    """A CPU that knows what it can."""

    def peak_flops(self, dtype):
        return {torch.float32: 1e12}.get(dtype)


def test_utilisation_where_the_peak_is_known(fitted):
    run, _, speed = fitted(Wide(), batches(), accelerator=Known())
    assert speed["utilisation"] == pytest.approx(speed["flops_per_second"] / 1e12)
    assert run.metrics["profile/utilisation"] > 0


def test_without_a_known_peak_utilisation_is_left_out(fitted):
    run, _, speed = fitted(Wide(), batches())
    assert "utilisation" not in speed
    assert "profile/utilisation" not in run.metrics


class Words(Task):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 4)

    def training_step(self, batch, run):
        words = next(iter(batch.values()))
        return functional.mse_loss(self.embedding(words), torch.zeros(*words.shape, 4))

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


@pytest.mark.parametrize(("key", "option"), [("input_ids", None), ("words", "words")])
def test_tokens_per_second(fitted, key, option):
    sentences = [{key: torch.randint(0, 10, (2, 7))} for _ in range(6)]
    _, profile, speed = fitted(Words(), sentences, tokens=option)
    assert profile.timeline.sections["steps"].tokens == 4 * 14
    assert speed["tokens_per_second"] == pytest.approx(7 * speed["samples_per_second"])


def test_memory_is_logged_and_told(fitted):
    run, profile, _ = fitted(Wide(), batches())
    assert run.metrics["profile/memory_allocated"] > 1e6
    assert profile.memory["peak"] >= 1e6


def test_memory_switched_off_is_not_logged(fitted):
    run, profile, _ = fitted(Wide(), batches(), memory=False)
    assert not any("memory" in name for name in run.metrics)
    assert profile.memory == {}


def test_a_negative_number_of_steps_is_refused():
    with pytest.raises(PluginError, match="trace=-1: give a whole number of at least 0"):
        Profiler(trace=-1)

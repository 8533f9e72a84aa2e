"""The sentence in the end names the largest part that could be smaller, and how."""

import re
import time

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from trainbus import Accelerator, Trainer
from trainbus_profiler import Profiler


@pytest.fixture
def sentence():
    """`sentence(task, loader, *plugins, **settings)`: what the profiler says in the end."""

    def fit(task, loader, *plugins, valid=None, **settings):
        profiler = Profiler(trace=0, memory=False, flops=False, show=False)
        Trainer(plugins=[profiler, *plugins], **settings).fit(task, loader, valid)
        return profiler.text.splitlines()[-1]

    return fit


def percent(text):
    return int(re.match(r"(\d+)%", text)[1])


class Slow(Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, index):
        time.sleep(0.005)
        return torch.randn(4)


def test_waiting_for_data_is_named_with_its_share(sentence, make_line):
    said = sentence(make_line(forward=0.006), DataLoader(Slow(), batch_size=2))
    assert "of each step waits for data: raise num_workers (it is 0)" in said
    assert percent(said) == pytest.approx(60, abs=10)  # 10 of 16 ms, and what the rest takes


def test_a_loader_without_workers_gets_another_hint(sentence, make_line, make_batches):
    said = sentence(make_line(), make_batches(seconds=0.005))
    assert "DataLoader or trainbus.Loader" in said


def test_a_slow_listener_is_named(sentence, make_line, make_batches, make_sleeper):
    said = sentence(make_line(), make_batches(), make_sleeper(0.01))
    assert "'sleeper', on_train_batch_end" in said
    assert "-p no:sleeper" in said
    assert percent(said) > 70


def test_a_slow_function_that_cannot_be_switched_off_by_name(make_line, make_batches):
    profiler = Profiler(trace=0, memory=False, flops=False, show=False)
    trainer = Trainer(plugins=[profiler])
    trainer.on("after_loss")(slow_function)
    trainer.fit(make_line(), make_batches())
    assert "is spent in 'slow_function', on_after_loss" in profiler.text
    assert "-p no:" not in profiler.text


def slow_function(_run=None):
    time.sleep(0.005)


def test_a_slow_optimizer_is_named(sentence, make_line, make_batches):
    said = sentence(make_line(step=0.005), make_batches())
    assert "is spent in the optimizer: try SlowSGD(..., fused=True)" in said


def test_too_much_validation_is_named(sentence, make_line, make_batches):
    said = sentence(make_line(), make_batches(), valid=make_batches(10, seconds=0.01))
    assert "of the run is validation: validate less often" in said


def test_else_the_model_is_the_limit(sentence, make_line, make_batches):
    said = sentence(make_line(forward=0.02, backward=0.02), make_batches(seconds=0.0005))
    assert re.match(r"\d+% .*|the forward and backward passes take \d+% of each step", said)
    assert "the model itself is the limit" in said


class Queue(Accelerator):
    """A device that works by itself: the host gives it work, and goes on."""

    priority = -1

    def __init__(self):
        super().__init__()
        self.name = "queue"
        self.device = _Kind("queue")
        self.busy_until = 0.0

    def unavailable(self):
        return None

    def select(self, index):
        pass

    def give(self, seconds):
        self.busy_until = max(self.busy_until, time.perf_counter()) + seconds

    def place_module(self, module):
        return module

    def place_batch(self, batch):
        return batch

    def random_state(self):
        return Accelerator().random_state()

    def set_random_state(self, state):
        Accelerator().set_random_state(state)

    def memory_stats(self):
        return {}

    def synchronize(self):
        time.sleep(max(0.0, self.busy_until - time.perf_counter()))


class _Kind(str):
    """A device of another type than the CPU, as far as the profiler looks."""

    type = "queue"


def test_what_the_host_does_while_the_device_works_is_no_bottleneck(make_line, make_batches):
    """Reading takes 2 ms and the device 5: the host is always ahead, and waits at the end."""
    device = Queue()

    class OnDevice(make_line):
        def training_step(self, batch, run):
            loss = super().training_step(batch, run)
            device.give(0.005)
            if run.batch_index % 4 == 3:  # a queue of limited length
                device.synchronize()
            return loss

    profiler = Profiler(trace=0, memory=False, flops=False, show=False)
    trainer = Trainer(accelerator=device, plugins=[profiler])
    trainer.fit(OnDevice(), make_batches(104, seconds=0.002))
    assert profiler.profile.of("waited").batches == 5
    assert "the device works" in profiler.text.splitlines()[-1]
    assert "the model itself is the limit" in profiler.text.splitlines()[-1]
    assert "times of the host" in profiler.text

"""A part of each parameter in each process: the bits of one process, in states that any reads."""

import time

import pytest
import torch
from torch import nn

from trainbus import Task, Trainer, UsageError, hookimpl
from trainbus.builtin import EMA, Checkpoint, Schedule
from trainbus.testing.processes import ranks
from trainbus_distributed import Distributed
from trainbus_distributed.fsdp import blocks_of

from .conftest import Small, digest, loader


class Deep(Small):
    """Blocks that repeat, of sizes that two does not divide."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(8, 15), *[nn.Sequential(nn.Linear(15, 15), nn.Tanh()) for _ in range(2)],
            nn.Linear(15, 2),
        )  # fmt: skip


class Adam(Deep):
    """The same, with moments."""

    def configure_optimizer(self):
        return torch.optim.AdamW(self.parameters(), lr=0.01)


def whole(task):
    """The weights, each whole, and a text for them."""
    state = {
        name: each.full_tensor() if hasattr(each, "full_tensor") else each
        for name, each in task.state_dict().items()
    }
    other = type(task)()
    other.load_state_dict(state)
    return digest(other)


def train(kind=Deep, strategy="fsdp", plugins=(), resume=None, count=60, **options):
    task = kind()
    chosen = Distributed(strategy=strategy, timeout=20.0)
    trainer = Trainer(plugins=[chosen, *plugins], **{"epochs": 2, "seed": 1, **options})
    run = trainer.fit(task, loader(count), loader(22), resume=resume)
    return {"digest": whole(task), "metrics": dict(run.metrics), "dir": str(run.dir),
            "header": run.header.get("distributed", "")}  # fmt: skip


@pytest.mark.parametrize("kind", [Deep, Adam])
@pytest.mark.parametrize("count", [64, 57])
def test_two_processes_are_one_with_a_window_of_two(kind, count):
    first, second = ranks(2, lambda: train(kind, count=count))
    one = train(kind, count=count, accumulate=2)
    assert first["digest"] == second["digest"] == one["digest"]
    assert first["metrics"]["valid/loss"] == pytest.approx(one["metrics"]["valid/loss"], abs=1e-7)
    assert first["metrics"]["valid/accuracy"] == pytest.approx(
        one["metrics"]["valid/accuracy"], abs=1e-9
    )


def test_copies_of_parts():
    told = ranks(4, lambda: train(strategy="hsdp", plugins=[]))
    assert len({each["digest"] for each in told}) == 1


def test_states_load_at_any_number_of_processes():
    def save():
        return train(Adam, plugins=[Checkpoint()], epochs=1)

    first, _ = ranks(2, save)
    (state,) = (each for each in _states(first["dir"]) if each.name.startswith("step-"))

    def go_on(size):
        return train(Adam, plugins=["-journal"], epochs=2, accumulate=2 // size, resume=state)

    two = ranks(2, lambda: go_on(2))
    one = go_on(1)
    straight = ranks(2, lambda: train(Adam, epochs=2))
    assert two[0]["digest"] == straight[0]["digest"] == one["digest"]


def _states(directory):
    from pathlib import Path

    return list((Path(directory) / "checkpoints").iterdir())


@pytest.mark.parametrize("plugin", ["clip", "ema", "nonfinite", "schedule", "watch", "summary"])
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_plugins_of_the_core(plugin, strategy):
    def go(accumulate=1):
        chosen = {
            "ema": EMA(decay=0.9), "nonfinite": "nonfinite", "schedule": Schedule(name="one_cycle"),
        }.get(plugin, plugin)  # fmt: skip
        return train(
            strategy=strategy, plugins=[chosen, Checkpoint()], accumulate=accumulate, epochs=2
        )

    first, second = ranks(2, go)
    one = go(2)
    assert first["digest"] == second["digest"]
    assert first["metrics"]["valid/loss"] == pytest.approx(one["metrics"]["valid/loss"], abs=1e-6)
    if plugin != "clip":
        assert first["digest"] == one["digest"]


@pytest.mark.slow
def test_an_average_of_shared_weights_goes_on():
    def go(epochs, resume=None):
        return train(plugins=[EMA(decay=0.9), Checkpoint()], epochs=epochs, resume=resume)

    straight = ranks(2, lambda: go(2))
    left = ranks(2, lambda: go(1))
    back = ranks(2, lambda: go(2, resume=_states(left[0]["dir"])[0]))
    assert back[0]["digest"] == straight[0]["digest"]
    assert back[0]["metrics"]["valid/loss"] == pytest.approx(
        straight[0]["metrics"]["valid/loss"], rel=1e-6
    )


def test_validation_with_fewer_batches_in_one_process():
    class Seen(Deep):
        def __init__(self):
            super().__init__()
            self.meter = _Count()

        def validation_step(self, batch, run):
            super().validation_step(batch, run)
            self.meter.update(len(batch[0]))

    class Note:
        @hookimpl
        def on_validation_end(self, run):
            run.header["seen"] = str(run.task.meter.total)

    def go():
        task = Seen()
        run = Trainer(epochs=1, plugins=[Distributed(strategy="fsdp"), Note()], seed=1).fit(
            task, loader(40), loader(21)
        )
        return int(run.header["seen"])

    assert sum(ranks(2, go)) == 21


class _Count:
    """A metric object."""

    def __init__(self):
        self.total = 0

    def update(self, more):
        self.total += more

    def compute(self):
        return self.total

    def reset(self):
        self.total = 0


def test_what_is_sharded_by_itself():
    assert list(blocks_of(Deep().net)) == []
    stack = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
    assert list(blocks_of(nn.ModuleDict({"layers": stack}))) == ["layers.0", "layers.1", "layers.2"]
    assert list(blocks_of(Deep(), ["net.1", "net.2"])) == ["net.1", "net.2"]
    with pytest.raises(UsageError, match="fits no module"):
        blocks_of(Deep(), ["nothing.*"])


def test_an_optimizer_of_before_is_an_error():
    def go():
        net = Deep().net
        trainer = Trainer(plugins=[Distributed(strategy="fsdp")])
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        with pytest.raises(UsageError, match="configure_optimizer"), trainer.open(net, optimizer):
            pass

    ranks(2, go)


def test_a_task_that_steps_by_itself():
    class ByItself(Deep):
        def training_step(self, batch, run):
            loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
            run.backward(loss)
            run.optimizer_step()

    assert isinstance(ByItself(), Task)

    def with_blocks():
        task = ByItself()
        chosen = Distributed(strategy="fsdp", blocks=["net.*"])
        Trainer(epochs=2, seed=1, plugins=[chosen]).fit(task, loader(64))
        return {"digest": whole(task)}

    def without():
        with pytest.raises(UsageError, match=r"blocks=\['net'\]"):
            train(ByItself)
        time.sleep(0.5)  # gloo aborts a process whose peer is gone in the midst of a collective

    ranks(2, without)
    first, second = ranks(2, with_blocks)
    copies, _ = ranks(2, lambda: train(ByItself, strategy="ddp", count=64))
    assert first["digest"] == second["digest"] == copies["digest"]

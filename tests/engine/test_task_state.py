"""What a task keeps beside its modules goes on with a resumed run."""

import gc
from collections import Counter, defaultdict, deque

import numpy as np
import pytest
import torch
from torch import nn

from trainbus import CheckpointError, Task, Trainer, hookimpl
from trainbus.builtin import Checkpoint

DATA = [torch.full((2, 1), float(i)) for i in range(6)]


class Keeps(Task):
    """Keeps something, and calls it in each step and at the end of each epoch."""

    def __init__(self, make, each_step=None, each_epoch=None):
        super().__init__()
        self.net = nn.Linear(1, 1)
        self.make, self.each_step, self.each_epoch = make, each_step, each_epoch
        self.batches = 0

    def training_step(self, batch, run):
        self.batches += 1
        if self.each_step is not None:
            self.each_step(self.kept, batch, run)
        return self.net(batch).pow(2).mean()

    def configure_optimizer(self):
        optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1)
        self.kept = self.make(optimizer)
        return optimizer

    @hookimpl
    def on_epoch_end(self, run):
        if self.each_epoch is not None and run.epochs_done > run.epoch:
            self.each_epoch(self.kept)


def fit(task, epochs=3, stop_at=None, every_steps=1):
    trainer = Trainer(epochs=epochs, plugins=[Checkpoint(every_steps=every_steps)])
    if stop_at is not None:
        trainer.on("train_batch_end")(lambda run: run.global_step == stop_at and run.stop())
    return trainer.fit(task, DATA, resume="auto")


def step_lr(optimizer):
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, [2], gamma=0.1)


SCHEDULERS = {
    "an attribute": (step_lr, lambda kept: kept.step(), lambda kept: kept),
    "in a list": (lambda o: [step_lr(o)], lambda kept: kept[0].step(), lambda kept: kept[0]),
    "in a tuple": (lambda o: (1, step_lr(o)), lambda kept: kept[1].step(), lambda kept: kept[1]),
    "in a dict": (lambda o: {"a": step_lr(o)}, lambda kept: kept["a"].step(), lambda k: k["a"]),
    "in a list of dicts": (
        lambda o: [{"a": step_lr(o)}],
        lambda kept: kept[0]["a"].step(),
        lambda kept: kept[0]["a"],
    ),
}


@pytest.mark.parametrize("where", SCHEDULERS)
def test_a_scheduler_of_a_task_goes_on_counting(where):
    make, advance, of = SCHEDULERS[where]
    fit(Keeps(make, each_epoch=advance), epochs=1)
    task = Keeps(make, each_epoch=advance)
    run = fit(task, epochs=3)
    assert of(task.kept).last_epoch == 3
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


def test_a_scheduler_of_a_submodule_goes_on_counting():
    class Inner(Keeps):
        def configure_optimizer(self):
            optimizer = super().configure_optimizer()
            self.net.schedule, self.kept = self.kept, None
            return optimizer

        @hookimpl
        def on_epoch_end(self, run):
            self.net.schedule.step()

    def task():
        return Inner(step_lr)

    fit(task(), epochs=1)
    resumed = task()
    fit(resumed, epochs=3)
    assert resumed.net.schedule.last_epoch == 3


class Gathers:
    """A metric object whose state is of one kind; `add` puts in, `compute` gives a number."""

    def __init__(self, fresh, add, number):
        self.fresh, self.add, self.number = fresh, add, number
        self.reset()

    def reset(self):
        self.held = self.fresh()

    def update(self, value):
        result = self.add(self.held, value)
        self.held = self.held if result is None else result

    def compute(self):
        return self.number(self.held)


def count_up(held, value):
    held[int(value)] += 1


METRICS = {
    "a number": (float, lambda held, value: held + value, float),
    "a list": (list, list.append, sum),
    "a tuple": (tuple, lambda held, value: (*held, value), sum),
    "a set": (set, set.add, sum),
    "a deque": (deque, deque.append, sum),
    "a counter": (Counter, count_up, lambda held: sum(k * n for k, n in held.items())),
    "a dict with a default": (
        lambda: defaultdict(int), count_up, lambda held: sum(k * n for k, n in held.items()),
    ),
    "a tensor": (lambda: torch.zeros(()), lambda held, value: held + value, float),
    "a list of tensors": (
        list, lambda held, value: held.append(torch.tensor(value)), lambda held: float(sum(held)),
    ),
    "an array": (lambda: np.zeros(2), lambda held, value: held + value, lambda held: held[0]),
}  # fmt: skip


@pytest.mark.parametrize("kind", METRICS)
def test_a_metric_object_goes_on_with_what_it_gathered_in_its_epoch(kind):
    def task():
        def step(kept, batch, run):
            kept.update(float(batch[0]))
            run.log(total=kept)

        return Keeps(lambda _: Gathers(*METRICS[kind]), each_step=step)

    fit(task(), epochs=1, stop_at=3)
    resumed = task()
    run = fit(resumed, epochs=1)
    assert run.metrics["train/total"] == 0 + 1 + 2 + 3 + 4 + 5
    assert type(resumed.kept.held) is type(METRICS[kind][0]())


def test_what_holds_itself_is_no_state():
    def knot(_):
        held = [1]
        held.append(held)
        return held

    assert fit(Keeps(knot), epochs=1).status == "completed"


def test_metric_objects_in_a_dict_go_on():
    def step(kept, batch, run):
        kept["sum"].update(float(batch[0]))
        run.log(total=kept["sum"])

    def task():
        return Keeps(lambda _: {"sum": Gathers(*METRICS["a number"])}, each_step=step)

    fit(task(), epochs=1, stop_at=4)
    assert fit(task(), epochs=1).metrics["train/total"] == 15


def test_a_metric_of_torchmetrics_goes_on():
    metrics = pytest.importorskip("torchmetrics")

    def step(kept, batch, run):
        kept.update(batch)
        run.log(mean=kept)

    fit(Keeps(lambda _: metrics.MeanMetric(), each_step=step), epochs=1, stop_at=3)
    run = fit(Keeps(lambda _: metrics.MeanMetric(), each_step=step), epochs=1)
    assert run.metrics["train/mean"] == 2.5


class Extra(Keeps):
    """Has a state that its test chooses."""

    def __init__(self, state):
        super().__init__(lambda _: None)
        self.state = state

    def get_extra_state(self):
        return self.state

    def set_extra_state(self, state):
        pass


class Subclass(torch.Tensor):
    pass


@pytest.mark.parametrize("state", [{"a": np.zeros(3)}, {"a": {1: [object()]}}, {"a": print}])
def test_what_no_checkpoint_holds_is_refused_before_the_first_batch(state):
    task = Extra(state)
    with pytest.raises(CheckpointError, match="a checkpoint holds tensors and plain values"):
        fit(task)
    assert task.batches == 0


def test_a_parameter_that_no_checkpoint_holds_is_refused_before_the_first_batch():
    task = Keeps(lambda _: None)
    task.net.weight = nn.Parameter(torch.ones(1, 1).as_subclass(Subclass))
    with pytest.raises(CheckpointError, match=r"model: net.weight is a Subclass"):
        fit(task)
    assert task.batches == 0


def test_a_plugin_whose_state_no_checkpoint_holds_is_refused_before_the_first_batch(line, loader):
    class Odd:
        def state_dict(self):
            return {"odd": object()}

        def load_state_dict(self, state):
            pass

        @hookimpl
        def on_fit_start(self):
            pass

    started = []
    trainer = Trainer(plugins=["checkpoint", Odd()])
    trainer.on("train_batch_start")(lambda run: started.append(1))
    with pytest.raises(CheckpointError, match="odd is a object"):
        trainer.fit(line, loader)
    assert started == []


def test_without_checkpoints_any_state_will_do():
    assert Trainer().fit(Extra({"a": object()}), DATA).status == "completed"


def test_a_checkpoint_of_another_task_is_told_by_what_it_kept():
    fit(Keeps(step_lr), epochs=1)
    with pytest.raises(CheckpointError, match="holds a state of kept, which the task does not"):
        fit(Keeps(lambda _: None), epochs=2)


def test_the_output_of_a_step_is_gone_before_the_next(line):
    """Memory for two would be needed else."""
    import weakref

    alive, before = [], []

    class Watched(type(line)):
        def training_step(self, batch, run):
            alive.extend(ref() is not None for ref in before)
            output = self(batch[0])
            before[:] = [weakref.ref(output)]
            return {"loss": output.mean(), "output": output}

        def validation_step(self, batch, run):
            alive.extend(ref() is not None for ref in before)
            output = self(batch[0])
            before[:] = [weakref.ref(output)]
            return output

    data = [(torch.ones(2, 4), torch.ones(2, 1))] * 4
    gc.disable()
    try:
        Trainer(plugins=["-journal", "-manifest"]).fit(Watched(), data, data)
    finally:
        gc.enable()
    assert alive and not any(alive)

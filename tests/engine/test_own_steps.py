"""Steps with torch's own calls, and optimizers that evaluate the model again."""

import pytest
import torch
from torch.nn import functional

from trainbus import Task, Trainer, UsageError
from trainbus.builtin import Checkpoint

torch.manual_seed(0)
X = torch.randn(32, 3)
Y = X @ torch.tensor([[1.0], [2.0], [3.0]])
DATA = [(X[i : i + 8], Y[i : i + 8]) for i in range(0, 32, 8)]


class Base(Task):
    """A line."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.line = torch.nn.Linear(3, 1)

    def loss(self, batch):
        return functional.mse_loss(self.line(batch[0]), batch[1])

    def training_step(self, batch, run):
        loss = self.loss(batch)
        run.log(loss=loss)
        return loss

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Manual(Base):
    """The same, with steps of its own."""

    manual = True

    def training_step(self, batch, run):
        optimizer = run.optimizers[0]
        loss = self.loss(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        run.log(loss=loss)


class Lbfgs(Base):
    """The same, with LBFGS."""

    def configure_optimizer(self):
        return torch.optim.LBFGS(self.parameters(), lr=0.5, max_iter=4)


def test_steps_of_ones_own_are_those_of_the_loop():
    one, other = Base(), Manual()
    runs = [Trainer(epochs=2).fit(task, DATA) for task in (one, other)]
    assert torch.equal(one.line.weight, other.line.weight)
    assert [run.global_step for run in runs] == [8, 8]


def test_they_are_told_of():
    trainer, told = Trainer(), []
    trainer.on("before_optimizer_step")(lambda run: told.append(("before", run.global_step)))
    trainer.on("after_optimizer_step")(lambda run: told.append(("after", run.global_step)))
    trainer.fit(Manual(), DATA[:2])
    assert told == [("before", 0), ("after", 1), ("before", 1), ("after", 2)]


def test_they_count_for_limits_checkpoints_and_schedules():
    class Scheduled(Manual):
        def configure_optimizer(self):
            optimizer = super().configure_optimizer()
            return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

    task, keep = Scheduled(), Checkpoint(every_steps=2, keep_last=9)
    run = Trainer(max_steps=3, plugins=[keep]).fit(task, DATA)
    assert run.global_step == 3
    assert keep.last == ["step-00000002", "step-00000003"]
    assert run.optimizers[0].param_groups[0]["lr"] == 0.1 / 8


def test_several_optimizers_in_a_batch_are_one_step():
    class Pair(Manual):
        def configure_optimizer(self):
            return [torch.optim.SGD([each], lr=0.1) for each in self.parameters()]

        def training_step(self, batch, run):
            self.loss(batch).backward()
            for optimizer in run.optimizers:
                optimizer.step()
                optimizer.zero_grad()

    assert Trainer().fit(Pair(), DATA).global_step == 4


def test_a_run_leaves_no_hooks_behind():
    task = Manual()
    optimizer = torch.optim.SGD(task.parameters(), lr=0.1)
    task.configure_optimizer = lambda: optimizer
    Trainer().fit(task, DATA)
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


# --- closures ------------------------------------------------------------------------------------


def test_lbfgs_is_that_of_a_loop_by_hand():
    task, alone = Lbfgs(), Lbfgs()
    Trainer(epochs=2).fit(task, DATA)
    optimizer = alone.configure_optimizer()
    for batch in DATA * 2:

        def closure(batch=batch):
            optimizer.zero_grad()
            loss = alone.loss(batch)
            loss.backward()
            return loss

        optimizer.step(closure)
    assert torch.equal(task.line.weight, alone.line.weight)


def test_what_is_evaluated_again_logs_nothing():
    values = []
    trainer = Trainer()
    trainer.on("metrics")(lambda run, step, metrics: values.append((step, dict(metrics))))
    trainer.fit(Lbfgs(), DATA[:2])
    of_steps = [step for step, metrics in values if "train/loss" in metrics]
    assert of_steps == [1, 2]


def test_only_the_optimizer_that_needs_one_gets_a_closure():
    class Both(Base):
        def configure_optimizer(self):
            weight, bias = self.line.weight, self.line.bias
            return torch.optim.LBFGS([weight], max_iter=2), torch.optim.SGD([bias], lr=0.1)

    assert Trainer().fit(Both(), DATA).global_step == 4


def test_an_optimizer_may_ask_for_one():
    class Around(torch.optim.SGD):
        needs_closure = True
        seen = 0

        def step(self, closure=None):
            Around.seen += closure is not None
            return super().step(closure)

    task = Base()
    task.configure_optimizer = lambda: Around(task.parameters(), lr=0.1)
    Trainer().fit(task, DATA)
    assert Around.seen == 4


def test_a_window_of_batches_cannot_be_evaluated_again():
    with pytest.raises(UsageError, match=r"LBFGS evaluates the model again.*leave accumulate out"):
        Trainer(accumulate=2).fit(Lbfgs(), DATA)

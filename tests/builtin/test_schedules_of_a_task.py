"""Schedulers that come with the optimizers, several for one, and those of other libraries."""

import math

import pytest
import torch
from torch.optim import SGD, lr_scheduler
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau, StepLR

from trainbus import Scheduled, Task, Trainer, UsageError, hookimpl
from trainbus.builtin import Checkpoint, Schedule

DATA = [torch.ones(2, 1)] * 4


class Net(Task):
    """Its optimizer and schedulers are those of a function."""

    def __init__(self, configure, losses=()):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.other = torch.nn.Parameter(torch.ones(1))
        self.configure = configure
        self.losses = list(losses)
        self.rates = []

    def training_step(self, batch, run):
        return self.weight.sum() + self.other.sum()

    def validation_step(self, batch, run):
        run.log(loss=self.losses.pop(0) if self.losses else 1.0)

    def configure_optimizer(self):
        return self.configure(self)

    @hookimpl
    def on_before_optimizer_step(self, run):
        self.rates.append(round(run.optimizer.param_groups[0]["lr"], 6))


def halved(optimizer, steps=2):
    return StepLR(optimizer, steps, 0.5)


def sgd(task, lr=1.0):
    return SGD(task.parameters(), lr=lr)


def with_pair(make):
    def configure(task):
        optimizer = sgd(task)
        return make(optimizer)

    return configure


@pytest.mark.parametrize(
    "make",
    [
        lambda o: (o, halved(o)),
        lambda o: [o, halved(o)],
        lambda o: ([o], [halved(o)]),
        lambda o: {"optimizer": o, "scheduler": halved(o)},
        lambda o: {"optimizer": o, "lr_scheduler": halved(o)},
        lambda o: (o, Scheduled(halved(o))),
    ],
)
def test_a_scheduler_is_stepped_with_its_optimizer(make):
    task = Net(with_pair(make))
    Trainer().fit(task, DATA)
    assert task.rates == [1.0, 1.0, 0.5, 0.5]


def test_per_epoch():
    task = Net(with_pair(lambda o: (o, Scheduled(halved(o, 1), per="epoch"))))
    Trainer(epochs=2, limit_batches=2).fit(task, DATA)
    assert task.rates == [1.0, 1.0, 0.5, 0.5]


def test_per_validation():
    task = Net(with_pair(lambda o: (o, Scheduled(halved(o, 1), per="validation"))))
    Trainer(validate_every="2 steps").fit(task, DATA, DATA[:1])
    assert task.rates == [1.0, 1.0, 0.5, 0.5]


def test_every_second_step():
    task = Net(with_pair(lambda o: (o, Scheduled(halved(o, 1), every=2))))
    Trainer().fit(task, DATA)
    assert task.rates == [1.0, 1.0, 0.5, 0.5]


def test_plateau_looks_at_each_validation():
    def configure(optimizer):
        return optimizer, ReduceLROnPlateau(optimizer, factor=0.5, patience=0)

    task = Net(with_pair(configure), losses=[1.0, 1.0, 0.5, 0.5])
    Trainer(validate_every="1 step").fit(task, DATA, DATA[:1])
    assert task.rates == [1.0, 1.0, 0.5, 0.5]


def test_two_on_one_optimizer():
    def configure(optimizer):
        rising = LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 2))
        plateau = ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
        return optimizer, rising, plateau

    task = Net(with_pair(configure))
    Trainer().fit(task, DATA, DATA[:1])
    assert task.rates == [0.5, 1.0, 1.0, 1.0]


def test_each_of_two_optimizers_has_its_own():
    def configure(task):
        one, two = SGD([task.weight], lr=1.0), SGD([task.other], lr=0.1)
        return one, two, halved(one, 1), Scheduled(halved(two, 1), per="epoch")

    task = Net(configure)
    Trainer(epochs=2, limit_batches=2).fit(task, DATA)
    assert task.rates == [1.0, 0.1, 0.5, 0.1, 0.25, 0.05, 0.125, 0.05]


def test_configure_optimizer_may_take_the_run():
    class Asks(Net):
        def configure_optimizer(self, run):
            optimizer = sgd(self)
            self.total = run.total_steps
            return optimizer, lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=self.total)

    task = Asks(None)
    Trainer(epochs=3, accumulate=3).fit(task, DATA)
    assert task.total == 6


def test_make_may_take_the_number_of_steps():
    totals = []

    def make(optimizer, total):
        totals.append(total)
        return LambdaLR(optimizer, lambda step: 1 - step / total)

    task = Net(sgd)
    Trainer(plugins=[Schedule(make)]).fit(task, DATA)
    assert (totals, task.rates) == ([4], [1.0, 0.75, 0.5, 0.25])


def test_a_scheduler_of_another_library():
    timm = pytest.importorskip("timm.scheduler")

    def configure(optimizer):
        return optimizer, timm.StepLRScheduler(optimizer, 2, 0.5, t_in_epochs=False)

    task = Net(with_pair(configure))
    Trainer().fit(task, DATA)
    assert task.rates == [1.0, 1.0, 0.5, 0.5]


@pytest.mark.parametrize("per", ["step", "epoch", "validation"])
@pytest.mark.parametrize("stop", [1, 3, 4, 6])
def test_a_resumed_run_has_the_same_rates(per, stop):
    def configure(optimizer):
        plateau = ReduceLROnPlateau(optimizer, factor=0.9, patience=1)
        return optimizer, Scheduled(halved(optimizer, 1), per=per), plateau

    def fit(run_dir, **options):
        task = Net(with_pair(configure))
        Trainer(epochs=2, plugins=[Checkpoint(every_steps=1)], run_dir=run_dir, **options).fit(
            task, DATA, DATA[:1], resume="auto"
        )
        return task.rates

    assert fit("two", max_steps=stop) + fit("two") == fit("one")


# --- what cannot be ------------------------------------------------------------------------------


def test_schedulers_and_the_plugin_together_are_refused():
    task = Net(with_pair(lambda o: (o, halved(o))))
    with pytest.raises(UsageError, match="leave one of them out"):
        Trainer(plugins=[Schedule(halved)]).fit(task, DATA)


def test_a_scheduler_of_an_optimizer_that_is_not_returned_is_refused():
    task = Net(lambda task: (sgd(task), halved(sgd(task))))
    with pytest.raises(UsageError, match="the optimizer of the StepLR is none of those"):
        Trainer().fit(task, DATA)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheduler": 3}, "give a scheduler"),
        ({"per": "batch"}, "'step', 'epoch' or 'validation'"),
        ({"every": 0}, "whole number of at least 1"),
        ({"every": 2, "per": "validation"}, "counts steps or epochs"),
    ],
)
def test_what_is_no_schedule_is_refused(options, message):
    optimizer = SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    with pytest.raises(UsageError, match=message):
        Scheduled(**{"scheduler": halved(optimizer), **options})


def test_a_dict_with_more_is_refused():
    task = Net(with_pair(lambda o: {"optimizer": o, "monitor": "valid/loss"}))
    with pytest.raises(UsageError, match="a dict with 'monitor'"):
        Trainer().fit(task, DATA)


# --- by name -------------------------------------------------------------------------------------

STEPS = [torch.ones(1, 1)] * 10


def rates(**options):
    task = Net(sgd)
    Trainer(plugins=[Schedule(**options)]).fit(task, STEPS)
    return task.rates


@pytest.mark.parametrize(
    ("options", "formula"),
    [
        ({"name": "linear"}, lambda t: 1 - t / 10),
        ({"name": "linear", "end": 0.5}, lambda t: 1 - 0.5 * t / 10),
        ({"name": "polynomial", "power": 2.0}, lambda t: (1 - t / 10) ** 2),
        ({"name": "constant"}, lambda t: 1.0),
        (
            {"name": "warmup_cosine", "end": 0.1},
            lambda t: 0.1 + 0.45 * (1 + math.cos(math.pi * t / 10)),
        ),
        (
            {"name": "cosine_restarts", "cycles": 2},
            lambda t: (1 + math.cos(math.pi * (t % 5) / 5)) / 2,
        ),
        ({"name": "wsd", "decay": 0.4}, lambda t: 1 - math.sqrt(max(0.0, (t - 6) / 4))),
    ],
)
def test_schedules_by_name_follow_their_formulas(options, formula):
    assert rates(**options, warmup=0) == pytest.approx([formula(t) for t in range(10)], abs=1e-6)


def test_inverse_square_root_is_that_of_the_paper():
    # Vaswani et al., 2017: min(t ** -0.5, t * warmup ** -1.5), scaled to a top of 1.
    found = rates(name="inverse_sqrt", warmup=4)
    falling = [math.sqrt(4 / (t + 1)) for t in range(4, 10)]
    assert found[4:] == pytest.approx(falling, abs=1e-6)
    assert found[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])


@pytest.mark.parametrize("name", ["linear", "constant", "wsd", "cosine_restarts"])
def test_they_go_up_first(name):
    assert rates(name=name, warmup=3)[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])


@pytest.mark.parametrize("of", ["weight_decay", "momentum"])
def test_another_number_than_the_rate(of):
    class Notes(Net):
        found = []

        @hookimpl
        def on_before_optimizer_step(self, run):
            group = run.optimizer.param_groups[0]
            self.found.append((group["lr"], group[of]))

    task = Notes(lambda task: SGD(task.parameters(), lr=1.0, momentum=0.5, weight_decay=0.5))
    task.found.clear()
    Trainer(plugins=[Schedule(name="linear", warmup=0, of=of)]).fit(task, STEPS)
    assert [rate for rate, _ in task.found] == [1.0] * 10
    assert [x for _, x in task.found] == pytest.approx([0.5 * (1 - t / 10) for t in range(10)])


def test_a_number_that_the_groups_have_not_is_refused():
    with pytest.raises(UsageError, match=r"schedule of='beta': the groups of SGD have"):
        Trainer(plugins=[Schedule(name="linear", of="beta")]).fit(Net(sgd), STEPS)

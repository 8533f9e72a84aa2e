"""What a run goes on with is its own; what is given otherwise now is used, and told."""

import pytest
import torch
from torch import nn

from trainbus import CheckpointError, JournalFile, Task, Trainer, load_weights
from trainbus.builtin import Checkpoint, EarlyStopping, Schedule

DATA = [(torch.randn(8, 4, generator=torch.Generator().manual_seed(i)),) for i in range(4)]
SCALE = torch.tensor([1.0, 10.0, 100.0, 1000.0])
lr_scheduler = torch.optim.lr_scheduler


class Net(Task):
    """Two layers whose gradients differ in size; `make` makes the optimizers."""

    def __init__(self, make=None):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.make = make or (lambda net: torch.optim.Adam(net.parameters(), lr=0.01))

    def training_step(self, batch, run):
        return (self.b(self.a(batch[0])) * SCALE).pow(2).mean()

    def validation_step(self, batch, run):
        run.log(loss=0.5 + run.epoch / 10, accuracy=0.3 + run.epoch / 100)

    def configure_optimizer(self):
        return self.make(self)


def adam(**options):
    return lambda net: torch.optim.Adam(net.parameters(), **{"lr": 0.01, **options})


def fit(task, epochs, *plugins, valid=None, **options):
    plugins = [*plugins] if any(isinstance(p, Checkpoint) for p in plugins) else [
        "checkpoint", *plugins
    ]  # fmt: skip
    return Trainer(epochs=epochs, plugins=plugins, **options).fit(task, DATA, valid, resume="auto")


def moments(task, optimizer):
    names = {id(parameter): name for name, parameter in task.named_parameters()}
    return {names[id(p)]: state["exp_avg_sq"].clone() for p, state in optimizer.state.items()}


def after_resume(make_first, make_second):
    """The moments that a run had, and those that the one that goes on from it begins with."""
    first, second, found = Net(make_first), Net(make_second), {}
    run = fit(first, 1)
    before = {}
    for optimizer in run.optimizers:
        before |= moments(first, optimizer)
    trainer = Trainer(epochs=2, plugins=["checkpoint"])

    @trainer.on("epoch_start")
    def look(run):
        for optimizer in run.optimizers:
            found.update(moments(second, optimizer))

    trainer.fit(second, DATA, resume="auto")
    return before, found


def in_order(net):
    return torch.optim.Adam([{"params": net.a.parameters()}, {"params": net.b.parameters()}])


ORDERS = {
    "parameters": (adam(), lambda net: torch.optim.Adam([net.b.weight, net.a.weight], lr=0.01)),
    "groups": (
        in_order,
        lambda net: torch.optim.Adam(
            [{"params": net.b.parameters()}, {"params": net.a.parameters()}]
        ),
    ),
}


@pytest.mark.parametrize("what", ORDERS)
def test_each_parameter_gets_its_own_moments_in_whatever_order(what):
    before, found = after_resume(*ORDERS[what])
    assert before.keys() == found.keys()
    assert all(torch.equal(found[name], before[name]) for name in before)


def test_groups_in_another_order_keep_their_own_rates():
    def groups(*names):
        rates = {"a": 0.01, "b": 0.02}
        return lambda net: torch.optim.Adam(
            [{"params": getattr(net, name).parameters(), "lr": rates[name]} for name in names]
        )

    fit(Net(groups("a", "b")), 1)
    run = fit(Net(groups("b", "a")), 2)
    assert [group["lr"] for group in run.optimizer.param_groups] == [0.02, 0.01]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda net: torch.optim.SGD(net.parameters(), lr=0.01),
            "holds the state of Adam, the optimizer of the task is SGD",
        ),
        (
            lambda net: torch.optim.Adam(net.a.parameters(), lr=0.01),
            "has other parameters than it had:\n  only in the checkpoint: b.weight",
        ),
        (
            lambda net: [torch.optim.Adam(part.parameters()) for part in (net.a, net.b)],
            "holds 1 optimizers, the task has 2",
        ),
        (in_order, r"has groups of \[1, 1\] parameters, the checkpoint of \[2\]"),
    ],
    ids=["another class", "fewer parameters", "two", "other groups"],
)  # fmt: skip
def test_another_optimizer_is_refused_and_changes_nothing(make, message):
    fit(Net(), 1)
    task = Net(make)
    before = task.a.weight.detach().clone()
    with pytest.raises(CheckpointError, match=message):
        fit(task, 2)
    assert torch.equal(task.a.weight, before)


@pytest.mark.parametrize(
    ("option", "then", "now"),
    [
        ("lr", 0.01, 0.001),
        ("betas", (0.9, 0.999), (0.5, 0.9)),
        ("weight_decay", 0.0, 0.1),
        ("eps", 1e-8, 1e-4),
    ],
)
def test_an_option_that_is_given_otherwise_is_used_and_told(caplog, option, then, now):
    fit(Net(adam(**{option: then})), 1)
    run = fit(Net(adam(**{option: now})), 2)
    assert run.optimizer.param_groups[0][option] == now
    assert f"the optimizer: {option} was given as" in caplog.text


def test_an_option_that_needs_a_state_which_is_not_there_is_refused():
    fit(Net(adam()), 1)
    with pytest.raises(CheckpointError, match="amsgrad was given as False and is given as True"):
        fit(Net(adam(amsgrad=True)), 2)


def test_options_that_are_given_as_before_are_no_word(caplog):
    fit(Net(adam(lr=0.02, betas=(0.8, 0.9))), 1)
    fit(Net(adam(lr=0.02, betas=(0.8, 0.9))), 2)
    assert "was given as" not in caplog.text


def test_a_rate_that_training_changed_goes_on_from_where_it_was():
    def halve(run):
        run.optimizer.param_groups[0]["lr"] /= 2

    for epochs in (1, 2):
        trainer = Trainer(epochs=epochs, plugins=["checkpoint"])
        trainer.on("epoch_end")(halve)
        run = trainer.fit(Net(adam(lr=0.08)), DATA, resume="auto")
    assert run.optimizer.param_groups[0]["lr"] == 0.02


def test_a_new_rate_under_a_schedule_is_told_with_what_is_used(caplog):
    def decay():
        return Schedule(lambda o: lr_scheduler.ExponentialLR(o, 0.5), per="epoch")

    fit(Net(adam(lr=0.08)), 1, decay())
    fit(Net(adam(lr=0.01)), 2, decay())
    assert "lr was given as 0.08 and is given as 0.01 now; 0.04 is used" in caplog.text


def test_of_two_optimizers_the_one_that_changed_is_named(caplog):
    def two(rate):
        return lambda net: [
            torch.optim.Adam(net.a.parameters(), lr=0.01),
            torch.optim.Adam(net.b.parameters(), lr=rate),
        ]

    fit(Net(two(0.02)), 1)
    run = fit(Net(two(0.03)), 2)
    assert [each.param_groups[0]["lr"] for each in run.optimizers] == [0.01, 0.03]
    assert "optimizer 1: lr was given as 0.02" in caplog.text
    assert "optimizer 0" not in caplog.text


@pytest.mark.parametrize(
    ("first", "second", "rates"),
    [
        (
            lambda o: lr_scheduler.MultiStepLR(o, [1]),
            lambda o: lr_scheduler.MultiStepLR(o, [1, 3]),
            [0.1, 0.01, 0.01, 0.001],
        ),
        (
            lambda o: lr_scheduler.StepLR(o, 1),
            lambda o: lr_scheduler.StepLR(o, 100),
            [0.1, 0.01, 0.001, 0.001],
        ),
        (
            lambda o: lr_scheduler.StepLR(o, 1, gamma=0.1),
            lambda o: lr_scheduler.StepLR(o, 1, gamma=0.5),
            [0.1, 0.01, 0.001, 0.0005],
        ),
    ],
    ids=["milestones", "step size", "factor"],
)
def test_options_of_a_schedule_that_are_given_otherwise_are_used(caplog, first, second, rates):
    found = []

    def run_to(epochs, make):
        plugins = ["checkpoint", Schedule(make, per="epoch")]
        trainer = Trainer(epochs=epochs, plugins=plugins)
        trainer.on("epoch_start")(lambda run: found.append(run.optimizer.param_groups[0]["lr"]))
        trainer.fit(Net(lambda n: torch.optim.SGD(n.parameters(), 0.1)), DATA, resume="auto")

    run_to(2, first)
    run_to(4, second)
    assert found == pytest.approx(rates)
    assert "schedule: " in caplog.text and "is used" in caplog.text


def test_a_longer_curve_lasts_until_its_end():
    def task():
        return Net(lambda n: torch.optim.SGD(n.parameters(), 0.1))

    def curve(steps):
        return Schedule(lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=steps))

    fit(task(), 2, curve(8))
    run = fit(task(), 4, curve(16))
    with JournalFile.open(run.dir / "journal.db") as journal:
        rates = journal.series("train/lr").values
    assert len(rates) == 16
    assert rates[-1] < 1e-4 < rates[10]


# --- the name of the run -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Big_Net", "Net_1", "x_Net"])
def test_auto_goes_on_with_runs_of_this_name_only(name):
    other = type(name, (Net,), {})
    theirs = fit(other(), 1)
    mine = fit(Net(), 1)
    assert mine.dir != theirs.dir
    assert fit(Net(), 2).dir == mine.dir
    assert fit(other(), 2).dir == theirs.dir


# --- what the best is the best of ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [("valid/accuracy", "max"), ("valid/accuracy", "min"), ("valid/loss", "max")],
)
def test_the_best_of_another_metric_or_direction_is_not_taken_over(caplog, monitor, mode):
    fit(Net(), 1, Checkpoint("valid/loss"), valid=DATA)
    keep = Checkpoint(monitor, mode, keep_best=9)
    run = fit(Net(), 3, keep, valid=DATA)
    key = monitor.removeprefix("valid/")
    values = {"loss": [0.6, 0.7], "accuracy": [0.31, 0.32]}[key]
    assert sorted(value for value, _ in keep.best) == pytest.approx(values)
    assert f"that of {monitor} ({mode}) is looked for anew" in caplog.text
    assert (run.dir / "checkpoints/best").exists()


def test_the_best_of_the_same_metric_is_taken_over(caplog):
    fit(Net(), 1, Checkpoint("valid/loss"), valid=DATA)
    keep = Checkpoint("valid/loss")
    fit(Net(), 3, keep, valid=DATA)
    assert keep.best == [(0.5, "best-00000004")]
    assert "anew" not in caplog.text


def test_early_stopping_does_not_compare_with_the_best_of_another_metric():
    fit(Net(), 1, EarlyStopping("valid/loss"), valid=DATA)
    other = EarlyStopping("valid/accuracy", "max")
    assert fit(Net(), 3, other, valid=DATA).status == "completed"


# --- what is given with the loss -----------------------------------------------------------------

PAIRS = [
    (torch.randn(20, 3, generator=torch.Generator().manual_seed(1)), (torch.arange(20) < 4).long())
]


def weighted(*weights):
    loss = nn.CrossEntropyLoss(torch.tensor(weights))
    return Task.supervised(nn.Linear(3, 2), loss, lambda p: torch.optim.SGD(p, 0.1))


def test_class_weights_are_those_that_are_given_now():
    Trainer(plugins=["checkpoint"]).fit(weighted(1.0, 4.0), PAIRS)
    task = weighted(1.0, 2.0)
    Trainer(epochs=2, plugins=["checkpoint"]).fit(task, PAIRS, resume="auto")
    assert task.loss.weight.tolist() == [1.0, 2.0]


def test_weights_fit_a_network_with_another_loss():
    run = Trainer(plugins=["checkpoint"]).fit(weighted(1.0, 4.0), PAIRS)
    path = run.dir / "checkpoints" / "step-00000001"
    plain, others = Task.supervised(nn.Linear(3, 2)), weighted(1.0, 3.0)
    for task in (plain, others):
        load_weights(task, path)
        assert torch.equal(task.model.weight, run.task.model.weight)
    assert others.loss.weight.tolist() == [1.0, 3.0]


def test_a_loss_with_parameters_is_trained_and_kept():
    class Learned(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, output, target):
            return (output * self.scale).pow(2).mean()

    def task():
        return Task.supervised(nn.Linear(3, 2), Learned(), lambda p: torch.optim.SGD(p, 0.1))

    run = Trainer(plugins=["checkpoint"]).fit(task(), PAIRS)
    again = task()
    load_weights(again, run.dir / "checkpoints" / "step-00000001")
    assert torch.equal(again.loss.scale, run.task.loss.scale)

"""A run that goes back to an earlier state of its own: what it leaves behind is void, and told."""

import pytest
import torch
from torch import nn

from trainbus import JournalFile, Task, Trainer, hookimpl
from trainbus.builtin import Checkpoint

DATA = [torch.ones(2, 1)] * 2


class Net(Task):
    """Its losses are written down, and its training values say which history they are of."""

    def __init__(self, losses=(9,) * 9, mark=0.0):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))
        self.losses, self.mark = losses, mark

    def training_step(self, batch, run):
        run.log(value=run.global_step + self.mark)
        return -(self.w * batch).mean()

    def validation_step(self, batch, run):
        run.log(loss=self.losses[run.epoch])

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


def fit(task, epochs, keep=None, plugins=(), **options):
    keep = keep or Checkpoint("valid/loss", keep_last=9)
    trainer = Trainer(epochs=epochs, plugins=[keep, *plugins])
    return trainer.fit(task, DATA, DATA, **options)


def states(run):
    return sorted(each.name for each in (run.dir / "checkpoints").iterdir())


def series(run, name):
    with JournalFile.open(run.dir / "journal.db") as journal:
        steps, _, values = journal.series(name)
    return list(zip(map(int, steps), values, strict=True))


def step(run, number):
    return run.dir / "checkpoints" / f"step-{number:08d}"


# --- the best ------------------------------------------------------------------------------------


def test_a_best_of_the_future_that_was_left_gives_way_to_the_state_gone_back_to(caplog):
    first = fit(Net([9, 5, 4, 3]), 4)
    keep = Checkpoint("valid/loss", keep_last=9)
    run = fit(Net([9, 5, 7, 7, 7, 7]), 6, keep, resume=step(first, 4))
    assert [value for value, _ in keep.best] == [5]
    assert keep.best_path(run).exists()
    assert (run.dir / "checkpoints" / "best").resolve().name == keep.best[0][1]
    assert "which it leaves behind, are removed when the next state is on the disk" in caplog.text
    assert "best-00000008" not in states(run)


def test_a_best_from_before_the_return_stays_the_best():
    first = fit(Net([9, 2, 4, 5]), 4)
    keep = Checkpoint("valid/loss", keep_last=9)
    run = fit(Net([9, 2, 7, 7, 7]), 5, keep, resume=step(first, 6))
    assert [value for value, _ in keep.best] == [2]
    assert (run.dir / "checkpoints" / "best").resolve() == keep.best_path(run).resolve()


def test_after_a_return_a_better_value_is_the_best():
    first = fit(Net([9, 5, 4, 3]), 4)
    keep = Checkpoint("valid/loss", keep_last=9)
    fit(Net([9, 5, 1, 7]), 4, keep, resume=step(first, 4))
    assert keep.best == [(1.0, "best-00000006")]


def test_resume_best_after_a_return_finds_one_that_is_there():
    first = fit(Net([9, 5, 4, 3]), 4)
    fit(Net([9, 5, 7, 7, 7]), 5, resume=step(first, 4))
    run = fit(Net([7] * 9), 6, resume="best")
    assert run.epoch == 6


def test_a_second_return_leaves_as_little_behind():
    first = fit(Net([9, 5, 4, 3]), 4)
    fit(Net([9, 5, 7, 7]), 4, resume=step(first, 6))
    run = fit(Net([9, 5, 8, 8]), 3, resume=step(first, 2))
    assert all(int(name.split("-")[1]) <= 6 for name in states(run) if "-" in name)
    assert (run.dir / "checkpoints" / "best").exists()


def test_going_on_from_the_newest_state_is_no_return(caplog):
    fit(Net(), 2)
    fit(Net(), 4, resume="auto")
    assert "leaves behind" not in caplog.text


# --- the records ---------------------------------------------------------------------------------


def test_each_step_is_in_the_journal_once_with_the_value_of_the_history_that_counts():
    first = fit(Net(), 4)
    run = fit(Net(mark=100.0), 3, resume=step(first, 4))
    values = series(run, "train/value")
    assert values == [(1, 0), (2, 1), (3, 2), (4, 3), (5, 104), (6, 105)]


class Log:
    """Keeps the values that it is given, and how often it was told of a return."""

    observer = True

    def __init__(self):
        self.values, self.returns = {}, []

    @hookimpl
    def on_log_start(self, run):
        pass

    @hookimpl
    def on_log_return(self, run, step):
        self.returns.append(step)
        self.values = {at: value for at, value in self.values.items() if at < step}

    @hookimpl
    def on_metrics(self, step, metrics):
        if "train/value" in metrics:
            self.values[step] = metrics["train/value"]


def test_a_logger_is_told_of_the_first_step_that_is_another_one():
    log = Log()
    first = fit(Net(), 4, plugins=[log])
    fit(Net(mark=100.0), 3, plugins=[log], resume=step(first, 4))
    assert log.returns == [5]
    assert list(log.values.items()) == [(1, 0), (2, 1), (3, 2), (4, 3), (5, 104), (6, 105)]


def test_a_logger_that_drops_nothing_is_given_all_that_differs():
    class Plain(Log):
        on_log_return = None

    log = Plain()
    first = fit(Net(), 4, plugins=[log])
    fit(Net(mark=100.0), 4, plugins=[log], resume=step(first, 4))
    assert log.values == {1: 0, 2: 1, 3: 2, 4: 3, 5: 104, 6: 105, 7: 106, 8: 107}


def test_a_return_that_makes_the_same_again_is_told_nobody():
    log = Log()
    first = fit(Net(), 4, plugins=[log])
    run = fit(Net(), 4, plugins=[log], resume=step(first, 4))
    assert log.returns == []
    assert series(run, "train/value") == [(n + 1, float(n)) for n in range(8)]


# --- when a state is written ---------------------------------------------------------------------


@pytest.mark.parametrize("order", [0, 1])
def test_a_validation_before_the_first_step_counts_whatever_the_order_of_plugins(order):
    class First:
        @hookimpl
        def on_fit_start(self, run):
            for _ in run.evaluation_batches(DATA):
                run.log(loss=0.5)

    keep = Checkpoint("valid/loss")
    plugins = [keep, First()] if order else [First(), keep]
    run = Trainer(epochs=2, plugins=plugins).fit(Net([3, 6]), DATA, DATA)
    assert keep.best == [(0.5, "best-00000000")]
    assert states(run) == ["best", "best-00000000", "step-00000004"]


@pytest.mark.parametrize(
    ("options", "at"),
    [
        ({"epochs": 3, "validate_every": 2}, [4, 6]),
        ({"epochs": 4, "validate_every": 2}, [4, 8]),
        ({"epochs": 3, "validate_every": 5}, [6]),
        ({"max_steps": 3, "validate_every": 2}, [3]),
        ({"epochs": 1, "validate_every": 0.5}, [1, 2]),
    ],
)
def test_the_last_weights_of_a_run_are_validated_once(options, at):
    found = []
    trainer = Trainer(plugins=[Checkpoint("valid/loss")], **options)
    trainer.on("validation_end")(lambda run: found.append(run.global_step))
    run = trainer.fit(Net([5, 4, 3, 2, 1]), DATA, DATA)
    assert found == at
    assert at[-1] == run.global_step


def test_half_of_an_odd_number_of_batches_ends_with_the_last_one():
    found = []
    trainer = Trainer(epochs=2, validate_every=0.5)
    trainer.on("validation_end")(lambda run: found.append(run.global_step))
    trainer.fit(Net(), [torch.ones(2, 1)] * 7, DATA)
    assert found == [4, 7, 11, 14]


@pytest.mark.parametrize("options", [{"max_steps": 3}, {"max_time": 1e-9}])
def test_a_run_that_reaches_a_limit_inside_an_epoch_keeps_its_last_state(options):
    run = Trainer(plugins=["checkpoint"], **options).fit(Net(), [torch.ones(2, 1)] * 10)
    assert states(run) == [f"step-{run.global_step:08d}"]
    assert 0 < run.global_step <= 3

"""Several loaders: one after the other to evaluate on, side by side to train on."""

import pytest
import torch
from torch.utils.data import DataLoader

from trainbus import Loader, Loaders, Task, Trainer, UsageError
from trainbus.builtin import Checkpoint


class Mean(Task):
    """Its loss is the mean of a batch; it keeps what it was trained on."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, run):
        self.seen.append({k: v.flatten().tolist() for k, v in batch.items()})
        return self.weight + sum(value.mean() for value in batch.values())

    def validation_step(self, batch, run):
        run.log(loss=batch.mean())

    def predict_step(self, batch, run):
        return batch.sum().item()

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Numbers(torch.utils.data.Dataset):
    """The numbers from `start` on."""

    def __init__(self, start, size):
        self.start, self.size = start, size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return torch.tensor(float(self.start + index))


def ours(start, size, **options):
    return Loader(Numbers(start, size), batch_size=2, shuffle=True, **options)


def theirs(start, size, **options):
    return DataLoader(Numbers(start, size), batch_size=2, shuffle=True, **options)


DAY, NIGHT = [torch.tensor([1.0, 3.0])], [torch.tensor([5.0, 7.0]), torch.tensor([9.0])]


# --- to evaluate on ------------------------------------------------------------------------------


def test_each_has_metrics_of_its_own_and_all_samples_have_one():
    metrics = Trainer().validate(Mean(), {"day": DAY, "night": NIGHT})
    assert metrics == {"valid/day/loss": 2.0, "valid/night/loss": 7.0, "valid/loss": 5.0}


def test_a_list_of_loaders_has_numbers_for_names():
    found = Trainer().test(Mean(), [ours(0, 2), theirs(10, 2)])
    assert found == {"test/0/loss": 0.5, "test/1/loss": 10.5, "test/loss": 5.5}


def test_a_list_of_batches_is_one_loader():
    assert Trainer().validate(Mean(), NIGHT) == {"valid/loss": 7.0}


def test_a_task_is_told_which_is_at_work():
    names = []

    class Told(Mean):
        def validation_step(self, batch, run):
            names.append(run.loader_name)

    Trainer().validate(Told(), {"day": DAY, "night": NIGHT})
    assert names == ["day", "night", "night"]


def test_metrics_that_are_computed_at_the_end_are_computed_for_each():
    class Count:
        total = 0

        def compute(self):
            return self.total

        def reset(self):
            self.total = 0

    class Counting(Mean):
        count = Count()

        def validation_step(self, batch, run):
            self.count.total += 1
            run.log(loss=batch.mean(), count=self.count)

    metrics = Trainer().validate(Counting(), {"day": DAY, "night": NIGHT})
    assert metrics["valid/day/count"] == 1
    assert metrics["valid/night/count"] == 2


def test_what_is_reduced_is_reduced_over_all():
    class Greatest(Mean):
        def validation_step(self, batch, run):
            run.log(most=batch.max(), reduce="max")

    metrics = Trainer().validate(Greatest(), {"day": DAY, "night": NIGHT})
    assert metrics == {"valid/day/most": 3.0, "valid/night/most": 9.0, "valid/most": 9.0}


def test_a_fit_validates_all_and_the_best_is_that_of_one():
    keep = Checkpoint("valid/night/loss")
    run = Trainer(plugins=[keep]).fit(Mean(), [{"a": DAY[0]}], {"day": DAY, "night": NIGHT})
    assert run.metrics["valid/loss"] == 5.0
    assert keep.best[0][0] == 7.0


def test_predictions_come_with_the_name_of_their_loader():
    found = list(Trainer().predict(Mean(), {"day": DAY, "night": NIGHT}))
    assert found == [("day", 4.0), ("night", 12.0), ("night", 9.0)]


def test_limits_hold_for_each():
    found = list(Trainer(limit_batches=1).predict(Mean(), {"day": DAY, "night": NIGHT}))
    assert found == [("day", 4.0), ("night", 12.0)]


def test_an_empty_one_is_named():
    with pytest.raises(UsageError, match=r"the valid \(night\) loader gave no batch"):
        Trainer().validate(Mean(), {"day": DAY, "night": []})


# --- to train on ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "batches"), [("min_size", 2), ("max_size", 5)])
def test_an_epoch_is_as_long_as_the_shortest_or_the_longest(mode, batches):
    task = Mean()
    run = Trainer().fit(task, Loaders({"a": ours(0, 10), "b": ours(100, 4)}, mode))
    assert run.global_step == batches
    assert all(list(each) == ["a", "b"] for each in task.seen)
    assert {x for each in task.seen for x in each["b"]} == {100.0, 101.0, 102.0, 103.0}


def test_a_shorter_one_is_begun_again_in_another_order():
    task = Mean()
    Trainer().fit(task, Loaders({"a": ours(0, 32), "b": ours(100, 16)}, "max_size"))
    firsts, seconds = task.seen[:8], task.seen[8:]
    assert [each["b"] for each in firsts] != [each["b"] for each in seconds]


def test_one_after_the_other():
    class Plain(Mean):
        def training_step(self, batch, run):
            self.seen.append(batch.tolist())
            return self.weight + batch.mean()

    task = Plain()
    Trainer().fit(task, Loaders([DAY, NIGHT], "sequential"))
    assert task.seen == [[1.0, 3.0], [5.0, 7.0], [9.0]]


def test_the_shortest_ends_one_without_an_end():
    def endless():
        while True:
            yield torch.ones(2)

    run = Trainer().fit(Mean(), {"a": endless(), "b": [torch.ones(2)] * 3})
    assert run.global_step == 3


@pytest.mark.parametrize("make", [ours, theirs])
@pytest.mark.parametrize("mode", ["min_size", "max_size"])
@pytest.mark.parametrize("stop", [1, 3, 4, 7])
def test_the_place_in_each_is_resumed(make, mode, stop):
    def loaders():
        return Loaders({"a": make(0, 10), "b": make(100, 6)}, mode)

    def fit(task, **options):
        Trainer(epochs=2, seed=3, plugins=["checkpoint"], run_dir="two", **options).fit(
            task, loaders(), resume="auto"
        )

    alone, stopped = Mean(), Mean()
    Trainer(epochs=2, seed=3).fit(alone, loaders())
    fit(stopped, max_steps=min(stop, len(alone.seen) - 1))
    fit(stopped)
    assert stopped.seen == alone.seen


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (({},), "at least one loader"),
        (({"a/b": DAY},), "without '/'"),
        (({1: DAY},), "without '/'"),
        (({"a": 3},), "the a loader is 3"),
        (({"a": DAY}, "longest"), "give 'min_size', 'max_size' or 'sequential'"),
    ],
)
def test_what_can_be_no_loaders_is_refused(given, message):
    with pytest.raises(UsageError, match=message):
        Loaders(*given)

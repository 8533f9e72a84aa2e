"""Each sample is read by one process, once, whatever their number."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset

from trainbus import Loader, Loaders, Task, Trainer, UsageError
from trainbus.batches import set_epoch
from trainbus.testing.processes import ranks
from trainbus_distributed import Distributed
from trainbus_distributed.data import deal, weights

from .conftest import Small, dataset, fit, loader

PARTS = list(itertools.product([1, 2, 3, 4], [False, True]))


class Alone:
    """As many processes as a test wants, of which this is one: nobody is there to meet."""

    def __init__(self, rank, size):
        self.data_rank, self.data_size = rank, size

    def gather(self, value):
        return [value] * self.data_size

    def broadcast(self, value):
        return value


def read(given, size, pads):
    """What each of so many processes reads: numbers of samples, and the weights of each batch."""
    told = []
    for rank in range(size):
        dealt = deal(given(), Alone(rank, size), pads)
        batches = [batch[2].tolist() for batch in dealt]
        told.append((batches, [weights(dealt, i, size)[rank] for i in range(len(batches))]))
        assert len(dealt) == len(batches)
    return told


@pytest.mark.parametrize(("size", "drop_last"), PARTS)
@pytest.mark.parametrize("count", [1, 7, 16, 33])
@pytest.mark.parametrize("pads", [False, True])
def test_each_sample_counts_once(count, size, drop_last, pads):
    for kind in (Loader, DataLoader, lambda *a, **o: list(Loader(*a, **o))):
        given = lambda kind=kind: kind(dataset(count), batch_size=4, drop_last=drop_last)  # noqa: E731
        told = read(given, size, pads)
        counted = [
            number
            for batches, sizes in told
            for batch, weight in zip(batches, sizes, strict=True)
            if weight
            for number in batch
        ]
        expected = [number for batch in given() for number in batch[2].tolist()]
        assert sorted(counted) == sorted(expected)
        if pads:
            assert len({len(batches) for batches, _ in told}) == 1


def test_the_order_of_all_is_that_of_one():
    told = read(lambda: loader(32), 2, True)
    alone = [batch[2].tolist() for batch in loader(32)]
    mixed = [batch for pair in zip(told[0][0], told[1][0], strict=True) for batch in pair]
    assert mixed == alone


def test_a_loader_that_starts_anywhere_does_so_for_all():
    dealt = deal(loader(64), Alone(1, 2), True)
    set_epoch(dealt, 1)
    every = [batch[2].tolist() for batch in dealt]
    dealt.start_at(3)
    assert [batch[2].tolist() for batch in dealt] == every[3:]


def test_a_stream_of_batches_is_dealt_out():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([(torch.zeros(1), torch.zeros(1), torch.tensor(i)) for i in range(10)])

    told = [
        [batch[2].tolist() for batch in deal(DataLoader(Stream(), batch_size=2), Alone(r, 2), True)]
        for r in range(2)
    ]
    assert told == [[[0, 1], [4, 5], [8, 9]], [[2, 3], [6, 7], [8, 9]]]


def test_a_distributed_sampler_for_these_processes_is_respected():
    own = DistributedSampler(dataset(16), num_replicas=2, rank=1)
    given = DataLoader(dataset(16), batch_size=4, sampler=own)
    assert deal(given, Alone(1, 2), True) is given


def test_a_distributed_sampler_for_others_is_an_error():
    own = DistributedSampler(dataset(16), num_replicas=4, rank=1)
    with pytest.raises(UsageError, match="rank 1 of 4, this process is rank 1 of 2"):
        deal(DataLoader(dataset(16), sampler=own), Alone(1, 2), True)


class Counting(Task):
    """Notes the samples that it is evaluated on."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(8, 2)
        self.seen = []

    def validation_step(self, batch, run):
        self.seen += batch[2].tolist()
        run.log({"number": batch[2].float().mean()})
        run.log("largest", batch[2].max(), reduce="max")
        if run.rank == 0:
            run.log(only_here=1.0)

    def predict_step(self, batch, run):
        return batch[2].tolist()


@pytest.mark.parametrize("count", [21, 3])  # 3: fewer batches than processes
def test_validation_counts_each_sample_once(count):
    def validate():
        task = Counting()
        told = Trainer(plugins=[Distributed()]).validate(task, Loader(dataset(count), batch_size=4))
        return task.seen, dict(told)

    (seen, first), (others, second) = ranks(2, validate)
    assert sorted(seen + others) == list(range(count))
    assert first == second
    assert first["valid/number"] == pytest.approx((count - 1) / 2)
    assert first["valid/largest"] == count - 1
    assert first["valid/only_here"] == 1.0


def test_several_validation_loaders_each_have_a_mean_of_all():
    def validate():
        loaders = Loaders({"a": loader(24), "b": loader(10)})
        return dict(Trainer(plugins=[Distributed()]).validate(Counting(), loaders))

    first, second = ranks(2, validate)
    assert first == second
    assert first["valid/a/number"] == 11.5
    assert first["valid/b/number"] == 4.5
    assert first["valid/number"] == pytest.approx((11.5 * 24 + 4.5 * 10) / 34)


def test_predictions_are_shared_out():
    def predict():
        given = Loader(dataset(10), batch_size=4)
        return list(Trainer(plugins=[Distributed()]).predict(Counting(), given))

    assert ranks(2, predict) == [[[0, 1, 2, 3], [8, 9]], [[4, 5, 6, 7]]]


def test_parts_of_ones_own_are_left_as_they_are():
    def train():
        rank = Distributed().provide_peers().rank
        part = torch.utils.data.Subset(dataset(32), range(rank, 32, 2))
        trainer = Trainer(epochs=1, plugins=[Distributed(deal=False)])
        return trainer.fit(Small(), Loader(part, batch_size=4)).global_step

    assert ranks(2, train) == [4, 4]


def test_metric_objects_that_one_process_lacks_are_an_error_in_all():
    class Meter:
        def compute(self):
            return 1.0

        def reset(self):
            pass

    class Some(Counting):
        def validation_step(self, batch, run):
            if run.rank == 0:
                run.log(meter=Meter())

    def validate():
        with pytest.raises(UsageError, match="different metric objects"):
            Trainer(plugins=[Distributed()]).validate(Some(), loader(32))

    ranks(2, validate)


def test_overfit_and_dry_runs():
    def train():
        trainer = Trainer(epochs=2, overfit=2, plugins=[Distributed()], seed=1)
        overfit = trainer.fit(Small(), loader(40), loader(40))
        dry = Trainer(dry_run=2, plugins=[Distributed()]).fit(Small(), loader(40), loader(40))
        return overfit.global_step, dry.status

    assert ranks(2, train) == [(4, "completed")] * 2


def test_what_one_process_weighs_is_known_without_a_word():
    dealt = deal(loader(21), SimpleNamespace(data_rank=0, data_size=4, gather=lambda v: [v]), True)
    list(dealt)
    assert weights(dealt, 1, 4) == (4, 1, 0, 0)


def test_limits_are_those_of_each_process():
    def train():
        return fit(Small(), loader(64), limit_batches=3, epochs=1)["steps"]

    assert ranks(2, train) == [3, 3]

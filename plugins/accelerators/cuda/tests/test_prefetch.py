"""Reading ahead: every batch once and in order, and a resumed run that ends with the same bits."""

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader, Dataset

from trainbus import Accelerator, Loader, Trainer
from trainbus.batches import Limited, innermost, parts, set_epoch, size
from trainbus_cuda.prefetch import Ahead, Copy, may_read_ahead, plain_tensors

Pair = namedtuple("Pair", "x y")


@dataclass
class Sample:
    x: torch.Tensor
    text: str = "a"


class Host:
    """In the place of a stream: a batch is where it is to be."""

    def __init__(self):
        self.events = []

    def begin(self, batch):
        self.events.append("begin")
        return Copy(batch, None)

    def hand_over(self, sent):
        self.events.append("hand over")
        return sent.batch


class Noisy(Dataset):
    """Random augmentation in the worker."""

    def __len__(self):
        return 48

    def __getitem__(self, index):
        x = torch.randn(4, generator=torch.Generator().manual_seed(index))
        return x + 0.1 * torch.randn(4), int(x.sum() > 0)


def loader(kind, workers=2, **options):
    return kind(Noisy(), batch_size=8, shuffle=True, num_workers=workers, **options)


# --- the order -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 2, 5])
def test_each_batch_comes_once_and_in_order(number):
    assert list(Ahead(list(range(number)), Host())) == list(range(number))


def test_the_next_is_on_its_way_before_the_present_is_handed_over():
    host = Host()
    rest = iter(Ahead([1, 2, 3], host))
    next(rest)
    assert host.events == ["begin", "begin", "hand over"]
    list(rest)
    assert host.events[3:] == ["begin", "hand over", "hand over"]


def test_the_loader_inside_is_found_with_its_samplers_and_told_the_epoch():
    inner = loader(Loader)
    ahead = Ahead(inner, Host())
    assert size(ahead) == 6
    assert innermost(ahead, one_for_one=True) is inner
    assert {id(part) for part in parts(inner)} <= {id(part) for part in parts(ahead)}
    set_epoch(ahead, 3)
    assert inner.order.epoch == 3
    inner.start_at(4)
    assert len(list(ahead)) == 2
    assert size(Ahead(iter([1]), Host())) is None


# --- where it is exact ---------------------------------------------------------------------------


class WithState(DataLoader):
    """As torchdata's: what it has given is in its state."""

    def state_dict(self):
        return {}


@pytest.mark.parametrize(
    ("inner", "ahead"),
    [
        (loader(DataLoader), True),
        (loader(Loader), True),
        (Limited(loader(Loader), 2), True),
        (loader(DataLoader, workers=0), False),
        (loader(Loader, workers=0), False),
        (loader(WithState), False),
        ([1, 2], False),
    ],
    ids=["torch", "own", "limited", "no workers", "own, no workers", "with a state", "list"],
)
def test_only_what_worker_processes_make_is_read_ahead(inner, ahead):
    assert may_read_ahead(inner) is ahead


class Prefetching(Accelerator):
    """The CPU, with the loaders of the GPU."""

    def wrap_loader(self, loader):
        self.wrapped = may_read_ahead(loader)
        return Ahead(loader, Host()) if self.wrapped else loader


def train(make_net, kind, workers, directory, stop_at=None, resume=None, **options):
    torch.manual_seed(4)
    task, accelerator = make_net(), Prefetching()
    trainer = Trainer(
        epochs=3, seed=5, accelerator=accelerator, plugins=["checkpoint"], run_dir=directory,
        **options,
    )  # fmt: skip

    @trainer.on("train_batch_end")
    def stop(run):
        if run.global_step == stop_at:
            run.interrupt(KeyboardInterrupt())

    run = trainer.fit(task, loader(kind, workers), resume=resume)
    assert accelerator.wrapped is (workers > 0)
    return run.global_step, task.state_dict()


@pytest.mark.parametrize(
    ("kind", "workers", "stop_at", "options"),
    [
        (DataLoader, 2, 8, {}),
        (Loader, 2, 8, {}),
        (Loader, 2, 12, {}),
        (DataLoader, 2, 7, {"limit_batches": 4}),
        (DataLoader, 0, 8, {}),
    ],
    ids=["torch", "own", "between epochs", "limited", "no workers"],
)
def test_a_batch_that_was_read_and_not_trained_on_is_not_lost(
    make_net, tmp_path, kind, workers, stop_at, options
):
    whole = train(make_net, kind, workers, tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        train(make_net, kind, workers, tmp_path / "broken", stop_at=stop_at, **options)
    resumed = train(make_net, kind, workers, tmp_path / "broken", resume="auto", **options)
    assert resumed[0] == whole[0]
    torch.testing.assert_close(resumed[1], whole[1], rtol=0, atol=0)


# --- what a batch holds --------------------------------------------------------------------------


def test_the_tensors_of_a_nested_batch_are_found():
    one, two, three = torch.ones(1), torch.ones(2), torch.ones(3)
    batch = {"a": [one, "text"], "b": Pair(two, None), "c": Sample(three)}
    assert [x.numel() for x in plain_tensors(batch)] == [1, 2, 3]
    assert plain_tensors(["text", 3]) == []


@pytest.mark.parametrize(
    "batch",
    [
        pack_sequence([torch.ones(2)]),
        torch.eye(2).to_sparse(),
        torch.nn.Parameter(torch.ones(1)),
        [torch.ones(1), {"x": pack_sequence([torch.ones(2)])}],
    ],
    ids=["packed", "sparse", "subclass", "nested"],
)
def test_a_batch_with_tensors_out_of_sight_is_known(batch):
    assert plain_tensors(batch) is None

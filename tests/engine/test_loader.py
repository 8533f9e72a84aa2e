"""`trainbus.Loader`: samples are drawn with seeds of their own, and training's generators stay."""

import random

import pytest
import torch
from torch.utils.data import Dataset

from trainbus import Loader


class Drawn(Dataset):
    """A number of Python's generator and one of torch's, for each sample."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return random.random(), torch.rand(1)


def drawn(workers=0, epoch=0):
    loader = Loader(Drawn(), batch_size=3, seed=5, num_workers=workers)
    loader.set_epoch(epoch)
    return torch.cat([torch.stack([a, b[:, 0].double()]) for a, b in loader], dim=1)


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_draw_what_this_one_does(workers):
    assert torch.equal(drawn(), drawn(workers))


def test_another_epoch_draws_other_numbers():
    assert not (drawn() == drawn(epoch=1)).any()


def test_training_goes_on_with_its_own_numbers():
    torch.manual_seed(3)
    random.seed(3)
    expected = torch.rand(2), random.random()
    torch.manual_seed(3)
    random.seed(3)
    drawn()
    assert torch.equal(torch.rand(2), expected[0])
    assert random.random() == expected[1]


def test_no_device_is_seeded(monkeypatch):
    """`torch.manual_seed` seeds the generators of all devices, which nobody would put back."""
    seeded = []
    monkeypatch.setattr(torch, "manual_seed", seeded.append)
    drawn()
    assert seeded == []


def test_where_nobody_tells_the_epoch_each_pass_is_the_next_one():
    told = Loader(Drawn(), batch_size=3, shuffle=True, seed=5)
    alone = Loader(Drawn(), batch_size=3, shuffle=True, seed=5)
    for epoch in range(3):
        told.set_epoch(epoch)
        for one, other in zip(told, alone, strict=True):
            assert torch.equal(one[0], other[0])
            assert torch.equal(one[1], other[1])

"""Batches of tensors in memory: by rows, groups, windows and lengths, and how they go on."""

import pytest
import torch

from trainbus_data import DataError, MemoryLoader
from trainbus_data.ranges import BucketLoader, WindowLoader

ROWS = 1000
PARTS = [torch.arange(ROWS)[:, None].float().repeat(1, 3), torch.arange(ROWS)[:, None], torch.arange(ROWS)]
KINDS = ("numbers", "categories", "category")


def rows_of(loader):
    return [batch[-1].tolist() for batch in loader]


def all_of(loader):
    return [row for batch in rows_of(loader) for row in batch]


def test_parts_stay_together_and_each_row_comes_once():
    loader = MemoryLoader(PARTS, KINDS, 64, shuffle=True)
    batches = list(loader)
    assert len(batches) == len(loader) == 16
    assert [len(batch[0]) for batch in batches] == [64] * 15 + [40]
    for numbers, codes, target in batches:
        assert torch.equal(numbers[:, 2].long(), target)
        assert torch.equal(codes[:, 0], target)
    assert sorted(all_of(loader)) == list(range(ROWS))


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("size", [1, 64, 999, 5000])
def test_many_batches_at_once_are_those_that_are_made_one_by_one(shuffle, size):
    loader = MemoryLoader(PARTS, KINDS, size, shuffle=shuffle)
    loader.set_epoch(3)
    for ours, theirs in zip(loader, loader.one_by_one(0), strict=True):
        assert all(map(torch.equal, ours, theirs))


@pytest.mark.parametrize("shuffle", [True, False])
def test_writing_into_a_batch_changes_neither_the_data_nor_another_batch(shuffle):
    first = [part.clone() for part in PARTS]
    loader = MemoryLoader(first, KINDS, 64, shuffle=shuffle)
    kept = rows_of(MemoryLoader(PARTS, KINDS, 64, shuffle=shuffle))
    for batch, rows in zip(loader, kept, strict=True):
        assert batch[2].tolist() == rows
        batch[2].fill_(-1)
    assert torch.equal(first[2], PARTS[2])


def loaders():
    flat = torch.arange(3000)
    lengths = torch.randint(1, 12, (ROWS,), generator=torch.Generator().manual_seed(0))
    flat = torch.arange(int(lengths.sum()))
    return {
        "rows": MemoryLoader(PARTS, KINDS, 64, shuffle=True),
        "weighted": MemoryLoader(PARTS, KINDS, 64, shuffle=True, weights=torch.rand(ROWS).double()),
        "grouped": MemoryLoader(PARTS, KINDS, 64, shuffle=True, groups=torch.arange(ROWS) // 7),
        "stretches": MemoryLoader(PARTS, KINDS, 64, shuffle=True, epoch_size=300),
        "windows": WindowLoader(PARTS, KINDS, torch.arange(900), 8, batch_size=64, shuffle=True),
        "lengths": BucketLoader(flat, lengths, [PARTS[2]], ("t", "n", "y"), batch_size=64, shuffle=True),
    }


@pytest.mark.parametrize("kind", loaders())
def test_an_epoch_goes_on_inside_of_it(kind):
    loader = loaders()[kind]
    loader.set_epoch(2)
    whole = rows_of(loader)
    assert len(whole) == len(loader)
    loader.start_at(3)
    assert rows_of(loader) == whole[3:]
    assert rows_of(loader) == whole
    loader.set_epoch(5)
    assert rows_of(loader) != whole


def test_rows_of_a_group_come_together():
    groups = torch.arange(ROWS) % 90
    seen = [row % 90 for row in all_of(MemoryLoader(PARTS, KINDS, 64, shuffle=True, groups=groups))]
    changes = sum(a != b for a, b in zip(seen, seen[1:], strict=False))
    assert changes == 89
    assert seen[:1] != [0] or seen[-1:] != [89]


def test_short_epochs_have_seen_all_rows_before_one_comes_again():
    loader = MemoryLoader(PARTS, KINDS, 64, shuffle=True, epoch_size=300)
    assert len(loader) == 5
    seen = [row for _ in range(10) for row in all_of(loader)]
    assert len(seen) == 3000
    for start in (0, 1000, 2000):
        assert sorted(seen[start : start + 1000]) == list(range(ROWS))


def test_windows_are_ranges_of_each_part():
    past_and_future = WindowLoader(
        [PARTS[2], PARTS[0]], ("past", "future"), torch.tensor([5, 40]), [(0, 4), (4, 6)]
    )
    ((past, future),) = list(past_and_future)
    assert past.tolist() == [[5, 6, 7, 8], [40, 41, 42, 43]]
    assert future[:, :, 0].tolist() == [[9, 10], [44, 45]]
    with pytest.raises(DataError, match="part 0 has 1000 steps; the windows go from 0 to 1003"):
        WindowLoader(PARTS, KINDS, torch.tensor([0, 995]), 8)


def test_sequences_of_one_length_come_together_and_are_padded():
    lengths = torch.randint(1, 50, (2000,), generator=torch.Generator().manual_seed(0))
    flat = torch.arange(int(lengths.sum())) + 1
    loader = BucketLoader(
        flat, lengths, [torch.arange(2000)], ("tokens", "length", "label"), batch_size=32, shuffle=True
    )
    ends, padded, cells, seen = lengths.cumsum(0), 0, 0, []
    for tokens, length, label in loader:
        for row in range(len(label)):
            n = int(label[row])
            assert tokens[row, : length[row]].tolist() == flat[ends[n] - lengths[n] : ends[n]].tolist()
        padded += int((tokens == 0).sum())
        cells += tokens.numel()
        seen += label.tolist()
    assert sorted(seen) == list(range(2000))
    assert padded / cells < 0.08

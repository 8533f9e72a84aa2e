"""A loader whose batches depend on seed, epoch and index alone, and that starts anywhere."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, get_worker_info

from trainbus.devices import generators
from trainbus.devices.random_state import put_back, seed_host, take

_CPU = torch.device("cpu")


class Loader(DataLoader[Any]):
    """A DataLoader that is the same for any number of workers, and resumes without reading again.

    The order of an epoch is a permutation made of `seed` and the epoch; where nobody tells the
    epoch, as in a loop of one's own, each pass is the next one. Python, NumPy and torch
    are seeded for each sample with `seed`, the epoch and its index, so a random transform gives
    the same in the main process and in any worker; the random states of training are left alone.

    Args:
        dataset: a map-style dataset with a length.
        batch_size: samples in a batch.
        shuffle: a new order for each epoch, or the dataset's own.
        drop_last: leave out a last batch that is not full.
        seed: of order and samples.
        seed_samples: off for a dataset without randomness, which then loads a little faster.
        options: those of `torch.utils.data.DataLoader`, `num_workers` for example.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int = 1,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int = 0,
        seed_samples: bool = True,
        **options: Any,
    ) -> None:
        self._told, self._passes = False, 0
        self.order = _Order(len(dataset), shuffle, seed)  # type: ignore[arg-type]
        grouped = BatchSampler(self.order, batch_size, drop_last)  # type: ignore[arg-type]
        source = _Samples(dataset, seed, seed_samples)
        # A generator of its own: torch would draw the workers' seeds from that of training.
        options.setdefault("generator", torch.Generator().manual_seed(seed))
        super().__init__(source, batch_sampler=grouped, **options)

    def set_epoch(self, epoch: int) -> None:
        """Take the order and the seeds of this epoch."""
        self._told = True
        self.order.epoch = epoch

    def __iter__(self) -> Any:
        if self.order.shuffle and not self._told:
            self.order.epoch, self._passes = self._passes, self._passes + 1
        return super().__iter__()

    def start_at(self, batch: int) -> None:
        """Leave out the batches before this one, once, without reading them."""
        self.start_at_sample(batch * self.batch_sampler.batch_size)  # type: ignore[union-attr]

    def start_at_sample(self, sample: int) -> int:
        """Leave out the samples before this one, once; returns the batches that are left."""
        grouped: Any = self.batch_sampler
        self.order.skip = sample
        left, size = max(0, self.order.size - sample), int(grouped.batch_size)
        return left // size if grouped.drop_last else -(-left // size)


class _Order:
    """The indices of an epoch, each with its epoch: the seed of a sample travels with it."""

    def __init__(self, size: int, shuffle: bool, seed: int) -> None:
        self.size = size
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0
        self.skip = 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        if self.shuffle:
            generator = torch.Generator().manual_seed(mixed(self.seed, self.epoch, -1))
            indices: Iterable[int] = torch.randperm(self.size, generator=generator).tolist()
        else:
            indices = range(self.size)
        skip, self.skip = self.skip, 0
        return ((self.epoch, index) for index in islice(indices, skip, None))


class _Samples(Dataset[Any]):
    """A dataset whose samples are drawn with a seed of their own."""

    def __init__(self, dataset: Dataset[Any], seed: int, seeded: bool) -> None:
        self.dataset = dataset
        self.seed = seed
        self.seeded = seeded
        #: Of the dataset's own, which workers would have copies of, and repeat each other.
        self.generators = generators.of(dataset) if seeded else []

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, key: tuple[int, int]) -> Any:
        epoch, index = key
        if not self.seeded:
            return self.dataset[index]
        seed = mixed(self.seed, epoch, index)
        for generator in self.generators:
            generators.seed(generator, seed)
        if get_worker_info() is not None:
            seed_host(seed)
            return self.dataset[index]
        state = take(_CPU)  # here training draws from the same generators
        try:
            seed_host(seed)  # to seed the devices, too, would disturb the training on them
            return self.dataset[index]
        finally:
            put_back(state, _CPU)


def mixed(seed: int, epoch: int, index: int) -> int:
    """A seed of 63 bits that is different for each combination, as far as a hash can make it."""
    data = struct.pack("<qqq", seed, epoch, index)
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") >> 1

"""One order of batches for all processes, of which each reads its own: none twice, none left out.

In round `i` the process of rank `r` reads batch `i * W + r` of the order that one process alone
would read: `W` processes make of it what one makes with `accumulate=W`. Where the last round has
fewer batches than processes, those without one read the first of the round again, with weight 0:
they take part in the collectives, and nothing of it counts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from copy import copy
from itertools import chain, count, islice
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from trainbus import Loader, Loaders, batches
from trainbus.devices.random_state import put_back, take
from trainbus.errors import UsageError

if TYPE_CHECKING:
    from trainbus_distributed.peers import TorchPeers

logger = logging.getLogger("trainbus")

_CPU = torch.device("cpu")
#: Samplers that draw all that they draw when their first index is asked for.
_DRAW_AT_ONCE = (RandomSampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler)


def deal(loader: Iterable[Any], peers: TorchPeers, pads: bool, own: bool = False) -> Iterable[Any]:
    """The part of a loader that this process reads; a meeting, where lengths are compared.

    Args:
        loader: the same in all processes.
        peers: the processes.
        pads: all read as many batches: of weight 0 where there is none left.
        own: what is given is this process's own part already.

    Raises:
        UsageError: the processes have loaders of different lengths; in all of them.
    """
    if isinstance(loader, (Dealt, batches.OfThisProcess)) or peers.data_size == 1:
        return loader
    if isinstance(loader, Loaders) and not pads:
        each = {name: deal(one, peers, pads, own) for name, one in loader.loaders.items()}
        return Loaders(each, loader.mode)
    if isinstance(loader, batches.Wrapped) and loader.one_for_one:
        wrapper = copy(loader)
        wrapper.loader = deal(loader.loader, peers, pads, own)
        return wrapper
    batches.check(loader, "training" if pads else "validation")
    if own or _is_split(loader, peers):
        _compare_lengths(loader, peers, own)
        return loader
    _compare_lengths(loader, peers, own)
    if isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset):
        return DealtLoader(loader, peers, pads)
    return Dealt(loader, peers, pads)


def weights(loader: Any, index: int, size: int) -> tuple[int, ...]:
    """What batch `index` of a pass weighs in each process: its samples."""
    while loader is not None:
        if isinstance(loader, Dealt):
            return loader.weights(index)
        loader = getattr(loader, "loader", None)
    return (1,) * size


def _is_split(loader: Any, peers: TorchPeers) -> bool:
    """Whether a sampler of torch's splits it already."""
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, DistributedSampler):
        return False
    if (sampler.num_replicas, sampler.rank) != (peers.data_size, peers.data_rank):
        raise UsageError(
            f"the DistributedSampler of the loader is for rank {sampler.rank} of "
            f"{sampler.num_replicas}, this process is rank {peers.data_rank} of "
            f"{peers.data_size}; leave the sampler out: batches are dealt out without it"
        )
    logger.warning(
        "the loader has a DistributedSampler, which repeats samples to fill up; without it each "
        "sample is read once"
    )
    return True


def _compare_lengths(loader: Any, peers: TorchPeers, own: bool) -> None:
    lengths = peers.gather(batches.size(loader))
    if own and None in lengths:
        raise UsageError(
            "Distributed(deal=False): a loader does not tell its length, so that nobody knows "
            "which process ends first; give one with a length, or let it be dealt out"
        )
    if len(set(lengths)) > 1:
        listed = ", ".join(f"rank {rank}: {length}" for rank, length in enumerate(lengths))
        raise UsageError(
            f"the processes have loaders of different lengths, in batches ({listed}); give all of "
            "them the same loader, of all samples: each then reads its part of it"
            + ("; deal=False needs parts of one length" if own else "")
        )


class Dealt(batches.Wrapped):
    """Any iterable of batches: each process reads all of it, and takes what is its own.

    Args:
        loader: it.
        peers: the processes.
        pads: see `deal`.
    """

    one_for_one = False

    def __init__(self, loader: Iterable[Any], peers: TorchPeers, pads: bool) -> None:
        super().__init__(loader)
        self._peers, self._pads = peers, pads
        self._sizes: dict[int, tuple[int, ...]] = {}
        self._first = 0
        if callable(getattr(loader, "start_at", None)):
            self.start_at = self._start_at
        elif hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict"):
            self.state_dict, self.load_state_dict = loader.state_dict, self._load_state_dict
            #: Rounds read; the loader inside tells the rest.

    def _load_state_dict(self, state: Any) -> None:
        self.loader.load_state_dict(state)  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return self._share(len(self.loader))  # type: ignore[arg-type]

    def _share(self, total: int) -> int:
        """Of so many batches, those of this process."""
        size, rank = self._peers.data_size, self._peers.data_rank
        return -(-total // size) if self._pads else max(0, -(-(total - rank) // size))

    def weights(self, index: int) -> tuple[int, ...]:
        """What batch `index` weighs in each process."""
        found = self._sizes.get(index, (1,) * self._peers.data_size)
        for old in [each for each in self._sizes if each < index]:
            del self._sizes[old]
        return found

    def _start_at(self, batch: int) -> None:
        """Leave out the batches before this one, once."""
        self._first = batch
        self.loader.start_at(batch * self._peers.data_size)  # type: ignore[attr-defined]

    def __iter__(self) -> Iterator[Any]:
        first, self._first = self._first, 0
        self._sizes = {}
        return self._own(iter(self.loader), first)

    def _own(self, iterator: Iterator[Any], first: int) -> Iterator[Any]:
        size, rank = self._peers.data_size, self._peers.data_rank
        for number in count(first):
            together = list(islice(iterator, size))
            if not together:
                return
            sizes = [batches.batch_size(each) for each in together]
            self._sizes[number] = (*sizes, *[0] * (size - len(sizes)))
            if rank < len(together):
                yield together[rank]
            elif self._pads:
                yield together[0]


class DealtLoader(Dealt):
    """A DataLoader over a dataset of known indices: each process reads its own batches only."""

    def __init__(self, loader: DataLoader[Any], peers: TorchPeers, pads: bool) -> None:
        inner = copy(loader)
        automatic = loader.batch_sampler is not None
        self.own = _DealtSampler(loader.batch_sampler if automatic else loader.sampler, peers, pads)
        # A DataLoader does not let them be set.
        vars(inner)["batch_sampler" if automatic else "sampler"] = self.own
        vars(inner)["_iterator"] = None
        super().__init__(inner, peers, pads)
        self._sizes = self.own.sizes
        if hasattr(inner, "start_at_sample"):
            self.start_at_sample = self._start_at_sample
        #: The order of other loaders is drawn from the process's own random numbers.
        self._draws = not isinstance(loader, Loader) and not _is_sequential(loader)

    @property
    def batch_size(self) -> int | None:
        """Samples in a batch of this process."""
        return getattr(self.own, "batch_size", None)

    def __len__(self) -> int:
        return len(self.own)

    def _start_at(self, batch: int) -> None:
        self.own.first = batch
        inner: Any = self.loader
        inner.start_at(batch * self._peers.data_size)

    def _start_at_sample(self, sample: int) -> int:
        """Leave out so many samples of this process, once; returns the batches that are left."""
        inner: Any = self.loader
        left = self._share(inner.start_at_sample(sample * self._peers.data_size))
        self.own.first = len(self) - left
        return left

    def weights(self, index: int) -> tuple[int, ...]:
        """See `Dealt`."""
        self._sizes = self.own.sizes
        return super().weights(index)

    def __iter__(self) -> Iterator[Any]:
        self.own.anew()
        return self._with_order_of_first() if self._draws else iter(self.loader)

    def _with_order_of_first(self) -> Iterator[Any]:
        """An iterator whose order was drawn as the first process draws it; a meeting.

        There it is drawn as in a process alone: the seed of the workers first, then the order.
        Elsewhere the seed is drawn once more, from that process's own numbers, so that transforms
        in workers differ.
        """
        peers, loader = self._peers, self.loader
        assert isinstance(loader, DataLoader)
        if peers.data_rank == 0:
            peers.broadcast(take(_CPU))
            iterator = iter(loader)
            self.own.draw()
            return iterator
        of_first = peers.broadcast(None)
        own, generator = take(_CPU), loader.generator
        put_back(of_first, _CPU)
        if loader._iterator is None:  # workers that stay keep their seeds
            torch.empty((), dtype=torch.int64).random_(generator=generator)
        self.own.draw()
        put_back(own, _CPU)
        vars(loader)["generator"] = None
        try:
            return iter(loader)
        finally:
            vars(loader)["generator"] = generator


class _DealtSampler(Sampler[Any]):
    """The batches of indices that one process reads, of those of all."""

    def __init__(self, sampler: Iterable[Any], peers: TorchPeers, pads: bool) -> None:
        self.sampler = sampler
        self.batch_size = getattr(sampler, "batch_size", None)
        self.drop_last = getattr(sampler, "drop_last", False)
        self._peers, self._pads = peers, pads
        #: What each batch weighs, by process, and the number of the first of the next pass.
        self.sizes: dict[int, tuple[int, ...]] = {}
        self.first = 0
        self._source: Iterator[Any] | None = None
        self._begun = False

    def __len__(self) -> int:
        total, size = len(self.sampler), self._peers.data_size  # type: ignore[arg-type]
        if self._pads:
            return -(-total // size)
        return max(0, -(-(total - self._peers.data_rank) // size))

    def anew(self) -> None:
        """A pass begins."""
        self._begun, self._source, self.sizes = False, None, {}

    def draw(self) -> None:
        """Draw the order now, if the pass has not begun."""
        if self._begun or self._source is not None:
            return
        source = iter(self.sampler)
        inside = getattr(self.sampler, "sampler", self.sampler)
        at_once = type(inside) in _DRAW_AT_ONCE and type(self.sampler) in (
            BatchSampler, *_DRAW_AT_ONCE,
        )  # fmt: skip
        drawn = list(islice(source, 1) if at_once else source)
        self._source = chain(drawn, source)

    def __iter__(self) -> Iterator[Any]:
        source = self._source if self._source is not None else iter(self.sampler)
        self._begun, self._source = True, None
        first, self.first = self.first, 0
        size, rank = self._peers.data_size, self._peers.data_rank
        for number in count(first):
            together = list(islice(source, size))
            if not together:
                return
            sizes = [len(each) if isinstance(each, (list, tuple)) else 1 for each in together]
            self.sizes[number] = (*sizes, *[0] * (size - len(sizes)))
            if rank < len(together):
                yield together[rank]
            elif self._pads:
                yield together[0]


def _is_sequential(loader: DataLoader[Any]) -> bool:
    grouped = loader.batch_sampler
    return type(loader.sampler) is SequentialSampler and (
        grouped is None or type(grouped) is BatchSampler
    )

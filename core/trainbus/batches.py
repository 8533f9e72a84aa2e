"""What the loop must know of loaders and batches, which may be of any type."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from copy import copy
from dataclasses import fields, is_dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from trainbus.errors import UsageError


def size(loader: Iterable[Any]) -> int | None:
    """Batches in one pass over the loader, or None when it does not tell."""
    try:
        return len(loader)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        return None


class Wrapped:
    """A loader around another one, kept as `loader`: the base of wrappers that trainbus knows.

    It looks inside of these, for samplers, random generators and, while the batches are those of
    the loader inside, one for one, for the position. Any other wrapper is read from the start of
    the pass when a run is resumed.
    """

    #: Its batches are the first batches of the loader inside, each changed or not, in their order.
    one_for_one = True

    def __init__(self, loader: Iterable[Any]) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)


def innermost(loader: Iterable[Any], one_for_one: bool = False) -> Iterable[Any]:
    """The loader inside of every `Wrapped` around it.

    Args:
        loader: wrapped or not.
        one_for_one: stop at a wrapper whose batches are not those of the loader inside.
    """
    while isinstance(loader, Wrapped) and (loader.one_for_one or not one_for_one):
        loader = loader.loader
    return loader


class Limited(Wrapped):
    """The first batches of a loader: a number of them, or a fraction of one that tells its size."""

    def __init__(self, loader: Iterable[Any], limit: float) -> None:
        super().__init__(loader)
        total = size(loader)
        if isinstance(limit, float) and limit <= 1.0:
            if total is None:
                raise UsageError(
                    f"limit_batches={limit} is a fraction, but {describe(loader)} does not tell "
                    "its length; give a number of batches"
                )
            self.count = max(1, round(total * limit))
        else:
            self.count = int(limit) if total is None else min(int(limit), total)

    def __len__(self) -> int:
        total = size(self.loader)
        return self.count if total is None else min(self.count, total)

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(self.loader), self.count)


def set_epoch(loader: Iterable[Any], epoch: int) -> None:
    """Tell the epoch to a loader, to those it wraps and to all their samplers (`set_epoch`)."""
    for part in parts(loader):
        tell = getattr(part, "set_epoch", None)
        if callable(tell):
            tell(epoch)


def generators(loader: Iterable[Any]) -> list[torch.Generator]:
    """The random generators that a loader, those it wraps and their samplers were given."""
    found: list[torch.Generator] = []
    for part in parts(loader):
        generator = getattr(part, "generator", None)
        if isinstance(generator, torch.Generator) and generator not in found:
            found.append(generator)
    return found


def parts(loader: object) -> list[Any]:
    """A loader, what it keeps as `loader`, and the samplers of both, each once."""
    found: dict[int, Any] = {}

    def walk(part: object) -> None:
        if part is None or id(part) in found:
            return
        found[id(part)] = part
        for name in ("loader", "sampler", "batch_sampler"):
            walk(getattr(part, name, None))

    walk(loader)
    return list(found.values())


def describe(loader: Iterable[Any]) -> str:
    """A loader in words, for messages."""
    loader = innermost(loader)
    dataset = getattr(loader, "dataset", None)
    total = None if dataset is None else size(dataset)
    kind = type(loader).__name__
    return kind if total is None else f"{kind} over {total} samples"


def is_empty(loader: Iterable[Any], stage: str) -> UsageError:
    """The error for a loader that gave no batch."""
    again = (
        " this time; a generator can be read only once: give a list, a DataLoader, or an object "
        "whose __iter__ starts again"
        if iter(loader) is loader
        else ""
    )
    return UsageError(f"the {stage} loader gave no batch{again}: {describe(loader)}")


def batch_size(batch: Any) -> int:
    """Samples in a batch: the length of the first tensor with a dimension in it, else 1."""
    first = batch
    if type(batch) in (tuple, list, dict) and batch:  # the usual cases, without a walk
        first = next(iter(batch.values() if type(batch) is dict else batch))
    if type(first) is Tensor and first.ndim:
        return first.size(0)
    for tensor in tensors(batch):
        if tensor.ndim:
            return tensor.shape[0]
    return 1


def is_record(value: Any) -> bool:
    """Whether it is an instance of a dataclass."""
    return is_dataclass(value) and not isinstance(value, type)


def is_rebuilt(value: Any) -> bool:
    """Whether `rebuilt` looks inside of it: a tuple, list, mapping or instance of a dataclass."""
    return isinstance(value, (tuple, list, MutableMapping)) or is_record(value)


def leaves(batch: Any, whole: Callable[[Any], bool] | None = None) -> Iterator[Any]:
    """What a nested batch is made of, in order: all that is no sequence, mapping or dataclass.

    Args:
        batch: nested, of any type.
        whole: true for a value that is not to be looked into.
    """
    if whole is not None and whole(batch):
        yield batch
        return
    if isinstance(batch, Mapping):
        values: Iterable[Any] = batch.values()
    elif isinstance(batch, Sequence) and not isinstance(batch, (str, bytes)):
        values = batch
    elif is_record(batch):
        values = [getattr(batch, field.name) for field in fields(batch)]
    else:
        yield batch
        return
    for value in values:
        yield from leaves(value, whole)


def tensors(batch: Any) -> Iterator[Tensor]:
    """The tensors of a nested batch, in order."""
    return (leaf for leaf in leaves(batch) if isinstance(leaf, Tensor))


def rebuilt(batch: Any, change: Callable[[Any], Any]) -> Any:
    """The same batch, made again with what `change` gives.

    Tuples, named tuples, lists, mappings and dataclasses are walked through and copied, whatever
    their constructors want; what is none of them, and was not changed, is passed on as it is.

    Args:
        batch: nested, of any type.
        change: gives what takes the place of a value, or None to look inside of it.
    """
    changed = change(batch)
    if changed is not None:
        return changed
    if isinstance(batch, tuple):
        values = [rebuilt(value, change) for value in batch]
        return type(batch)(*values) if hasattr(batch, "_fields") else type(batch)(values)
    if isinstance(batch, list):
        made: Any = copy(batch)
        made[:] = [rebuilt(value, change) for value in batch]
        return made
    if isinstance(batch, MutableMapping):
        made = copy(batch)
        for key, value in batch.items():
            made[key] = rebuilt(value, change)
        return made
    if is_record(batch):
        made = copy(batch)
        for field in fields(batch):
            # Around a frozen dataclass's own way, which refuses, and a property's.
            object.__setattr__(made, field.name, rebuilt(getattr(batch, field.name), change))
        return made
    return batch


def move(batch: Any, device: torch.device) -> Any:
    """The same batch with every tensor, and everything else that has `.to`, on `device`.

    It is walked through as by `rebuilt`. Copies from pinned memory are not waited for.
    """

    def moved(value: Any) -> Any:
        if isinstance(value, Tensor):
            # From other memory some devices would still read after the batch is gone.
            return value.to(device, non_blocking=value.is_pinned())
        return value.to(device) if callable(getattr(value, "to", None)) else None

    return rebuilt(batch, moved)

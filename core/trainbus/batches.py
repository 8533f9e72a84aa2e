"""What the loop must know of loaders and batches, which may be of any type."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import fields, is_dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import DataLoader, Dataset, Sampler

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


class OfThisProcess(Wrapped):
    """Batches that are this process's own, where others have theirs: nothing of it is dealt out."""

    one_for_one = False


def limited(loader: Iterable[Any], limit: float | None) -> Iterable[Any]:
    """A loader, or its first batches where there is a limit."""
    return loader if limit is None else Limited(loader, limit)


def set_epoch(loader: Iterable[Any], epoch: int) -> None:
    """Tell the epoch to a loader, to those it wraps and to all their samplers (`set_epoch`)."""
    for part in parts(loader):
        tell = getattr(part, "set_epoch", None)
        if callable(tell):
            tell(epoch)


def parts(loader: object) -> list[Any]:
    """A loader, what it wraps, and samplers and datasets at any depth, each once."""
    found: dict[int, Any] = {}

    def walk(part: object) -> None:
        if part is None or id(part) in found:
            return
        found[id(part)] = part
        for name in ("loader", "dataset", "sampler", "batch_sampler"):
            walk(getattr(part, name, None))
        for each in attributes(part):
            tells = callable(getattr(each, "set_epoch", None))
            if tells or isinstance(each, (*_PARTS, Wrapped)):
                walk(each)

    walk(loader)
    return list(found.values())


_PARTS = (DataLoader, Dataset, Sampler)


def attributes(part: object) -> list[Any]:
    """What an object keeps, also in lists, tuples and mappings: the first hundred in each."""
    found = list(vars(part).values()) if hasattr(part, "__dict__") else []
    for value in list(found):
        if isinstance(value, Mapping):
            value = value.values()
        elif not isinstance(value, (list, tuple)):
            continue
        found += islice(value, 100)
    return found


def describe(loader: Iterable[Any]) -> str:
    """A loader in words, for messages."""
    loader = innermost(loader)
    dataset = getattr(loader, "dataset", None)
    total = None if dataset is None else size(dataset)
    kind = type(loader).__name__
    return kind if total is None else f"{kind} over {total} samples"


def check(loader: object, stage: str) -> None:
    """Raise `UsageError` for what is no iterable of batches."""
    if not hasattr(loader, "__iter__") and not hasattr(loader, "__getitem__"):
        raise UsageError(f"the {stage} loader is {loader!r:.80}; give an iterable of batches")
    several = list(loader) if isinstance(loader, (list, tuple)) else ()
    if isinstance(loader, Mapping) or isinstance(next(iter(several), None), (DataLoader, Wrapped)):
        raise UsageError(
            f"the {stage} loader is a {type(loader).__name__} of loaders; give trainbus.Loaders of "
            "it, which reads them side by side or one after the other"
        )


def is_empty(loader: Iterable[Any], stage: str) -> UsageError:
    """The error for a loader that gave no batch."""
    again = (
        " this time; a generator can be read only once: give a list, a DataLoader, or an object "
        "whose __iter__ starts again"
        if iter(loader) is loader
        else ""
    )
    return UsageError(f"the {stage} loader gave no batch{again}: {describe(loader)}")


def samples(batch: Any) -> tuple[int, bool]:
    """How many samples a batch holds, and whether that is sure, or a guess.

    It is sure where all fields tell the same, as the first dimension of a tensor or the length of a
    list, or where the batch itself tells it (`num_graphs` of torch_geometric, packed sequences).
    """
    graphs = getattr(batch, "num_graphs", None)
    if isinstance(graphs, int):
        return graphs, True
    if isinstance(batch, PackedSequence):
        return int(batch.batch_sizes[0]), True
    if isinstance(batch, Tensor):
        return (batch.shape[0], True) if batch.ndim else (1, False)
    if isinstance(batch, Mapping):
        fields_of: list[Any] = list(batch.values())
    elif is_record(batch):
        fields_of = [getattr(batch, field.name) for field in fields(batch)]
    elif isinstance(batch, Sequence) and not isinstance(batch, (str, bytes)):
        if batch and all(isinstance(each, (Mapping, str)) for each in batch):
            return len(batch), True  # a list of samples that nobody put together
        if batch and isinstance(batch, list) and all(map(_like_an_image, batch)):
            return len(batch), False
        fields_of = list(batch)
    else:
        return 1, False
    counts = [count for each in fields_of if (count := _count(each, fields_of)) is not None]
    return (counts[0], len(set(counts)) == 1) if counts else (1, False)


def _count(field: Any, others: Sequence[Any]) -> int | None:
    """The samples that one field of a batch tells of; None: it tells nothing."""
    if isinstance(field, Tensor):
        return field.shape[0] if field.ndim else None
    if isinstance(field, (list, tuple)) and field and not hasattr(field, "_fields"):
        tensors_in = [each for each in field if isinstance(each, Tensor) and each.ndim]
        lengths = {each.shape[0] for each in tensors_in}
        whole = {each.shape[0] for each in others if isinstance(each, Tensor) and each.ndim}
        if len(tensors_in) == len(field) and len(lengths) == 1 and lengths <= whole:
            return lengths.pop()  # several tensors of the same samples
        if all(isinstance(each, (Tensor, Mapping, str, int, float)) for each in field):
            return len(field)
    if isinstance(field, (str, bytes, int, float, bool)) or field is None:
        return None
    count, sure = samples(field)
    return count if sure else None


def _like_an_image(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 3 and value.shape[0] in (1, 3, 4)


def batch_size(batch: Any) -> int:
    """Samples in a batch, guessed where it does not tell; see `samples`."""
    return samples(batch)[0]


def fingerprint(batch: Any) -> list[str]:
    """A short text for each leaf of a batch; equal batches have equal ones."""
    return [_digest(leaf) for leaf in leaves(batch)]


def differ(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two fingerprints are of different batches.

    Numbers with a fraction may have been changed in place, by an augmentation, or be random: they
    count where there is nothing else.
    """
    if len(one) != len(other):
        return True
    exact = [i for i, each in enumerate(one) if not each.startswith("~")] or range(len(one))
    return any(one[i] != other[i] for i in exact)


def _digest(leaf: Any) -> str:
    if hasattr(leaf, "__array__") and getattr(leaf, "dtype", None) is not None:  # NumPy's
        with suppress(TypeError, ValueError):
            leaf = torch.as_tensor(leaf)
    if not isinstance(leaf, Tensor):
        return hashlib.sha256(repr(leaf)[:10_000].encode(errors="replace")).hexdigest()[:16]
    if leaf.layout is not torch.strided or leaf.is_quantized or leaf.is_nested:
        return f"~{tuple(leaf.shape) if not leaf.is_nested else 'nested'}"
    values = leaf.detach().cpu().contiguous()
    data = values.view(-1).view(torch.uint8).numpy().tobytes() if values.numel() else b""
    mark = "~" if leaf.is_floating_point() or leaf.is_complex() else ""
    return mark + hashlib.sha256(str(tuple(leaf.shape)).encode() + data).hexdigest()[:16]


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

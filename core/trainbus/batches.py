"""What the loop must know of loaders and batches, which may be of any type."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from copy import copy
from dataclasses import fields, is_dataclass, replace
from itertools import islice, pairwise
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


class Limited:
    """The first batches of a loader: a number of them, or a fraction of one that tells its size."""

    def __init__(self, loader: Iterable[Any], limit: float) -> None:
        self.loader = loader
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
    """Tell the epoch to samplers that shuffle by it (`set_epoch`, as torch's do)."""
    loader = loader.loader if isinstance(loader, Limited) else loader
    for part in parts(loader):
        tell = getattr(part, "set_epoch", None)
        if callable(tell):
            tell(epoch)


def parts(loader: object) -> list[Any]:
    """A loader and its samplers, each once."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    samplers = (
        getattr(loader, "sampler", None),
        batch_sampler,
        getattr(batch_sampler, "sampler", None),
    )
    return list({id(part): part for part in (loader, *samplers)}.values())


def describe(loader: object) -> str:
    """A loader in words, for messages."""
    loader = getattr(loader, "loader", loader) if isinstance(loader, Limited) else loader
    dataset = getattr(loader, "dataset", None)
    total = None if dataset is None else size(dataset)
    kind = type(loader).__name__
    return kind if total is None else f"{kind} over {total} samples"


def is_empty(loader: Iterable[Any], stage: str) -> UsageError:
    """The error for a loader that gave no batch."""
    again = (
        " this time; a generator can be read only once: give a list, a DataLoader, or an object "
        "whose __iter__ starts anew"
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


def tensors(batch: Any) -> Iterator[Tensor]:
    """The tensors of a nested batch, in order."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from tensors(value)
    elif isinstance(batch, Sequence) and not isinstance(batch, (str, bytes)):
        for value in batch:
            yield from tensors(value)
    elif is_dataclass(batch):
        for field in fields(batch):
            yield from tensors(getattr(batch, field.name))


def split(batch: Any, parts: int) -> list[Any]:
    """The same batch in parts of nearly equal size, cut along the first dimension.

    How many samples there are, a tensor at the top of the batch says: the batch itself, or one of
    its values. Tensors, arrays and lists of that length are cut; other sequences, mappings and
    dataclasses are walked through; single values go into each part.

    Raises:
        UsageError: it is of one sample, or holds what cannot be cut so.
    """
    top = _values(batch)
    samples = next((x.shape[0] for x in top if isinstance(x, Tensor) and x.ndim), 0)
    if samples < 2:
        raise UsageError(
            f"a {type(batch).__name__} with {samples or 'no tensor and so an unknown number of'} "
            "samples cannot be cut"
        )
    parts = min(parts, samples)
    bounds = [samples * number // parts for number in range(parts + 1)]
    return [_part(batch, slice(*pair), samples, top=True) for pair in pairwise(bounds)]


def _values(batch: Any) -> list[Any]:
    if isinstance(batch, Mapping):
        return list(batch.values())
    if is_dataclass(batch):
        return [getattr(batch, field.name) for field in fields(batch)]
    return list(batch) if isinstance(batch, (tuple, list)) else [batch]


def _part(value: Any, part: slice, samples: int, top: bool = False) -> Any:
    if value is None or isinstance(value, (str, bytes, int, float, bool)):
        return value
    if isinstance(value, MutableMapping):
        cut = copy(value)
        for key, item in value.items():
            cut[key] = _part(item, part, samples)
        return cut
    if is_dataclass(value) and not isinstance(value, type):
        given = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
        return replace(value, **{name: _part(x, part, samples) for name, x in given.items()})
    shape = getattr(value, "shape", None)
    if isinstance(value, (tuple, list)):
        of_batches = all(isinstance(x, Tensor) and _length(x) == samples for x in value)
        if len(value) == samples and not (top or of_batches):
            return value[part]
        walked = [_part(item, part, samples) for item in value]
        return type(value)(*walked) if hasattr(value, "_fields") else type(value)(walked)
    if shape is not None and len(shape) == 0:
        return value
    if shape is not None and shape[0] == samples:
        return value[part]
    what = type(value).__name__ + (f" of shape {tuple(shape)}" if shape is not None else "")
    raise UsageError(f"a batch of {samples} samples with a {what} in it cannot be cut")


def _length(tensor: Tensor) -> int:
    return tensor.shape[0] if tensor.ndim else 0


def rebuilt(batch: Any, change: Callable[[Any], Any]) -> Any:
    """The same batch, made anew with what `change` gives.

    Tuples, named tuples, lists, mappings and dataclasses are walked through; what is none of them,
    and was not changed, is passed on as it is.

    Args:
        batch: nested, of any type.
        change: gives what takes the place of a value, or None to look inside of it.
    """
    changed = change(batch)
    if changed is not None:
        return changed
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(rebuilt(value, change) for value in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(rebuilt(value, change) for value in batch)
    if isinstance(batch, MutableMapping):
        made = copy(batch)
        for key, value in batch.items():
            made[key] = rebuilt(value, change)
        return made
    if is_dataclass(batch) and not isinstance(batch, type):
        values = {f.name: rebuilt(getattr(batch, f.name), change) for f in fields(batch) if f.init}
        return replace(batch, **values)
    return batch


def move(batch: Any, device: torch.device) -> Any:
    """The same batch with every tensor, and all else that has `.to`, on `device`.

    It is walked through as by `rebuilt`. Copies from pinned memory are not waited for.
    """

    def moved(value: Any) -> Any:
        if isinstance(value, Tensor):
            # From other memory some devices would still read after the batch is gone.
            return value.to(device, non_blocking=value.is_pinned())
        return value.to(device) if callable(getattr(value, "to", None)) else None

    return rebuilt(batch, moved)

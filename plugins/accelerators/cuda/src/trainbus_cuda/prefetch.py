"""Batches that are copied on a stream of their own, and read ahead where that is exact."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from trainbus import batches


class Copy(NamedTuple):
    """A batch on its way, and what says that it has arrived; nothing, if it needs no waiting."""

    batch: Any
    arrived: torch.cuda.Event | None


class SideStream:
    """A stream for copies to a device, beside that of the computation."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def begin(self, batch: Any) -> Copy:
        """Begin to copy a batch; the host goes on at once."""
        tensors = plain_tensors(batch)
        if tensors is None:  # something with a `to` of its own, whose tensors are not known
            return Copy(batches.move(batch, self.device), None)
        if all(tensor.device == self.device for tensor in tensors):
            return Copy(batch, None)
        with torch.cuda.stream(self.stream):
            return Copy(_moved(batch, self.device), self.stream.record_event())

    def hand_over(self, sent: Copy) -> Any:
        """The batch, for the present stream, which waits for it; the host does not."""
        if sent.arrived is None:
            return sent.batch
        present = torch.cuda.current_stream(self.device)
        present.wait_event(sent.arrived)
        for tensor in plain_tensors(sent.batch) or ():
            # It belongs to the other stream, which would use its memory again as soon as the last
            # name is gone, and not when the computation has read it.
            tensor.record_stream(present)
        return sent.batch


class Ahead(batches.Wrapped):
    """A loader whose next batch is on its way while the present one is trained on."""

    def __init__(self, loader: Iterable[Any], side: SideStream) -> None:
        super().__init__(loader)
        self._side = side

    def __iter__(self) -> Iterator[Any]:
        side = self._side
        ahead: Copy | None = None
        for batch in self.loader:
            present, ahead = ahead, side.begin(batch)
            if present is not None:
                yield side.hand_over(present)
        if ahead is not None:
            yield side.hand_over(ahead)


def may_read_ahead(loader: Iterable[Any]) -> bool:
    """Whether a batch may be read before the one in front of it was trained on.

    Only where nothing in this process tells the difference: with worker processes, whose random
    numbers are their own. In this process a random augmentation would draw before the dropout
    that comes first, and a loader with a `state_dict` would save that it had given what was not
    trained on; a resumed run would miss the one and lose the other.
    """
    inner = batches.innermost(loader)
    return (
        isinstance(inner, DataLoader) and inner.num_workers > 0 and not hasattr(inner, "state_dict")
    )


def plain_tensors(batch: Any) -> list[Tensor] | None:
    """The tensors of a nested batch; None when it has some that are out of sight.

    Such are those of objects with a method `to` of their own, and of sparse and nested tensors.
    """
    found = list(batches.leaves(batch, whole=_moves_itself))
    for leaf in found:
        if type(leaf) is not Tensor and _moves_itself(leaf):
            return None
    tensors = [leaf for leaf in found if type(leaf) is Tensor]
    plain = all(each.layout is torch.strided and not each.is_nested for each in tensors)
    return tensors if plain else None


def _moves_itself(value: Any) -> bool:
    return callable(getattr(value, "to", None))


def _moved(batch: Any, device: torch.device) -> Any:
    """A batch of plain tensors, rebuilt on the device; those of the host go through pinned memory.

    A copy from there holds that memory until it is done, also when the tensor is gone before.
    """

    def moved(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return None
        return value.to(device) if value.is_cuda else _pinned(value).to(device, non_blocking=True)

    return batches.rebuilt(batch, moved)


def _pinned(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_pinned() else tensor.pin_memory()

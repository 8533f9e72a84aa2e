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
    #: The tensors that were made for it on the side stream.
    made: list[Tensor] = []  # noqa: RUF012 (a named tuple's default, which nobody changes)


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
            moved, made = _moved(batch, self.device)
            return Copy(moved, self.stream.record_event(), made)

    def hand_over(self, sent: Copy) -> Any:
        """The batch, for the present stream, which waits for it; the host does not."""
        if sent.arrived is None:
            return sent.batch
        present = torch.cuda.current_stream(self.device)
        present.wait_event(sent.arrived)
        for tensor in sent.made:
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
        rest = iter(self.loader)
        ahead: Copy | None = None
        failure: Exception | None = None
        while failure is None:
            present = ahead
            try:
                ahead = side.begin(next(rest))
            except StopIteration:
                ahead = None
                break
            except Exception as error:  # the batch that is here was read before it
                failure = error
            if present is not None:
                yield side.hand_over(present)
        if failure is not None:
            raise failure
        if present is not None:
            yield side.hand_over(present)


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


def _moved(batch: Any, device: torch.device) -> tuple[Any, list[Tensor]]:
    """A batch of plain tensors, rebuilt on the device; those of the host go through pinned memory.

    A copy from there holds that memory until it is done, also when the tensor is gone before.

    Returns:
        The batch, and the tensors that were made. A record may make others of its own besides.
    """
    made: list[Tensor] = []

    def moved(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return None
        new = value.to(device) if value.is_cuda else pinned(value).to(device, non_blocking=True)
        made.append(new)
        return new

    return batches.rebuilt(batch, moved), made


def pinned(tensor: Tensor, pin: bool = True) -> Tensor:
    """The tensor in pinned memory: dense, whatever it is a view of, with its order of dimensions.

    `Tensor.pin_memory` keeps the strides: it refuses expanded tensors, and pins all that lies
    between the numbers of a slice.
    """
    if tensor.is_pinned() if pin else False:
        return tensor
    return torch.empty_like(tensor, pin_memory=pin).copy_(tensor)

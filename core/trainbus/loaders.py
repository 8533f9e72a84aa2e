"""Several loaders as one: side by side to train on, one after the other to evaluate on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Literal

from torch.utils.data import DataLoader

from trainbus import batches
from trainbus.errors import UsageError

Mode = Literal["min_size", "max_size", "sequential"]
#: What the epochs of a loader that is begun again within an epoch are counted from.
_AGAIN = 2**20


class Loaders:
    """Loaders by name.

    Trained on, a batch is a dict with a batch of each: `Loaders({"real": real, "made": made})`.
    Validated, tested and predicted on, they come one after the other, with metrics of their own
    (`valid/real/loss`), and those over all samples (`valid/loss`).

    Args:
        loaders: by name, or a sequence, whose names are 0, 1, 2, ...
        mode: of an epoch of training: "min_size" ends it with the shortest loader; "max_size" with
            the longest, and begins shorter ones again; "sequential" reads one after the other,
            and its batches are theirs.

    Raises:
        UsageError: there is none, or a name that no metric could have.
    """

    def __init__(
        self,
        loaders: Mapping[str, Iterable[Any]] | Sequence[Iterable[Any]],
        mode: Mode = "min_size",
    ) -> None:
        if not isinstance(loaders, Mapping):
            loaders = {str(index): each for index, each in enumerate(loaders)}
        if mode not in ("min_size", "max_size", "sequential"):
            raise UsageError(f"Loaders(mode={mode!r}): give 'min_size', 'max_size' or 'sequential'")
        if not loaders:
            raise UsageError("Loaders: give at least one loader")
        for name, loader in loaders.items():
            if not isinstance(name, str) or not name or "/" in name:
                raise UsageError(f"Loaders: the name {name!r}: give a text without '/'")
            batches.check(loader, name)
        self.loaders = dict(loaders)
        self.mode = mode
        self._epoch = 0
        #: The first batch of the next pass, once, as `start_at` has it.
        self._first = 0
        if all(callable(getattr(each, "start_at", None)) for each in self.loaders.values()) and (
            None not in self._sizes()
        ):
            self.start_at = self._start_at

    @classmethod
    def of(cls, given: Any) -> Any:
        """A mapping or a list of loaders as `Loaders`; what is one loader already as it is."""
        loaders = isinstance(given, (list, tuple)) and is_loader(next(iter(given), None))
        return cls(given) if loaders or isinstance(given, Mapping) else given

    def _sizes(self) -> list[int | None]:
        return [batches.size(each) for each in self.loaders.values()]

    def __len__(self) -> int:
        known = [size for size in self._sizes() if size is not None]
        if self.mode == "min_size" and known:  # one without an end may be beside them
            return min(known)
        if len(known) < len(self.loaders):
            raise TypeError("a loader does not tell its length")
        return max(known) if self.mode == "max_size" else sum(known)

    def set_epoch(self, epoch: int) -> None:
        """Remember the epoch, for loaders that are begun again; each of them is told it, too."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        first, self._first = self._first, 0
        if self.mode == "sequential":
            return self._one_after_the_other(first)
        return self._side_by_side(first)

    def _one_after_the_other(self, first: int) -> Iterator[Any]:
        for loader in self.loaders.values():
            if first:
                size = len(loader)  # type: ignore[arg-type]
                if size <= first:
                    first -= size
                    continue
                loader.start_at(first)  # type: ignore[attr-defined]
                first = 0
            yield from loader

    def _side_by_side(self, first: int) -> Iterator[Any]:
        cycle = {name: _Cycle(loader, self._epoch) for name, loader in self.loaders.items()}
        if first:
            for each in cycle.values():
                each.start_at(first)
        longest = self.mode == "max_size"
        end = batches.size(self)
        for _ in count() if end is None else range(first, end):
            try:
                batch = {name: each.next(again=longest) for name, each in cycle.items()}
            except StopIteration:
                return
            if longest and end is None and all(each.again for each in cycle.values()):
                return
            yield batch

    def _start_at(self, batch: int) -> None:
        """Leave out the batches before this one, once, without reading them."""
        self._first = batch


class _Cycle:
    """A loader that may be begun again within an epoch."""

    def __init__(self, loader: Iterable[Any], epoch: int) -> None:
        self.loader = loader
        self.epoch = epoch
        #: How often it was begun again.
        self.again = 0
        self._iterator: Iterator[Any] | None = None

    def start_at(self, batch: int) -> None:
        self.again, rest = divmod(batch, len(self.loader))  # type: ignore[arg-type]
        self._tell_epoch()
        self.loader.start_at(rest)  # type: ignore[attr-defined]

    def next(self, again: bool) -> Any:
        if self._iterator is None:
            self._iterator = iter(self.loader)
        try:
            return next(self._iterator)
        except StopIteration:
            if not again:
                raise
        self.again += 1
        self._tell_epoch()
        self._iterator = iter(self.loader)
        return next(self._iterator)

    def _tell_epoch(self) -> None:
        if self.again:
            batches.set_epoch(self.loader, self.epoch + self.again * _AGAIN)


def is_loader(value: object) -> bool:
    """Whether something in a list is a loader, and no batch."""
    if isinstance(value, (DataLoader, batches.Wrapped, Loaders)):
        return True
    seeks = callable(getattr(value, "start_at", None)) or callable(getattr(value, "set_epoch", 0))
    return seeks and hasattr(value, "__iter__")

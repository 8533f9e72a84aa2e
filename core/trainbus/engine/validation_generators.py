"""Random generators of the loaders that a run validates on: their states in its checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any
from weakref import ref

from trainbus.devices import generators


class ValidationGenerators:
    """The generators of each validation loader, in the order of their first validation.

    A loader is known as long as somebody keeps it: one that is made anew for each validation has
    nothing to go on with.
    """

    def __init__(self) -> None:
        self._loaders: list[ref[Iterable[Any]]] = []
        self._saved: Sequence[Any] = ()

    def begin(self, loader: Iterable[Any], others: Sequence[Any]) -> None:
        """Put back those of a loader that is validated on for the first time.

        Args:
            loader: what is validated on.
            others: generators whose states are kept elsewhere.

        Raises:
            CheckpointError: a state in the checkpoint does not fit.
        """
        own = _without(generators.of(loader), others)
        if not own or any(each() is loader for each in self._loaders):
            return
        with suppress(TypeError):  # some objects cannot be known without being kept
            self._loaders.append(ref(loader))
            place = len(self._loaders) - 1
            states = self._saved[place] if place < len(self._saved) else []
            for generator, state in zip(own, states, strict=False):
                generators.restore(generator, state, "the validation loader")

    def states(self, others: Sequence[Any]) -> list[list[Any]]:
        """The states of those of each loader that is still there."""
        self._loaders = [each for each in self._loaders if each() is not None]
        return [
            [generators.state_of(one) for one in _without(generators.of(each()), others)]
            for each in self._loaders
        ]

    def restore(self, saved: Sequence[Any]) -> None:
        """Take up states, each with the next validation on its loader."""
        self._loaders, self._saved = [], saved


def _without(found: Sequence[Any], others: Sequence[Any]) -> list[Any]:
    known = {id(each) for each in others}
    return [each for each in found if id(each) not in known]

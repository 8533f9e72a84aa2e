"""Where a run stands in its training data, and how another run gets there again.

A loader that can seek (`start_at(batch)`, or torchdata's `state_dict`) is asked to. Any other is
read again from the start of the pass, with the random states that it had there, so that shuffling
and worker processes do again what they did.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from itertools import islice
from time import perf_counter
from typing import Any

import torch

from trainbus import batches
from trainbus.engine.run import Run
from trainbus.errors import CheckpointError

logger = logging.getLogger("trainbus")


class Position:
    """The place of a run in its training data, also while a validation is made inside an epoch."""

    def __init__(self) -> None:
        #: The loader of the training pass, as it was given.
        self.loader: Iterable[Any] = ()
        #: Batches of the newest training pass that was complete.
        self.pass_batches = 0
        #: Random states, and those of the loader's generators, at the start of the present pass.
        self.pass_start: dict[str, Any] = {}
        #: Random states of training while a pass inside it has its own.
        self.random: dict[str, Any] | None = None
        #: `run.batches_done` at the newest validation inside the present training pass.
        self.validated_at = 0
        #: Where a loaded checkpoint stood, until the run stands there.
        self.saved: dict[str, Any] | None = None

    def start(self, run: Run, loader: Iterable[Any]) -> tuple[int, Iterable[Any]]:
        """Where a training pass begins: the index of its first batch, and the batches from it."""
        self.loader = loader
        saved = self.saved
        if saved is None or not saved["batches"]:
            if saved is not None:
                self.restore_random(run)
                _set_generators(loader, saved["generators"])
            self.saved = None
            run.batches_done = self.validated_at = 0
            states = _generator_states(loader)
            self.pass_start = {"random": run.accelerator.random_state(), "generators": states}
            return 0, run.loader
        done = saved["batches"]
        self.pass_start, self.validated_at = saved["pass_start"], saved["validated_at"]
        run.batch_index, run.batches_done = done - 1, done
        rest: Iterable[Any] = ()
        if saved["pass_is_over"]:  # nothing of it is to be read
            _set_generators(loader, saved["generators"])
        else:
            _set_generators(loader, self.pass_start["generators"])
            run.accelerator.set_random_state(self.pass_start["random"])
            started = perf_counter()
            rest = _behind(run, loader, saved)
            if (seconds := perf_counter() - started) > 1.0:
                logger.warning(
                    "resuming at batch %d took %.1f s: the loader was read up to there",
                    done, seconds,
                )  # fmt: skip
        self.restore_random(run)
        self.saved = None
        return done, rest

    def owes_validation(self, interval: int) -> bool:
        """Whether a loaded checkpoint stood before a validation that its batch was to bring."""
        if self.saved is None or not (done := self.saved["batches"]):
            return False
        return bool(done % interval == 0 and self.saved["validated_at"] != done)

    def restore_random(self, run: Run) -> None:
        """Put back the random states of the checkpoint, the first time it is asked."""
        if self.saved is not None and (state := self.saved.pop("random", None)) is not None:
            run.accelerator.set_random_state(state)

    def state_dict(self, run: Run) -> dict[str, Any]:
        """Where the run stands now."""
        inner: Any = batches.innermost(self.loader, one_for_one=True)
        has_state = run.batches_done and not hasattr(inner, "start_at")
        # In the validation behind a training pass the end of the epoch is still to come.
        pass_is_over = "epoch" in run.open_events and run.epochs_done > run.epoch
        return {
            "epoch": run.epoch if pass_is_over else run.epochs_done,
            "batches": self.pass_batches if pass_is_over else run.batches_done,
            "validated_at": self.validated_at,
            "pass_is_over": pass_is_over,
            "random": self.random or run.accelerator.random_state(),
            "generators": _generator_states(self.loader),
            "pass_start": self.pass_start,
            "loader": inner.state_dict() if has_state and hasattr(inner, "state_dict") else None,
        }


def _generator_states(loader: Iterable[Any]) -> list[torch.Tensor]:
    return [generator.get_state() for generator in batches.generators(loader)]


def _set_generators(loader: Iterable[Any], states: list[torch.Tensor]) -> None:
    for generator, state in zip(batches.generators(loader), states, strict=False):
        generator.set_state(state)


def _behind(run: Run, loader: Iterable[Any], saved: dict[str, Any]) -> Iterator[Any]:
    """An iterator over the loader that stands behind the batches that are done."""
    done = saved["batches"]
    inner: Any = batches.innermost(loader, one_for_one=True)
    if callable(start_at := getattr(inner, "start_at", None)):
        start_at(done)
    elif saved["loader"] is not None and hasattr(inner, "load_state_dict"):
        inner.load_state_dict(saved["loader"])
    else:
        return _read_up_to(iter(run.loader), done)
    if run.trainer.limit_batches is None or run.batches_in_pass is None:
        return iter(run.loader)
    return islice(iter(run.loader), run.batches_in_pass - done)


def _read_up_to(iterator: Iterator[Any], done: int) -> Iterator[Any]:
    for index in range(done):
        try:
            next(iterator)
        except StopIteration:
            raise CheckpointError(
                f"the checkpoint stands behind batch {done} of its epoch, but the loader gave "
                f"only {index}; is it another one?"
            ) from None
    return iterator

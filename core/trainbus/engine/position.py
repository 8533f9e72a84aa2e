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
from typing import Any, Protocol

import torch

from trainbus import batches
from trainbus.devices.accelerator import Accelerator
from trainbus.engine.settings import Settings
from trainbus.errors import CheckpointError

logger = logging.getLogger("trainbus")


class Place(Protocol):
    """What of a loop says where it stands."""

    trainer: Settings
    accelerator: Accelerator
    open_events: list[str]
    epoch: int
    epochs_done: int
    loader: Iterable[Any]
    training_loader: Iterable[Any]
    batches_in_pass: int | None
    pass_batches: int
    batch_index: int
    batches_done: int
    validated_at: int
    pass_start: dict[str, Any]
    training_random: dict[str, Any] | None
    resume_at: dict[str, Any] | None


def _remember(run: Place, loader: Iterable[Any]) -> dict[str, Any]:
    return {
        "random": run.accelerator.random_state(),
        "generators": _generator_states(loader),
    }


def start(run: Place, loader: Iterable[Any]) -> tuple[int, Iterable[Any]]:
    """Where a training pass begins: the index of its first batch, and the batches from it on."""
    run.training_loader = loader
    resume_at, run.resume_at = run.resume_at, None
    if resume_at is None or not resume_at["batches"]:
        if resume_at is not None:
            restore_random(run, resume_at)
            _set_generators(loader, resume_at["generators"])
        run.batches_done = run.validated_at = 0
        run.pass_start = _remember(run, loader)
        return 0, run.loader
    done = resume_at["batches"]
    run.pass_start = resume_at["pass_start"]
    run.batch_index, run.batches_done = done - 1, done
    run.validated_at = resume_at["validated_at"]
    if resume_at["pass_is_over"]:  # nothing of it is to be read
        _set_generators(loader, resume_at["generators"])
        restore_random(run, resume_at)
        return done, iter(())
    _set_generators(loader, run.pass_start["generators"])
    run.accelerator.set_random_state(run.pass_start["random"])
    started = perf_counter()
    iterator = _at(run, loader, resume_at)
    seconds = perf_counter() - started
    if seconds > 1.0:
        logger.warning(
            "resuming at batch %d took %.1f s: the loader was read up to there", done, seconds
        )
    restore_random(run, resume_at)
    return done, iterator


def _rest(run: Place, done: int) -> Iterator[Any]:
    """The batches of a loader that was positioned, up to the limit of the pass."""
    if run.trainer.limit_batches is None or run.batches_in_pass is None:
        return iter(run.loader)
    return islice(iter(run.loader), run.batches_in_pass - done)


def _generator_states(loader: Iterable[Any]) -> list[torch.Tensor]:
    return [generator.get_state() for generator in batches.generators(loader)]


def _set_generators(loader: Iterable[Any], states: list[torch.Tensor]) -> None:
    for generator, state in zip(batches.generators(loader), states, strict=False):
        generator.set_state(state)


def _at(run: Place, loader: Iterable[Any], resume_at: dict[str, Any]) -> Iterator[Any]:
    """An iterator over the loader that stands behind the batches that are done."""
    done = resume_at["batches"]
    inner: Any = batches.innermost(loader, one_for_one=True)
    if callable(start_at := getattr(inner, "start_at", None)):
        start_at(done)
        return _rest(run, done)
    if resume_at["loader"] is not None and hasattr(inner, "load_state_dict"):
        inner.load_state_dict(resume_at["loader"])
        return _rest(run, done)
    iterator = iter(run.loader)
    for index in range(done):
        try:
            next(iterator)
        except StopIteration:
            raise CheckpointError(
                f"the checkpoint stands behind batch {done} of its epoch, but the loader gave "
                f"only {index}; is it another one?"
            ) from None
    return iterator


def restore_random(run: Place, resume_at: dict[str, Any]) -> None:
    """Put back the random states of the moment of the checkpoint, the first time it is asked."""
    if (state := resume_at.pop("random", None)) is not None:
        run.accelerator.set_random_state(state)


def state_dict(run: Place) -> dict[str, Any]:
    """Where the run stands now."""
    inner: Any = batches.innermost(run.training_loader, one_for_one=True)
    has_state = run.batches_done and not hasattr(inner, "start_at")
    # In the validation behind a training pass the end of the epoch is still to come.
    pass_is_over = "epoch" in run.open_events and run.epochs_done > run.epoch
    return {
        "epoch": run.epoch if pass_is_over else run.epochs_done,
        "batches": run.pass_batches if pass_is_over else run.batches_done,
        "validated_at": run.validated_at,
        "pass_is_over": pass_is_over,
        "random": run.training_random or run.accelerator.random_state(),
        "generators": _generator_states(run.training_loader),
        "pass_start": run.pass_start,
        "loader": inner.state_dict() if has_state and hasattr(inner, "state_dict") else None,
    }

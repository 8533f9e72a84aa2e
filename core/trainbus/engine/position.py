"""Where a run stands in its training data, and how another run gets there again.

A loader that can seek (`start_at(batch)`, or torchdata's `state_dict`) is asked to. Any other is
read again from the start of the pass, with the random states that it had there, so that shuffling
and worker processes do again what they did.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from time import perf_counter
from typing import Any, Literal

from torch.utils.data import DataLoader

from trainbus import batches
from trainbus.checkpoints import given
from trainbus.devices import generators
from trainbus.engine.step import Step
from trainbus.engine.validation_generators import ValidationGenerators
from trainbus.errors import CheckpointError
from trainbus.loaders import Loaders

logger = logging.getLogger("trainbus")


class Position:
    """The place of a run in its training data, also while a validation is made inside an epoch."""

    def __init__(self) -> None:
        #: The loader of the training pass, as it was given, and the batch that it gave last.
        self.loader: Iterable[Any] = ()
        self.read: Any = None
        #: Batches of the newest training pass that was complete.
        self.pass_batches = 0
        #: What of the present epoch is over, the newest last: nothing, its pass over the training
        #: data, the validation behind that, or all of it.
        self.over: Literal["", "train_epoch", "validation", "epoch"] = ""
        #: Random states, and those of the loader's generators, at the start of the present pass.
        self.pass_start: dict[str, Any] = {}
        #: Random states of training while a pass inside it has its own.
        self.random: dict[str, Any] | None = None
        #: `run.batches_done` at the newest validation inside the present training pass.
        self.validated_at = 0
        #: `run.global_step` at the newest validation.
        self.validated_step = 0
        #: The validation of the epoch is the next one; or a checkpoint stood behind it.
        self.expects_validation = False
        self.stood_behind_validation = False
        #: A validation is being made, or was, that a longer run would not make.
        self.measures_last = False
        #: Where a loaded checkpoint stood, until the run stands there.
        self.saved: dict[str, Any] | None = None
        self._random_is_back = False
        #: Samples that stand before the pass's first batch beyond those of whole batches: it began
        #: with batches of another size. Less than none, where it has more batches for that.
        self._offset = 0
        #: A checkpoint was begun to be loaded, and is not yet in all that it belongs to.
        self.is_half_restored = False
        #: Random generators of the task, whose states are kept with it.
        self.of_task: Sequence[Any] = ()
        self._of_validations = ValidationGenerators()
        #: States of all runs of this name up to here, counted on the disk before the first.
        self.states_written: int | None = None

    def start(self, run: Step, loader: Iterable[Any]) -> tuple[int, Iterable[Any]]:
        """Where a training pass begins: the index of its first batch, and the batches from it."""
        self.loader = loader
        self.over = ""
        self.measures_last = False
        self.stood_behind_validation = False
        saved = self.saved
        if saved is None or not saved["batches"]:
            if saved is not None:
                if (
                    None not in (then := saved["batch_size"], now := _batch_size(loader))
                    and then != now
                ):
                    logger.warning(_OTHER_SIZE, then, now, "the next epoch")
                self.restore_random(run)
                generators.put_back(loader, saved["generators"])
            self.saved = None
            run.batches_done = self.validated_at = self._offset = 0
            workers = [getattr(each, "_iterator", None) for each in _with_workers_that_stay(loader)]
            self.pass_start = {
                "random": run.accelerator.random_state(),
                "generators": generators.states_of(loader),
                "workers_stayed": any(each is not None for each in workers),
            }
            return 0, run.loader
        done, seeks, self._offset = _place(run, loader, saved)
        self.pass_start, self.validated_at = saved["pass_start"], saved["validated_at"]
        if done != saved["batches"]:  # counted in batches of another size
            self.validated_at = self.validated_at * done // saved["batches"]
        run.batch_index, run.batches_done = done - 1, done
        rest: Iterable[Any] = ()
        self.over = saved["over"]
        self.stood_behind_validation = self.over == "validation"
        run.ends_pass = saved["ends_pass"]
        if self.over or run.ends_pass:  # nothing of it is to be read
            generators.put_back(loader, saved["generators"])
        else:
            stayed = self.pass_start["workers_stayed"]
            for each in _with_workers_that_stay(loader) if stayed else ():
                if getattr(each, "_iterator", None) is None:
                    iter(each)  # workers that were there before draw their seeds in another order
            generators.put_back(loader, self.pass_start["generators"])
            run.accelerator.set_random_state(self.pass_start["random"])
            started = perf_counter()
            rest = _behind(run, loader, saved, done, seeks)
            if (seconds := perf_counter() - started) > 1.0:
                logger.warning(
                    "resuming at batch %d took %.1f s: the loader was read up to there",
                    done, seconds,
                )  # fmt: skip
        self.restore_random(run)
        self.saved = None
        return done, rest

    def check_length(self, run: Step, loader: Iterable[Any]) -> None:
        """Say once that a pass was shorter or longer than its loader tells."""
        told, given = batches.size(run.loader), run.batch_index + 1
        if told not in (None, given) and run.first_time("length of the training loader"):
            logger.warning(
                "the training loader (%s) tells a length of %d and gave %d batches; schedules and "
                "progress count on what it tells", batches.describe(loader), told, given,
            )  # fmt: skip

    def validated(self, run: Step) -> None:
        """Note that a validation was made."""
        self.validated_at, self.validated_step = run.batches_done, run.global_step
        if self.expects_validation:
            self.expects_validation, self.over = False, "validation"

    def restore(self, saved: dict[str, Any] | None) -> None:
        """Go to where a checkpoint stood, with the next pass over the training data."""
        self.saved = saved
        self._random_is_back = False
        if saved is not None:
            self.validated_step = saved.get("validated_step", 0)
            self._of_validations.restore(saved["valid_generators"])

    def begin_validation(self, loader: Iterable[Any]) -> None:
        """Put back the loader's own generators, if a checkpoint was loaded that has them."""
        self._of_validations.begin(loader, self._kept_elsewhere())

    def _kept_elsewhere(self) -> list[Any]:
        """Generators that a validation loader may share, and whose states stand elsewhere."""
        return [*self.of_task, *generators.of(self.loader)]

    def restore_random(self, run: Step) -> None:
        """Put back the random states of the checkpoint, the first time it is asked."""
        if self.saved is not None and not self._random_is_back:
            self._random_is_back = True
            run.accelerator.set_random_state(self.saved["random"])

    def state_dict(self, run: Step) -> dict[str, Any]:
        """Where the run stands now, and with that what its epoch still owes."""
        if self.saved is not None:  # it does not stand there yet
            return self.saved
        inner: Any = batches.innermost(self.loader, one_for_one=True)
        inside = self.over in ("train_epoch", "validation")
        # Of a pass whose first batch was not done: it is begun once more.
        again = self.pass_start if "train_epoch" in run.open_events and not run.batches_done else {}
        # What was read last is not what was done last, while a batch is at work.
        none_read = not run.batches_done or run.is_undone or run.has_batch
        return {
            "epoch": run.epoch if inside else run.epochs_done,
            "batches": self.pass_batches if inside else run.batches_done,
            "validated_at": self.validated_at,
            "validated_step": self.validated_step,
            "over": self.over if inside else "",
            "ends_pass": run.ends_pass,
            "random": again.get("random") or self.random or run.accelerator.random_state(),
            "generators": again.get("generators") or generators.states_of(self.loader),
            "pass_start": self.pass_start,
            "loader": _loader_state(inner) if run.batches_done else None,
            "last_batch": [] if none_read else batches.fingerprint(self.read),
            "valid_generators": self._of_validations.states(self._kept_elsewhere()),
            "batch_size": (size := _batch_size(self.loader)),
            "samples": size and run.batches_done * size + self._offset,
            "length": batches.size(self.loader),
            "accumulate": run.accumulate,
        }


def _loader_state(loader: Any) -> dict[str, Any] | None:
    """The state of a loader that has one and tells all of it; else it is read again."""
    if hasattr(loader, "start_at") or not hasattr(loader, "state_dict"):
        return None
    # Of a stream with a shuffle buffer the state lacks what is in the buffer.
    streams = getattr(sys.modules.get("datasets"), "IterableDataset", None)
    if streams is not None and isinstance(loader, streams):
        return None
    try:
        state: dict[str, Any] = loader.state_dict()
    except Exception as error:  # a wrapper may have the method, and what it asks not
        logger.debug("%s.state_dict: %s", type(loader).__name__, error)
        return None
    return state


def _with_workers_that_stay(loader: Iterable[Any]) -> list[DataLoader[Any]]:
    inner = batches.innermost(loader)
    several = inner.loaders.values() if isinstance(inner, Loaders) else [inner]
    return [
        each
        for each in map(batches.innermost, several)
        if isinstance(each, DataLoader) and each.persistent_workers and each.num_workers > 0
    ]


_OTHER_SIZE = (
    "the checkpoint was made with batches of %d, this run has batches of %d: it goes on with %s"
)


def _batch_size(loader: Iterable[Any]) -> int | None:
    """Samples in a batch, where the loader tells."""
    inner = batches.innermost(loader, one_for_one=True)
    for owner in (inner, getattr(inner, "batch_sampler", None)):
        if isinstance(size := getattr(owner, "batch_size", None), int):
            return size
    return None


def _place(run: Step, loader: Iterable[Any], saved: dict[str, Any]) -> tuple[int, bool, int]:
    """Where a checkpoint stood in this loader: batches, whether it was put there, an offset.

    The offset is the samples that are done beyond those of whole batches. What the checkpoint was
    made with, and is otherwise now, is told.
    """
    inner: Any = batches.innermost(loader, one_for_one=True)
    size, samples = _batch_size(loader), saved["samples"]
    told: list[tuple[str, Any, Any]] = [("accumulate", saved["accumulate"], run.accumulate)]
    if size == saved["batch_size"]:  # else its length is another one, too
        told.append(("batches in an epoch", saved["length"], batches.size(loader)))
    for name, then, now in told:
        if then != now and None not in (then, now):
            logger.warning("the checkpoint was made with %s=%s, this run has %s", name, then, now)
    if size is None or samples is None:
        return saved["batches"], False, 0
    if size == saved["batch_size"] or saved["over"] or saved["ends_pass"]:
        return saved["batches"], False, samples - saved["batches"] * size
    if seeks := callable(getattr(inner, "start_at_sample", None)):
        done = len(inner) - inner.start_at_sample(samples)
    else:
        done = samples // size
        if (length := batches.size(loader)) is not None:
            done = min(done, length)  # a last batch is often a short one
    twice = samples - done * size if not seeks else 0
    again = f", so that {twice} are trained on twice" if twice else ""
    where = f"sample {samples - twice} of the epoch{again}"
    logger.warning(_OTHER_SIZE, saved["batch_size"], size, where)
    return done, seeks, samples - twice - done * size


def _behind(
    run: Step, loader: Iterable[Any], saved: dict[str, Any], done: int, seeks: bool
) -> Iterator[Any]:
    """An iterator over the loader that stands behind the batches that are done."""
    inner: Any = batches.innermost(loader, one_for_one=True)
    if seeks:
        pass
    elif callable(start_at := getattr(inner, "start_at", None)):
        start_at(done)
    elif saved["loader"] is not None and hasattr(inner, "load_state_dict"):
        given.put(inner, saved["loader"], type(inner).__name__)
    else:
        same = done == saved["batches"]  # with batches of another size the last is another one
        rest = _read_up_to(iter(run.loader), done, saved["last_batch"] if same else [])
        if same:  # whoever else draws from them, the task or a validation, did so since
            generators.put_back(loader, saved["generators"])
        return rest
    if run.trainer.limit("train") is None or run.batches_in_pass is None:
        return iter(run.loader)
    return islice(iter(run.loader), max(0, run.batches_in_pass - done))


def _read_up_to(iterator: Iterator[Any], done: int, last_batch: list[str]) -> Iterator[Any]:
    batch = None
    for index in range(done):
        try:
            batch = next(iterator)
        except StopIteration:
            raise CheckpointError(
                f"the checkpoint stands behind batch {done} of its epoch, but the loader gave "
                f"only {index}; is it another one?"
            ) from None
    if last_batch and batches.differ(last_batch, batches.fingerprint(batch)):
        logger.warning(
            "the loader gives other batches than before: batch %d of this epoch is not the one "
            "that was trained on last, so that samples may be left out, or come twice. Its data or "
            "its order changed; see docs/checkpoints.md for what is exact",
            done,
        )  # fmt: skip
    return iterator

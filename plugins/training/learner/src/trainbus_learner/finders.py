"""Learning rates and batch sizes for a task of one's own; nothing is changed afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from itertools import islice
from typing import Any

from trainbus import Task, Trainer, UsageError
from trainbus.engine.settings import Settings
from trainbus_learner import searching
from trainbus_learner.batch_size import BatchSizes
from trainbus_learner.lr_finder import MEDIAN, LearningRates
from trainbus_learner.searching import Subject
from trainbus_learner.snapshots import kept


def find_lr(
    task: Task,
    train: Iterable[Any],
    trainer: Trainer | None = None,
    start: float = 1e-7,
    stop: float = 10.0,
    steps: int = 100,
    divergence: float = 4.0,
    suggest: str = MEDIAN,
) -> LearningRates:
    """Fit some steps while the learning rate grows, and look at the losses (Smith, 2015).

    Weights, random states, the place in the loader and the states of plugins are put back. Loggers
    and checkpoints hear nothing.

    Args:
        task: what is to be trained.
        train: its training loader, begun again where it is too short.
        trainer: its plugins and options take part, where they change what a step computes.
        start: the first learning rate.
        stop: the last one.
        steps: optimizer steps from one to the other.
        divergence: ends the test where the smoothed loss is so many times the best.
        suggest: the rule: "valley", "steepest", "minimum/10" or "median", between them.

    Returns:
        The curve, and the suggestions of all rules; `.plot()` draws it.

    Raises:
        UsageError: the loss diverges at once, or an argument cannot be.
    """
    subject = _subject("find_lr", task, train, trainer)
    return searching.lr_of(subject, start, stop, steps, divergence, suggest)


def find_batch_size(
    task: Task,
    train: Iterable[Any],
    trainer: Trainer | None = None,
    start: int = 8,
    maximum: int | None = None,
    steps: int = 5,
    gain: float = 1.1,
) -> BatchSizes:
    """Double the batch until memory is full, or speed rises no more.

    Args:
        task: what is to be trained.
        train: its training loader; its first batch is repeated to each size.
        trainer: its plugins and options take part, where they change what a step computes.
        start: the first size.
        maximum: the last one; by default the samples that there are, at most 8,192.
        steps: timed for each size.
        gain: what a doubling has to bring.

    Returns:
        The speeds, peaks of memory, and the size to take.

    Raises:
        UsageError: the first size has no room already, or an argument cannot be.
    """
    subject = _subject("find_batch_size", task, train, trainer)
    with kept(task, [train]):
        batch = next(islice(iter(train), 1), None)
    if batch is None:
        raise UsageError("find_batch_size: the loader gave no batch")
    return searching.batch_size_of(subject, batch, start, maximum, steps, gain)


def _subject(who: str, task: Task, train: Iterable[Any], trainer: Trainer | None) -> Subject:
    if not isinstance(task, Task):
        raise UsageError(f"{who}({task!r:.80}): give a Task; Task.supervised(model) makes one")
    if isinstance(train, Iterator):
        raise UsageError(f"{who}: a generator can be read only once; give a loader, or a list")
    trainer = trainer or Trainer()
    names = [field.name for field in fields(Settings) if field.name != "plugins"]
    options = {name: getattr(trainer, name) for name in names}
    return Subject(task, train, list(trainer.plugins), options)

"""Trying out learning rates and batch sizes, and leaving everything as it was."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

from trainbus import Task, UsageError
from trainbus_learner import batch_size as sizes, lr_finder
from trainbus_learner.batch_size import BatchSizes
from trainbus_learner.evaluation import seen_batch
from trainbus_learner.fitter import Fitter
from trainbus_learner.lr_finder import LearningRates
from trainbus_learner.rehearsal import Cycled, Repeated, rehearsing, silence
from trainbus_learner.snapshots import kept

_LARGEST = 8192


class Subject(NamedTuple):
    """What is tried: a task, its training loader, and the plugins and options of its trainer."""

    task: Task
    train: Any
    plugins: Sequence[Any]
    options: dict[str, Any]


def _of(learner: Fitter) -> Subject:
    return Subject(learner.task, learner.source.train, learner.all_plugins(), learner.options)


def find_lr(
    learner: Fitter, start: float, stop: float, steps: int, divergence: float, suggest: str
) -> LearningRates:
    """See `Learner.find_lr`."""
    usual = learner.groups.rates(learner.lr)[-1]
    return lr_of(_of(learner), start, stop, steps, divergence, suggest, usual)


def lr_of(
    subject: Subject,
    start: float,
    stop: float,
    steps: int,
    divergence: float,
    suggest: str,
    usual: float | None = None,
) -> LearningRates:
    """See `finders.find_lr`; `usual` is the rate that a fit takes which is given none."""
    lr_finder.check(start, stop, steps, suggest)
    test = lr_finder.RangeTest(start, stop, steps, divergence)
    accumulate = int(subject.options.get("accumulate", 1))
    batches = Cycled(subject.train, steps * accumulate)
    with silence(), kept(subject.task, [subject.train], subject.plugins):
        trainer = rehearsing(subject.plugins, subject.options, test, dry_run=len(batches))
        trainer.fit(subject.task, batches)
    return test.result(suggest, usual)


def find_batch_size(
    learner: Fitter, start: int, maximum: int | None, steps: int, gain: float
) -> BatchSizes:
    """See `Learner.find_batch_size`."""
    batch = seen_batch(learner, placed=False)
    return batch_size_of(_of(learner), batch, start, maximum, steps, gain)


def batch_size_of(
    subject: Subject, batch: Any, start: int, maximum: int | None, steps: int, gain: float
) -> BatchSizes:
    """See `finders.find_batch_size`; `batch` is repeated to each size."""
    samples = _samples(subject.train)
    largest = maximum or min(_LARGEST, samples or _LARGEST)
    if not (1 <= start <= largest and steps >= 1 and gain > 1):
        raise UsageError(
            f"find_batch_size(start={start}, maximum={largest}, steps={steps}, gain={gain}): give "
            "1 <= start <= maximum, at least one step, and a gain above 1"
        )
    speeds: dict[int, float] = {}
    memory: dict[int, int] = {}
    size, ended = start, f"{largest} is the largest that was asked for"
    if maximum is None:
        why = "there are no more samples" if samples == largest else "that is the largest tried"
        ended = f"{largest}: {why}"
    while size <= largest:
        watch = sizes.Stopwatch()
        peak = _measure(subject, watch, batch, size, steps, speeds)
        if peak is None:
            ended = f"there was no memory for {size}"
            break
        memory[size] = peak
        tried = sorted(speeds)
        if len(tried) >= 3 and all(speeds[late] < gain * speeds[tried[-3]] for late in tried[-2:]):
            ended = f"speed does not rise any more after {tried[-3]}"
            break
        growth = 2 * (peak - memory.get(size // 2, peak))
        assert watch.accelerator is not None
        if watch.accelerator.device.type == "cpu" and not sizes.room_for(growth):
            ended = f"the memory of this machine would not hold {size * 2}"
            break
        size *= 2
    if not speeds:
        raise UsageError(
            f"find_batch_size: there is no memory for {start} samples in a batch, the first size "
            "tried; give a smaller start, or a smaller model"
        )
    return BatchSizes(sizes.choose(speeds, gain), speeds, ended, memory)


def _measure(
    subject: Subject,
    watch: sizes.Stopwatch,
    batch: Any,
    size: int,
    steps: int,
    speeds: dict[int, float],
) -> int | None:
    """Fit some steps with such batches; the peak of memory, or None if there is not enough."""
    plugins, options = subject.plugins, subject.options
    with silence(), kept(subject.task, [subject.train], plugins):
        repeated = Repeated(subject.train, sizes.tiled(batch, size), steps + 1)
        # Each batch is a step, however many make one in training.
        trainer = rehearsing(plugins, options, watch, dry_run=steps + 1, accumulate=1)
        try:
            trainer.fit(subject.task, repeated)
        except Exception as error:
            # Frames of the traceback hold what was computed: it ends here.
            if watch.accelerator is None or not watch.accelerator.is_out_of_memory(error):
                raise
            failed = True
        else:
            failed = False
    accelerator = watch.accelerator
    assert accelerator is not None
    peak = sizes.peak_bytes(accelerator) or 0
    sizes.forget_peak(accelerator)
    if failed:
        return None
    # The median: a step that something else on the machine held up does not count.
    speeds[size] = size / max(median(watch.seconds), 1e-9)
    return peak


def _samples(loader: Any) -> int | None:
    dataset = getattr(loader, "dataset", None)
    try:
        return len(dataset)  # type: ignore[arg-type]
    except TypeError:
        return None

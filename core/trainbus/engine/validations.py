"""When a fit validates: inside an epoch, at its end, and at the end of the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import Any

from trainbus import batches
from trainbus.engine.loop import Loop
from trainbus.engine.run import Stage
from trainbus.engine.task import Task
from trainbus.engine.wishes import Wish
from trainbus.errors import UsageError

Evaluate = Callable[[Loop, Iterable[Any], Stage], None]


class Validations:
    """The validations of a fit, as `validate_every` has them.

    Args:
        run: the run.
        train: the training loader.
        valid: the validation loader, or None.
        evaluate: makes a pass over a loader.

    Raises:
        UsageError: what cannot be, before the first epoch and not after it.
    """

    def __init__(
        self, run: Loop, train: Iterable[Any], valid: Iterable[Any] | None, evaluate: Evaluate
    ) -> None:
        self._run = run
        self._valid = valid
        self._evaluate = evaluate
        self._cadence = run.trainer.cadence
        #: Some may be made inside an epoch.
        self.inside = valid is not None and self._cadence.unit != "epoch"
        #: When the newest was made, or the fit began, on the monotonic clock.
        self._made_at = monotonic()
        self._check(train)

    def _check(self, train: Iterable[Any]) -> None:
        run, loaders = self._run, {"train": train, "valid": self._valid}
        for stage, loader in loaders.items():
            if loader is not None:
                batches.check(loader, stage)
                if batches.size(loader) == 0:
                    raise batches.is_empty(loader, stage)
        if self._valid is None:
            return
        missing = type(run.task).validation_step is Task.validation_step
        if missing and run.bus.order()["validation_step"] == ["core"]:
            raise UsageError(
                f"{type(run.task).__name__} has no validation_step, which the validation loader "
                "needs; define it, or leave the loader out"
            )
        unlimited = run.trainer.limit("train") is None
        if self._cadence.unit == "part" and unlimited and batches.size(train) is None:
            raise UsageError(
                f"validate_every={self._cadence.amount} is a fraction of an epoch, but "
                f"{batches.describe(train)} does not tell its length; give whole epochs, or steps: "
                "'500 steps'"
            )

    def begin(self) -> None:
        """Before the first step of a run, which is none that goes on."""
        run = self._run
        if self._valid is None or run.global_step or run.resume_path is not None:
            return
        if run.trainer.sanity_batches and not isinstance(self._valid, Iterator):
            run.rehearse(self._valid, run.trainer.sanity_batches)
        if run.trainer.validate_first:
            self.make()

    def is_due(self, batches_done: int | None = None) -> bool:
        """Whether `validate_every` was reached since the last validation, inside of an epoch."""
        run, unit, amount = self._run, self._cadence.unit, self._cadence.amount
        if run.accumulating:
            return False
        if unit == "step":
            return run.global_step // amount > run.position.validated_step // amount
        if unit == "second":
            is_time = monotonic() - self._made_at >= amount
            return run.wanted(Wish.VALIDATE, is_time)
        if not run.batches_in_pass:
            return False
        done = run.batches_done if batches_done is None else batches_done
        part = run.batches_in_pass * amount
        return int(done / part + 1e-9) > int(run.position.validated_at / part + 1e-9)

    def _was_made(self, batches_done: int) -> bool:
        """Whether the weights at the end of an epoch were validated as the last thing in it."""
        position = self._run.position
        if self._cadence.unit == "part":
            return position.validated_at == batches_done
        return position.validated_step == self._run.global_step > 0

    def catch_up(self) -> None:
        """Validate, where a checkpoint was written just before that."""
        if self.inside and self.is_due():
            self.make()

    def make(self) -> None:
        """Validate now."""
        if self._valid is not None:
            self._evaluate(self._run, self._valid, "valid")
            self._made_at = monotonic()

    def end_epoch(self) -> None:
        """Validate at the end of an epoch, or of the run, if that is due and not done."""
        run, position = self._run, self._run.position
        if self._valid is None or position.stood_behind_validation:
            return
        done = run.batches_done or position.pass_batches
        made = False
        if self.inside:
            made = self._was_made(done)
            due = not made and self.is_due(done)
        else:
            due = not run.batches_done and (run.epoch + 1) % self._cadence.amount == 0
        if not due:
            last = run.finished or run.dry_run or run.epoch + 1 == run.epochs_planned
            if made or run.stopping or not last:
                return
            # Of the last weights. A run that goes on from here makes no validation here.
            if not run.batches_done:  # else the savepoint of its last batch is this one
                run.savepoint("train_epoch")
            position.measures_last = True
        position.expects_validation = not run.batches_done
        self.make()
        position.expects_validation = False

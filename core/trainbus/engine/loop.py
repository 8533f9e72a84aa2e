"""The passes over data: training epochs, validation, test and prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

import torch

from trainbus import batches
from trainbus.engine import position
from trainbus.engine.metrics import Records
from trainbus.engine.step import Step
from trainbus.errors import Control, UsageError

if TYPE_CHECKING:
    from trainbus.devices.accelerator import Accelerator
    from trainbus.engine.task import Task
    from trainbus.engine.trainer import Trainer

Stage = Literal["train", "valid", "test", "predict"]
_EVENTS: dict[Stage, str] = {"valid": "validation", "test": "test", "predict": "predict"}
#: What a pass inside another one changes, and gives back.
_POSITION = (
    "stage", "loader", "batches_in_pass", "batch_index", "batch", "output", "_batch_size",
    "_log_step", "_averaging",
)  # fmt: skip
_STEPS = {"valid": "validation_step", "test": "validation_step", "predict": "predict_step"}


class Loop(Step):
    """Where a run stands in its data, and how it goes on.

    `Trainer.fit` and a hand-written loop both read `training_batches` and call `step`.
    """

    def __init__(self, trainer: Trainer, task: Task, accelerator: Accelerator) -> None:
        super().__init__(trainer, task, accelerator)
        #: The index of the epoch at work.
        self.epoch = 0
        #: Batches of the newest training pass that was complete.
        self.pass_batches = 0
        #: Training passes that are complete: `epoch`, or one more once the present one is.
        self.epochs_done = 0
        self.epochs_planned: int | None = None
        self.stage: Stage = "train"
        self.loader: Iterable[Any] = ()
        #: Batches in the present pass, or None when the loader does not tell.
        self.batches_in_pass: int | None = None
        #: Random states and the loader's position at the start of the present training pass.
        self.pass_start: dict[str, Any] = {}
        #: Random states of training while a pass inside it has its own.
        self.training_random: dict[str, Any] | None = None
        self.training_loader: Iterable[Any] = ()
        #: `batches_done` at the newest validation inside the present training pass.
        self.validated_at = 0
        #: Where a loaded checkpoint stood, until the loop stands there.
        self.resume_at: dict[str, Any] | None = None
        #: When `max_time` is over, on the monotonic clock.
        self.deadline: float | None = None

        self._records: Records
        self._batch_size: int | None = None
        self._log_step = 0
        self._averaging = False
        self._cut_short = False

    def epochs(self, count: int | None = None) -> Iterator[int]:
        """Yield each epoch's index, with the events of an epoch around it.

        Args:
            count: epochs of the run in all; those of the trainer by default.
        """
        count = 1 if self.trainer.dry_run else count or self.trainer.epochs
        self.epochs_planned = count
        if self.trainer.max_steps is not None and self.global_step >= self.trainer.max_steps:
            self.finished = True
        if self.resume_at is not None and not self.resume_at["batches"]:
            position.restore_random(self, self.resume_at)
        while not (self.stopping or self.finished) and (count is None or self.epoch < count):
            self.leave("epoch")
            self._ends_pass = self._cut_short = False
            self.enter("epoch")
            yield self.epoch
            self.leave("epoch")
            if not self._cut_short:
                self.epoch += 1

    def owes_validation(self, interval: int) -> bool:
        """Whether a loaded checkpoint stood before a validation that its batch was to bring."""
        if self.resume_at is None or not (done := self.resume_at["batches"]):
            return False
        return bool(done % interval == 0 and self.resume_at["validated_at"] != done)

    def batches(self, loader: Iterable[Any], epochs: int | None = None) -> Iterator[Any]:
        """Yield placed training batches to a loop of one's own, which calls `run.step(loss)`.

        One pass when called inside `for epoch in run.epochs(n)`, else `epochs` passes. The wrappers
        of `training_step` (autocast, for example) are open until `run.step`.
        """
        if epochs is None:
            yield from self._by_hand(loader)
        else:
            for _ in self.epochs(epochs):
                yield from self._by_hand(loader)

    def _by_hand(self, loader: Iterable[Any]) -> Iterator[Any]:
        self.by_hand = True
        for batch in self.training_batches(loader):
            try:
                self._opened = self.bus.open("training_step", self)
            except Control as control:
                self.leave_batch(control)
                continue
            self.handed_out = True
            yield batch
            if self.handed_out:
                self.abandon()

    def training_batches(self, loader: Iterable[Any]) -> Iterator[Any]:
        """Yield each placed batch of one training pass, with the events of the pass around them."""
        bus, records = self.bus, self._records
        self.abandon()
        self.leave("train_epoch")
        if self.resume_at is None:
            records.begin_pass()
        self._begin_pass("train", loader)
        batches.set_epoch(loader, self.epoch)
        self.enter("train_epoch")
        skip = self._ends_pass or self.stopping
        self._in_window = 0
        first, rest = (0, ()) if skip else position.start(self, loader)
        for index, batch in enumerate(rest, first):
            self._begin_batch(index, batch)
            try:
                self.batch = bus.place_batch(self)
                if bus.on_train_batch_start:
                    bus.on_train_batch_start(self)
            except Control as control:
                self.leave_batch(control)
            else:
                yield self.batch
            if records.pending and (
                len(records.pending) >= records.max_pending or monotonic() >= records.due_time
            ):
                records.fetch()
            if self.deadline is not None and monotonic() >= self.deadline:
                self.finished = True
            # A window of accumulated batches is finished first: its start is where one can resume.
            if self._ends_pass or ((self.stopping or self.finished) and not self.accumulating):
                break
        if self.batch_index + 1 != self.batches_in_pass:
            self._cut_short = self.stopping or self.finished
        if not self._cut_short:
            self.epochs_done = self.epoch + 1
            self.batches_done, self.pass_batches = 0, self.batch_index + 1
        if self._gathered:  # the pass ended in the middle of a window
            self._step_optimizers()
        self._check_not_empty(loader)
        self.batch = self.output = None
        self._log_step = self.global_step
        self._records.end_pass(self.global_step, suffix="_epoch")
        self._averaging = self._ends_pass = False
        self.leave("train_epoch")

    def evaluation_batches(
        self,
        loader: Iterable[Any],
        stage: Stage = "valid",
        step: Callable[[Any], Any] | None = None,
    ) -> Iterator[Any]:
        """Make a validation, test or prediction pass, with its events.

        The model is in evaluation mode and gradients are off until the pass is over; then modes,
        random states and the position in training are what they were, also after an error.

        Args:
            loader: any iterable of batches.
            stage: "valid", "test" or "predict".
            step: called with the run for each batch; what it returns is yielded. Without it each
                placed batch is yielded, and the body of the loop is the step.
        """
        if self.stopping and "epoch" in self.open_events:
            return  # a loop of one's own whose epoch is being ended
        bus, records, event = self.bus, self._records, _EVENTS[stage]
        self.abandon()
        before = {name: getattr(self, name) for name in _POSITION}
        modes = [(module, module.training) for module in self.model.modules()]
        random_state, gradients = self.accelerator.random_state(), torch.is_grad_enabled()
        ends_pass, self._ends_pass = self._ends_pass, False
        # A pass that is asked for in a run that is ending (a test in `on_fit_end`) is made whole.
        was_stopping, self.stopping = self.stopping, False
        self.training_random = random_state
        records.begin_inner_pass()
        complete = False
        try:
            self._begin_pass(stage, loader)
            self.model.eval()
            torch.set_grad_enabled(False)
            self.enter(event)
            skip = self._ends_pass or self.stopping
            for index, batch in enumerate(() if skip else self.loader):
                self._begin_batch(index, batch)
                try:
                    self.batch = bus.place_batch(self)
                    self._call(f"on_{event}_batch_start")
                    if step is None:
                        yield from self._lend(_STEPS[stage])
                    else:
                        self.output = step(self)
                except Control as control:
                    self.obey(control)
                    given = False
                else:
                    given = step is not None
                self.fire(f"on_{event}_batch_end")
                if len(records.pending) >= records.max_pending:
                    records.fetch()
                if given:
                    yield self.output
                if self._ends_pass or self.stopping:
                    break
            self._check_not_empty(loader)
            if not self.stopping:
                records.end_pass(self.global_step)
                if stage == "valid":
                    self.validated_at = self.batches_done
            self._averaging = False
            self.leave(event)
            complete = True
        except GeneratorExit:
            if stage == "predict":  # the consumer wants no more
                self.leave(event)
            raise
        finally:
            records.leave_inner_pass()
            if not complete and event in self.open_events:
                self.open_events.remove(event)
            torch.set_grad_enabled(gradients)
            for module, mode in modes:
                module.training = mode
            if stage != "predict":  # its consumer draws from them in between
                self.accelerator.set_random_state(random_state)
            self._ends_pass = ends_pass
            self.stopping = self.stopping or was_stopping
            self.training_random = None
            for name, value in before.items():
                setattr(self, name, value)

    def _lend(self, action: str) -> Iterator[Any]:
        """Yield the batch once, between the two halves of the wrappers of an action."""
        opened = self.bus.open(action, self)
        try:
            yield self.batch
        except BaseException as error:
            self.bus.close(action, opened, None, error)
        else:
            self.bus.close(action, opened, self.output)

    def _begin_pass(self, stage: Stage, loader: Iterable[Any]) -> None:
        limit = self.trainer.limit_batches
        self.stage = stage
        if not hasattr(loader, "__iter__") and not hasattr(loader, "__getitem__"):
            raise UsageError(f"the {stage} loader is {loader!r:.80}; give an iterable of batches")
        limited = loader if limit is None else batches.Limited(loader, limit)
        self.batches_in_pass = batches.size(limited)
        self.loader = self.accelerator.wrap_loader(limited)
        self.batch_index = -1
        self._averaging = True
        self._log_step = self.global_step

    def _begin_batch(self, index: int, batch: Any) -> None:
        self.batch_index = index
        self.batch, self.output = batch, None
        self._batch_size = None
        self._has_batch = True
        if self.stage == "train":
            self.stepped = self.manual = False
            self._log_step = self.global_step + 1
            if self.accumulate > 1 or self._in_window:
                left = None if self.batches_in_pass is None else self.batches_in_pass - index
                self._open_window(left)

    def _check_not_empty(self, loader: Iterable[Any]) -> None:
        if self.batch_index < 0 and not (self._ends_pass or self.stopping):
            raise batches.is_empty(loader, self.stage)

"""The loop: passes over data, and the training step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainbus import batches
from trainbus.errors import Control, SkipBatch, SkipStep, StopEpoch, StopRun, UsageError
from trainbus.records import Records
from trainbus.task import loss_of

if TYPE_CHECKING:
    from trainbus.accelerator import Accelerator
    from trainbus.bus import Bus
    from trainbus.dispatch import Opened
    from trainbus.task import Task
    from trainbus.trainer import Trainer

Stage = Literal["train", "valid", "test", "predict"]
_EVENTS: dict[Stage, str] = {"valid": "validation", "test": "test", "predict": "predict"}
_STEPS = {"valid": "validation_step", "test": "validation_step", "predict": "predict_step"}


class Loop:
    """Where a run stands in its data, and how it goes on.

    `Trainer.fit` and a hand-written loop both read `training_batches` and call `step`; all events
    are fired from here.
    """

    def __init__(self, trainer: Trainer, task: Task, accelerator: Accelerator) -> None:
        self.trainer = trainer
        self.bus: Bus = trainer.bus
        #: The science, as given; `model` is what `configure_model` made of it.
        self.task = task
        self.model: nn.Module = task
        self.accelerator = accelerator
        self.optimizers: list[Optimizer] = []
        #: The optimizer at hand, in the hooks around its step.
        self.optimizer: Optimizer | None = None

        #: The index of the epoch at work.
        self.epoch = 0
        #: Training passes that are complete: `epoch`, or one more once the present one is.
        self.epochs_done = 0
        #: Steps made: batches, or windows of accumulated batches, in which an optimizer stepped.
        self.global_step = 0
        self.skipped_steps = 0
        self.epochs_planned: int | None = None
        self.stage: Stage = "train"
        self.loader: Iterable[Any] = ()
        #: Batches in the present pass, or None when the loader does not tell.
        self.batches_in_pass: int | None = None
        self.batch_index = -1
        self.batch: Any = None
        self.output: Any = None
        #: What is logged, without a graph; and what is differentiated.
        self.loss: Tensor | None = None
        self.loss_to_backward: Tensor | None = None
        #: Differentiate for these tensors only (set by `run.backward(loss, optimizer)`).
        self.backward_inputs: list[Tensor] | None = None
        #: Batches whose gradients make one step.
        self.accumulate = trainer.accumulate
        #: This batch ends no window: its gradients wait for those of the next.
        self.accumulating = False
        #: An optimizer has stepped in this batch.
        self.stepped = False

        self._records: Records
        self._batch_size: int | None = None
        self._log_step = 0
        self._averaging = False
        self._window = 1
        self._in_window = 0
        self._gathered = 0
        self._manual = False
        #: A loop of one's own holds a batch and has not stepped yet.
        self.handed_out = False
        self._opened: Opened = []
        #: Events that began and have not ended, the innermost last.
        self.open_events: list[str] = []
        self._ends_pass = False
        self._cut_short = False
        #: The run ends after this batch, and is not validated.
        self.stopping = False
        #: `max_steps` or `max_time` was reached: the run is complete, and is still validated.
        self.finished = False
        #: What a signal asked to raise once the batch is done.
        self.interruption: BaseException | None = None
        #: When `max_time` is over, on the monotonic clock.
        self.deadline: float | None = None

    def stop(self, reason: str = "") -> None:
        """End the run after the present batch; every `*_end` event still fires."""
        raise NotImplementedError

    # --- passes over data ----------------------------------------------------------------------

    def epochs(self, count: int | None = None) -> Iterator[int]:
        """Yield each epoch's index, with the events of an epoch around it.

        Args:
            count: epochs of the run in all; those of the trainer by default.
        """
        count = 1 if self.trainer.dry_run else count or self.trainer.epochs
        self.epochs_planned = count
        while not (self.stopping or self.finished) and (count is None or self.epoch < count):
            self.leave("epoch")
            self._ends_pass = self._cut_short = False
            self.enter("epoch")
            yield self.epoch
            self.leave("epoch")
            if not self._cut_short:
                self.epoch += 1

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

    def _take_back(self, result: Any, error: BaseException | None = None) -> Any:
        """Close what was opened when a batch was handed out."""
        self.handed_out = False
        if not self._opened and error is None:
            return result
        opened, self._opened = self._opened, []
        return self.bus.close("training_step", opened, result, error)

    def abandon(self, error: BaseException | None = None) -> None:
        """End a batch that was handed out, if one was and no step was made of it."""
        if self.handed_out:
            self._take_back(None, error)
            self._finish_batch()

    def training_batches(self, loader: Iterable[Any]) -> Iterator[Any]:
        """Yield each placed batch of one training pass, with the events of the pass around them."""
        bus, records = self.bus, self._records
        self.abandon()
        self.leave("train_epoch")
        self._begin_pass("train", loader)
        batches.set_epoch(loader, self.epoch)
        self.enter("train_epoch")
        for index, batch in enumerate(() if self._ends_pass or self.stopping else self.loader):
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
                self._log_step >= records.due_step or monotonic() >= records.due_time
            ):
                records.fetch()
            if self.deadline is not None and monotonic() >= self.deadline:
                self.finished = True
            if self._ends_pass or self.stopping or self.finished:
                break
        if self.batch_index + 1 != self.batches_in_pass:
            self._cut_short = self.stopping or self.finished
        if not self._cut_short:
            self.epochs_done = self.epoch + 1
        if self._gathered:  # the pass ended in the middle of a window
            if self.stopping:
                self._drop_gradients()
            else:
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
        bus, event = self.bus, _EVENTS[stage]
        before = (self.stage, self.loader, self.batches_in_pass, self.batch_index, self.batch)
        modes = [(module, module.training) for module in self.model.modules()]
        random_state, gradients = self.accelerator.random_state(), torch.is_grad_enabled()
        ends_pass, self._ends_pass = self._ends_pass, False
        self._begin_pass(stage, loader)
        complete = False
        try:
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
                if given:
                    yield self.output
                if self._ends_pass or self.stopping:
                    break
            self._check_not_empty(loader)
            if not self.stopping:
                self._records.end_pass(self.global_step)
            self._averaging = False
            self.leave(event)
            complete = True
        except GeneratorExit:
            if stage == "predict":  # the consumer wants no more
                self.leave(event)
            raise
        finally:
            self._records.drop_pass()
            if not complete and event in self.open_events:
                self.open_events.remove(event)
            torch.set_grad_enabled(gradients)
            for module, mode in modes:
                module.training = mode
            if stage != "predict":  # its consumer draws from them in between
                self.accelerator.set_random_state(random_state)
            self._ends_pass, self._averaging = ends_pass, False
            self.stage, self.loader, self.batches_in_pass, self.batch_index, self.batch = before

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
        limited = loader if limit is None else batches.Limited(loader, limit)
        self.batches_in_pass = batches.size(limited)
        self.loader = self.accelerator.wrap_loader(limited)
        self.batch_index = -1
        self._averaging = True
        self._log_step = self.global_step

    def _begin_batch(self, index: int, batch: Any) -> None:
        self.batch_index = index
        self.batch = batch
        self._batch_size = None
        if self.stage == "train":
            self.stepped = self._manual = False
            self._log_step = self.global_step + 1
            if self.accumulate > 1 or self._in_window:
                self._open_window(index)

    def _open_window(self, index: int) -> None:
        """Count this batch into its window of accumulated batches; the last window may be short."""
        if self._in_window == 0:
            left = None if self.batches_in_pass is None else self.batches_in_pass - index
            self._window = self.accumulate if left is None else max(1, min(self.accumulate, left))
        self._in_window += 1
        self.accumulating = self._in_window < self._window
        if not self.accumulating:
            self._in_window = 0

    def _check_not_empty(self, loader: Iterable[Any]) -> None:
        if self.batch_index < 0 and not (self._ends_pass or self.stopping):
            raise batches.is_empty(loader, self.stage)

    # --- the training step ---------------------------------------------------------------------

    def step(self, loss: Any = None) -> None:
        """All of a training step that follows the loss: backward, optimizers, events.

        Args:
            loss: what `training_step` returned: a tensor of one element with a graph, a mapping
                with it as `loss`, or None after `run.backward` and `run.optimizer_step`.
        """
        bus = self.bus
        if self.handed_out:
            loss = self._take_back(loss)
        self.output = loss
        differentiated = False
        try:
            if not self._manual:
                loss = loss_of(self.task, loss)
                self.loss = loss.detach()
                self.loss_to_backward = loss if self._window == 1 else loss / self._window
                if bus.on_after_loss:
                    bus.on_after_loss(self)
                bus.backward(self)
                self._gathered += 1
                differentiated = True
                if bus.on_after_backward:
                    bus.on_after_backward(self)
        except SkipBatch:
            if differentiated:  # its gradient cannot be taken out of those of its window
                self._drop_gradients()
        except Control as control:
            self.obey(control)
        self._finish_batch()

    def leave_batch(self, control: Control) -> None:
        """End a batch whose rest was called off by raising `control`."""
        self.obey(control)
        self._finish_batch()

    def _finish_batch(self) -> None:
        bus = self.bus
        self.loss_to_backward = None
        if self._gathered and not self.accumulating:
            self._step_optimizers()
        if bus.on_train_batch_end:
            try:
                bus.on_train_batch_end(self)
            except Control as control:
                self.obey(control)

    def _step_optimizers(self) -> None:
        if not self.optimizers:
            raise UsageError("there is no optimizer to step: give one to trainer.open(model, ...)")
        if self._gathered != self._window:  # a window that ended early was divided by too much
            _scale_gradients(self.optimizers, self._window / self._gathered)
        self._gathered = self._in_window = 0
        self._window, self.accumulating = 1, False
        for optimizer in self.optimizers:
            self.optimizer_step(optimizer)
        self._manual = False

    def optimizer_step(self, optimizer: Optimizer | None = None) -> None:
        """Step one optimizer (the first), with its events, and clear its gradients."""
        bus = self.bus
        self._manual = True
        self.optimizer = optimizer = optimizer or self.optimizers[0]
        made = False
        try:
            if bus.on_before_optimizer_step:
                bus.on_before_optimizer_step(self)
            made = bus.optimizer_step(self)
            if made:
                if not self.stepped:  # several optimizers in one batch are one step
                    self.stepped = True
                    self.global_step += 1
                    if self.global_step == self.trainer.max_steps:
                        self.finished = True
                if bus.on_after_optimizer_step:
                    bus.on_after_optimizer_step(self)
            else:
                self.skipped_steps += 1
        except SkipStep:
            if not made:  # afterwards it is too late
                self.skipped_steps += 1
        except Control as control:
            self.obey(control)
        optimizer.zero_grad()

    def backward(self, loss: Tensor, optimizer: Optimizer | None = None) -> None:
        """Differentiate a loss inside a `training_step` that steps by itself.

        With `optimizer`, only its parameters receive gradients (the discriminator's loss leaves
        the generator alone, for example).
        """
        bus = self.bus
        self._manual = True
        loss = loss_of(self.task, loss)
        self.loss, self.loss_to_backward = loss.detach(), loss
        if optimizer is not None:
            groups = optimizer.param_groups
            self.backward_inputs = [p for g in groups for p in g["params"] if p.requires_grad]
        try:
            if bus.on_after_loss:
                bus.on_after_loss(self)
            bus.backward(self)
            if bus.on_after_backward:
                bus.on_after_backward(self)
        finally:
            self.backward_inputs = self.loss_to_backward = None

    # --- control -------------------------------------------------------------------------------

    def obey(self, control: Control) -> None:
        """Do what a listener asked for by raising."""
        if isinstance(control, StopRun):
            self.stop(str(control))
        elif isinstance(control, StopEpoch):
            self._ends_pass = True
        elif isinstance(control, SkipStep):
            self.skipped_steps += 1
            self._drop_gradients()
        elif not isinstance(control, SkipBatch):
            raise control

    def _drop_gradients(self) -> None:
        self._gathered = self._in_window = 0
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def enter(self, event: str) -> None:
        """Begin an event (`fit`, `epoch`, ...): fire its start, remember to fire its end."""
        self.open_events.append(event)
        self.fire(f"on_{event}_start")

    def leave(self, event: str) -> None:
        """Fire the end of an event that began, after the ends of all that began inside it."""
        while event in self.open_events:
            self.fire(f"on_{self.open_events.pop()}_end")

    def _call(self, hook: str, *arguments: Any) -> None:
        if call := getattr(self.bus, hook):
            call(self, *arguments)

    def fire(self, hook: str, *arguments: Any) -> None:
        """Call a hook, if anybody listens, and do what a listener asks for by raising."""
        try:
            self._call(hook, *arguments)
        except Control as control:
            self.obey(control)


def _scale_gradients(optimizers: list[Optimizer], factor: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.mul_(factor)

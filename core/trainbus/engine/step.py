"""The training step: what happens to a batch between its loss and the next batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn
from torch.optim import Optimizer

from trainbus.engine.task import loss_of
from trainbus.errors import Control, SkipBatch, SkipStep, StopEpoch, StopRun, UsageError

if TYPE_CHECKING:
    from trainbus.bus import Bus
    from trainbus.devices.accelerator import Accelerator
    from trainbus.engine.task import Task
    from trainbus.engine.trainer import Trainer
    from trainbus.events.compiler import Opened

Status = Literal["running", "completed", "stopped", "interrupted", "failed"]


class Step:
    """What a step works on, the step itself, and what listeners may ask for by raising."""

    def __init__(self, trainer: Trainer, task: Task, accelerator: Accelerator) -> None:
        self.trainer = trainer
        self.bus: Bus = trainer.bus
        #: The science, as given; `model` is what `configure_model` made of it.
        self.task = task
        self.model: nn.Module = task
        self.accelerator = accelerator
        self.optimizers: list[Optimizer] = []
        #: Those given to `trainer.open`, instead of the task's.
        self.given_optimizers: Any = None
        #: The optimizer at hand, in the hooks around its step.
        self.optimizer: Optimizer | None = None

        self.status: Status = "running"
        self.stop_reason = ""
        self.batch: Any = None
        self.batch_index = -1
        #: Batches of the present training pass that are done; none between passes.
        self.batches_done = 0
        self.output: Any = None
        #: What is logged, without a graph; and what is differentiated.
        self.loss: Tensor | None = None
        self.loss_to_backward: Tensor | None = None
        #: Differentiate for these tensors only (set by `run.backward(loss, optimizer)`).
        self.backward_inputs: list[Tensor] | None = None
        #: Steps made: batches, or windows of accumulated batches, in which an optimizer stepped.
        self.global_step = 0
        self.skipped_steps = 0
        #: An optimizer has stepped in this batch.
        self.stepped = False
        #: Batches whose gradients make one step.
        self.accumulate = trainer.accumulate
        #: This batch ends no window: its gradients wait for those of the next.
        self.accumulating = False

        #: Batches in the present window; below, those begun, and those with gradients gathered.
        self.window = 1
        self._in_window = 0
        self._gathered = 0
        #: A batch was begun and not finished.
        self._has_batch = False
        #: The task steps by itself, in this batch.
        self.manual = False
        #: A loop of one's own makes the steps.
        self.by_hand = False
        #: A loop of one's own holds a batch and has not stepped yet.
        self.handed_out = False
        self._opened: Opened = []
        #: Events that began and have not ended, the innermost last.
        self.open_events: list[str] = []
        self._ends_pass = False
        #: The run ends after this batch, and is not validated.
        self.stopping = False
        #: `max_steps` or `max_time` was reached: the run is complete, and is still validated.
        self.finished = False
        #: What a signal asked to raise once the batch is done.
        self.interruption: BaseException | None = None

    def stop(self, reason: str = "") -> None:
        """End the run after the present batch; every `*_end` event still fires."""
        self.stop_reason = self.stop_reason or reason or "asked to"
        if self.status == "running":
            self.status = "stopped"
        self.stopping = True

    def step(self, loss: Any = None) -> None:
        """All of a training step that follows the loss: backward, optimizers, events.

        Args:
            loss: what `training_step` returned: a tensor of one element with a graph, a mapping
                with it as `loss`, or None after `run.backward` and `run.optimizer_step`.
        """
        bus = self.bus
        if not self._has_batch:
            raise UsageError(
                "run.step: there is no batch for it; take batches from run.batches(loader), step "
                "once in each, and for several losses use run.backward and run.optimizer_step"
            )
        if self.handed_out:
            loss = self._take_back(loss)
        self.output = loss
        differentiated = False
        try:
            if not self.manual:
                loss = loss_of(self.task, loss)
                self.loss = loss.detach()
                self.loss_to_backward = loss if self.window == 1 else loss / self.window
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
        if isinstance(control, SkipBatch) and self.manual:
            self._drop_gradients()
        self.obey(control)
        self._finish_batch()

    def _finish_batch(self) -> None:
        bus = self.bus
        self._has_batch = False
        self.loss_to_backward = None
        if self._gathered and not self.accumulating:
            self._step_optimizers()
        self.batches_done = self.batch_index + 1
        if bus.on_train_batch_end:
            try:
                bus.on_train_batch_end(self)
            except Control as control:
                self.obey(control)

    def _step_optimizers(self) -> None:
        if self._gathered != self.window:  # a window that ended early was divided by too much
            _scale_gradients(self.optimizers, self.window / self._gathered)
        self._gathered = self._in_window = 0
        self.window, self.accumulating = 1, False
        if not self.optimizers:
            self.optimizer_step()  # which tells
        for optimizer in self.optimizers:
            self.optimizer_step(optimizer)
        self.manual = False

    def optimizer_step(self, optimizer: Optimizer | None = None) -> None:
        """Step one optimizer (the first), with its events, and clear its gradients."""
        bus = self.bus
        self.manual = True
        if not self.optimizers:
            raise UsageError("there is no optimizer to step: give one to trainer.open(model, ...)")
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
                    limit = self.trainer.max_steps
                    if limit is not None and self.global_step >= limit:
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
        self.manual = True
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
        except Control as control:
            if not self.handed_out:
                raise  # out of the task's step, to the loop
            self.obey(control)
            if isinstance(control, SkipBatch):
                self._drop_gradients()
        finally:
            self.backward_inputs = self.loss_to_backward = None

    def _open_window(self, left: int | None) -> None:
        """Count this batch, with `left` batches to come, into its window; the last may be short."""
        if self._in_window == 0:
            self.window = self.accumulate if left is None else max(1, min(self.accumulate, left))
        self._in_window += 1
        self.accumulating = self._in_window < self.window
        if not self.accumulating:
            self._in_window = 0

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

    # --- control -------------------------------------------------------------------------------

    def obey(self, control: Control) -> None:
        """Do what a listener asked for by raising."""
        if isinstance(control, StopRun):
            self.stop(str(control))
        elif isinstance(control, StopEpoch):
            self._ends_pass = True
        elif isinstance(control, SkipStep):
            if not self.stepped:  # afterwards it is too late
                self.skipped_steps += 1
            self._drop_gradients()
        elif not isinstance(control, SkipBatch):
            raise control

    def _drop_gradients(self) -> None:
        self._gathered = self._in_window = 0
        self.window, self.accumulating = 1, False
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

"""The training step: what happens to a batch between its loss and the next batch."""

from __future__ import annotations

from time import monotonic
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from trainbus.engine.own_steps import OwnSteps
from trainbus.engine.run import Run
from trainbus.engine.stray_step import StrayStep
from trainbus.engine.task import loss_of
from trainbus.engine.wishes import Wish
from trainbus.errors import Control, SkipBatch, SkipStep, StopEpoch, StopRun, UsageError
from trainbus.events.compiler import Opened

#: Steps in a row that may be called off: a run in which none is made would never end.
MAX_IDLE = 1000


class Step(Run):
    """The step itself, and what listeners may ask for by raising."""

    def __init__(self, *contract: Any) -> None:
        super().__init__(*contract)
        #: A batch was begun and not finished.
        self.has_batch = False
        #: Your own loop holds a batch and has not stepped yet; these wrappers are open for it.
        self.handed_out = False
        self.opened: Opened = []
        #: The run was stopped inside of this batch, before its step was made.
        self.is_undone = False
        #: The run was stopping at its newest savepoint.
        self.told_of_stop = False
        #: The present pass ends after this batch.
        self.ends_pass = False
        #: When `max_time` is over, on the monotonic clock.
        self.deadline: float | None = None
        #: Steps in a row that were called off, and who called off that of this batch.
        self.idle = 0
        self.vetoed_by = ""
        #: Optimizers that evaluate the model again within their step.
        self.closes: list[Optimizer] = []
        #: Tells of the steps of a task that makes them with torch's own calls.
        self.own_steps: OwnSteps | None = None
        #: Sees steps that nobody answers for; see `StrayStep`.
        self.stray: StrayStep | None = None

    # --- one batch, from its loss on -----------------------------------------------------------

    def step(self, loss: Any = None) -> None:
        bus = self.bus
        if not self.has_batch:
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
                if type(loss) is not Tensor or loss.ndim or not loss.requires_grad:
                    loss = loss_of(self.task, loss)  # what is not the usual, or is wrong
                self.loss = loss.detach()
                window = self.window
                if window.size != 1 or window.uneven:
                    loss = loss / window.divisor(self.batch_size)
                self.loss_to_backward = loss
                if bus.on_after_loss:
                    bus.on_after_loss(self)
                bus.backward(self)
                if window.size == 1 and not window.uneven:
                    window.gathered = 1
                else:
                    window.gather(self.batch_size)
                differentiated = True
                if bus.on_after_backward:
                    bus.on_after_backward(self)
        except SkipBatch as control:
            self._veto(control)
            if differentiated:  # its gradient cannot be taken out of those of its window
                self._drop_gradients()
                self.buffer.drop_step()
            else:
                self._drop_values()
                self._take_part()
        except Control as control:
            self.obey(control)
            if self.agreement is not None and not differentiated:
                self._take_part()
            self.is_undone = self._ends_run(control) and not differentiated
        self._finish_batch()

    def leave_batch(self, control: Control) -> None:
        """End a batch whose rest was called off by raising `control`."""
        if isinstance(control, SkipBatch):
            self._drop_values()
            if self.manual:
                self._drop_gradients()
        self.obey(control)
        self._take_part()
        self.is_undone = self._ends_run(control)
        self._finish_batch()

    def _take_part(self) -> None:
        """Make the step of the others, with nothing of this batch in it."""
        if self.agreement is not None and not self.manual:
            self.peers.take_part(self)
            self.window.gather(0)

    def _finish_batch(self) -> None:
        bus = self.bus
        self.has_batch = False
        self.loss_to_backward = None
        first = self.window.first_batch if self.window.size > 1 else self.batch_index
        if self.is_undone:
            self._drop_gradients()
        if self.window.gathered and not self.accumulating:
            self.step_optimizers()
        self.batches_done = self.batch_index + 1
        if self.is_undone:  # a run that goes on makes it again, with the others of its window
            self.batches_done = first
            self.buffer.drop_step()
        if self.stepped:
            self.idle = 0
        elif self.vetoed_by and not self.accumulating:
            self._count_idle()
        if bus.on_train_batch_end:
            try:
                bus.on_train_batch_end(self)
            except Control as control:
                self.obey(control)
        if self.deadline is not None and monotonic() >= self.deadline:
            if self.agreement is None:
                self.finished = True
            else:
                self.agreement.ask(Wish.FINISH)
        if self.agreement is not None and not self.accumulating:
            self.agreement.after_window(self)
        self.told_of_stop = self.stopping
        if bus.on_savepoint and not self.accumulating:
            self.fire("on_savepoint", "train_batch")

    def _count_idle(self) -> None:
        """End a run in which somebody calls off each step."""
        self.buffer.drop_step()
        self.idle += 1
        if self.idle == MAX_IDLE:
            super().stop(
                f"{MAX_IDLE} steps in a row were called off, the last one by {self.vetoed_by}"
            )

    # --- optimizers ----------------------------------------------------------------------------

    def step_optimizers(self) -> None:
        """Step all of them with the gradients of a window, which ends here."""
        window = self.window
        if window.size == window.gathered == 1 and not (window.begun or window.uneven):
            window.gathered = 0  # the usual one, without a call
        else:
            window.close(self.optimizers)
        self.accumulating = False
        if not self.optimizers:
            self.optimizer_step()  # raises the UsageError that explains it
        for optimizer in self.optimizers:
            self.optimizer_step(optimizer)
        self.manual = False

    def optimizer_step(self, optimizer: Optimizer | None = None) -> None:
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
                self.count_step()
            else:
                self.skipped_steps += 1
                self.vetoed_by = "the action optimizer_step"
        except SkipStep as control:
            if not made:  # afterwards it is too late
                self.skipped_steps += 1
                self._veto(control)
        except Control as control:
            self.obey(control)
            self.is_undone = self._ends_run(control) and not self.stepped
        if self.stray is not None and self.stray.check(self, optimizer, made):
            self.stray = None
        optimizer.zero_grad()

    def count_step(self) -> None:
        """Count a step that an optimizer made, and tell of it."""
        if not self.stepped:  # several optimizers in one batch are one step
            self.stepped = True
            self.global_step += 1
            limit = self.trainer.max_steps
            if limit is not None and self.global_step >= limit:
                self.finished = True
        if self.bus.on_after_optimizer_step:
            self.bus.on_after_optimizer_step(self)

    def backward(self, loss: Tensor, optimizer: Optimizer | None = None) -> None:
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

    # --- a batch in the hands of your own loop -------------------------------------------------

    def _take_back(self, result: Any, error: BaseException | None = None) -> Any:
        """Close what was opened when a batch was handed out."""
        self.handed_out = False
        if not self.opened and error is None:
            return result
        opened, self.opened = self.opened, []
        return self.bus.close("training_step", opened, result, error)

    def abandon(self, error: BaseException | None = None) -> None:
        """End a batch that was handed out, if one was and no step was made of it."""
        if self.handed_out:
            self._take_back(None, error)
            self._finish_batch()

    # --- control -------------------------------------------------------------------------------

    def meet(self) -> None:
        """Hear what the other processes want; there are some."""
        assert self.agreement is not None
        self.agreement.meet(self)

    def wanted(self, wish: Wish, here: bool) -> bool:
        """Whether any process wants something at this place; where others are, what it wanted.

        Args:
            wish: what.
            here: whether this process does, by its clock or a signal.
        """
        if self.agreement is None:
            return here
        if here:
            self.agreement.ask(wish)
        return bool(self.agreement.agreed & wish)

    def obey(self, control: Control) -> None:
        """Do what a listener asked for by raising."""
        if isinstance(control, StopRun):
            self.stop(str(control))
        elif isinstance(control, StopEpoch):
            if self.agreement is not None and self.stage == "train":
                self.agreement.ask(Wish.END_PASS)
            else:
                self.ends_pass = True
        elif isinstance(control, SkipStep):
            if not self.stepped:  # afterwards it is too late
                self.skipped_steps += 1
                self._veto(control)
            self._drop_gradients()
        elif isinstance(control, SkipBatch):
            self._veto(control)
        else:
            raise control

    def _ends_run(self, control: Control) -> bool:
        return isinstance(control, StopRun) and self.stopping

    def _veto(self, control: Control) -> None:
        """Note who called off the step of this batch."""
        self.vetoed_by = control.by or f"the task {type(self.task).__name__}"

    def _drop_values(self) -> None:
        """Forget what this batch logged, which is skipped."""
        drop = self.buffer.drop_batch if self.window.size > 1 else self.buffer.drop_step
        drop()

    def _drop_gradients(self) -> None:
        self.window.clear()
        self.accumulating = False
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def enter(self, event: str) -> None:
        """Begin an event (`fit`, `epoch`, ...): fire its start, remember to fire its end."""
        self.open_events.append(event)
        self.fire(f"on_{event}_start")

    def leave(self, event: str) -> None:
        """Fire the end of an event that began, after the ends of all that began inside it."""
        while event in self.open_events:
            ended = self.open_events.pop()
            self.fire(f"on_{ended}_end")
            self.ended(ended)

    def ended(self, event: str) -> None:
        """Do what follows when all who listen to the end of an event are done."""

    def fire(self, hook: str, *arguments: Any) -> None:
        try:
            if call := getattr(self.bus, hook):
                call(self, *arguments)
        except Control as control:
            self.obey(control)

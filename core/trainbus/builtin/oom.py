"""Go on in smaller parts when a batch needs more memory than there is."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from trainbus.errors import PluginError, UsageError
from trainbus.markers import hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from trainbus.run import Run

    Gradients = list[tuple[Tensor, Tensor]]

logger = logging.getLogger("trainbus")


class OOM:
    """Cut a batch that exhausts the memory into 2, 4, 8 ... parts, with the same gradient.

    The parts go forward and backward one after another, each weighted by its samples, so that for
    a loss that is a mean over samples the gradient is that of the whole batch, and the optimizer
    sees the same effective batch. All later batches are cut into as many parts.

    Args:
        parts: parts to begin with.
    """

    def __init__(self, parts: int = 1) -> None:
        if parts < 1:
            raise PluginError(f"parts={parts}: give a whole number of at least 1")
        self.first = parts
        self._begin()

    def _begin(self) -> None:
        #: Parts of a batch at present.
        self.parts = self.first
        #: The training step and the backward that run now are those of a part.
        self._busy = False
        #: The loss with its graph. The loop gets a stand-in for it, so that the graph, and the
        #: memory that it holds, can be let go before the batch is tried again.
        self._loss: Tensor | None = None
        self._stand_in: Tensor | None = None
        #: The gradients of the parts that are done: those of earlier batches of the window are
        #: kept apart from them, since this batch may be tried again, or left out.
        self._done: Gradients = []
        self._log_mark = 0

    @hookimpl
    def on_fit_start(self) -> None:
        """Begin with the parts that were asked for, unless a checkpoint knows better."""
        self._begin()

    # --- forward -------------------------------------------------------------------------------

    @hookimpl(tryfirst=True)
    def training_step(self, run: Run) -> Any:
        """Make the step, in as many parts as it needs."""
        if self._busy or run.by_hand:
            return None
        self._log_mark = run.mark_log()
        while True:
            try:
                result = self._forward(run)
                break
            except Exception as error:
                if not self._halves(run, error):
                    raise
        if run.manual:  # nothing is left to differentiate; None would ask the task again
            return run.loss if result is None else result
        return self._stood_in_for(run, result)

    def _forward(self, run: Run) -> Any:
        """The step of the whole batch, or of its parts, all but the last of them differentiated."""
        self._done = []
        if self.parts == 1:
            return self._step(run)
        former = _take(run)
        try:
            result = self._all_but_last(run)
            self._done = _take(run)
        finally:
            _take(run)
            _add(former)
        return result

    def _all_but_last(self, run: Run) -> Any:
        from trainbus.task import loss_of

        done: Any = 0.0
        with closing(self._parts_of(run)) as parts:
            for result, weight, last in parts:
                loss = loss_of(run.task, result)
                part = loss * weight
                if last:
                    whole = part + done
                    return {**result, "loss": whole} if isinstance(result, Mapping) else whole
                run.loss, run.loss_to_backward = loss.detach(), part / run.window
                self._busy = True
                try:
                    run.bus.backward(run)
                finally:
                    self._busy = False
                    run.loss_to_backward = None
                done = done + part.detach()
                del result, loss, part
        return None

    def _parts_of(self, run: Run) -> Generator[tuple[Any, float, bool], None, None]:
        """Result and weight of each part, and whether it is the last."""
        from trainbus import batches

        batch, samples = run.batch, run.batch_size
        pieces = batches.split(batch, self.parts)
        try:
            for number, piece in enumerate(pieces):
                run.batch, run.batch_size = piece, batches.batch_size(piece)
                # No name for the result here: it would hold the graph during the next part.
                yield self._step(run), run.batch_size / samples, number == len(pieces) - 1
        finally:
            run.batch, run.batch_size = batch, samples

    def _step(self, run: Run) -> Any:
        self._busy = True
        try:
            return run.bus.training_step(run)
        finally:
            self._busy = False

    def _stood_in_for(self, run: Run, result: Any) -> Any:
        from trainbus.task import loss_of

        self._loss = loss_of(run.task, result)
        self._stand_in = stand_in = self._loss.detach().requires_grad_()
        return {**result, "loss": stand_in} if isinstance(result, Mapping) else stand_in

    # --- backward ------------------------------------------------------------------------------

    @hookimpl(wrapper=True, tryfirst=True)
    def backward(self, run: Run) -> Generator[None, Any, Any]:
        """Differentiate the stand-in, then what it stands for; again in more parts if need be."""
        done = yield
        if self._loss is None or self._stand_in is None:
            return done
        # What windows, scalers and listeners made of the loss, as one factor.
        factor = self._stand_in.grad
        self._stand_in = None
        # What they added to it is differentiated by now, and stays; so do earlier batches.
        former = _take(run)
        try:
            while not self._differentiated(run, factor):
                _take(run)
            _add(self._done)
        except BaseException:
            _take(run)
            raise
        finally:
            self._loss = None
            self._done = []
            _add(former)
        return done

    def _differentiated(self, run: Run, factor: Any) -> bool:
        """Differentiate the loss, or all parts anew; False when it is to be tried in more parts."""
        from trainbus.task import loss_of

        try:
            if self._loss is not None:
                self._loss.backward(gradient=factor)  # type: ignore[no-untyped-call]
                return True
            with closing(self._parts_of(run)) as parts:
                for result, weight, _ in parts:
                    loss = loss_of(run.task, result)
                    loss.backward(gradient=factor * weight)  # type: ignore[no-untyped-call]
                    del result, loss
            return True
        except Exception as error:
            if not self._halves(run, error):
                raise
        return False

    @hookimpl
    def on_train_batch_end(self) -> None:
        """Let go of the graph of a batch that was left before its backward."""
        self._loss = self._stand_in = None
        self._done = []

    # --- more parts ----------------------------------------------------------------------------

    def _halves(self, run: Run, error: Exception) -> bool:
        """Cut into twice as many parts from here on; False for what that does not mend."""
        if not run.accelerator.is_out_of_memory(error):
            return False
        samples, reason = run.batch_size, None
        if run.manual:
            reason = "the task steps by itself, and its step cannot be made twice"
        elif self.parts >= samples:
            reason = f"a batch of {samples} in {self.parts} parts cannot be cut further"
        else:
            try:
                _cut(run.batch, min(2 * self.parts, samples))
            except UsageError as unfit:
                reason = str(unfit)
        if reason is not None:
            error.add_note(f"oom cannot help here: {reason}")
            return False
        self.parts = min(2 * self.parts, samples)
        logger.warning(
            "out of memory at step %d: batches of %d are stepped in %d parts from here on",
            run.global_step, samples, self.parts,
        )  # fmt: skip
        # The frames that the error holds hold the graph, and its memory is needed.
        error.__traceback__ = None
        self._loss = self._stand_in = None
        self._done = []
        run.retract_log(self._log_mark)
        run.accelerator.free_memory()
        return True

    # --- checkpoints ---------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The parts, so that a resumed run does not run out of memory first."""
        return {"parts": self.parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with as many parts."""
        self.parts = state["parts"]


def _take(run: Run) -> Gradients:
    """Take the gradients away from the parameters."""
    taken: Gradients = []
    for optimizer in run.optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    taken.append((parameter, parameter.grad))
                    parameter.grad = None
    return taken


def _add(gradients: Gradients) -> None:
    """Add gradients that were taken to those that are there."""
    for parameter, gradient in gradients:
        parameter.grad = gradient if parameter.grad is None else gradient.add_(parameter.grad)


def _cut(batch: Any, parts: int) -> None:
    from trainbus import batches

    batches.split(batch, parts)

"""Go on in smaller parts when a batch needs more memory than there is."""

from __future__ import annotations

import gc
import logging
from collections.abc import Generator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from trainbus.arguments import check_whole
from trainbus.checkpoints import sections
from trainbus.errors import UsageError
from trainbus.events.markers import hookimpl
from trainbus.storage.untrusted import fields, whole

if TYPE_CHECKING:
    from torch import Tensor

    from trainbus.engine.run import Run

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

    #: A trial of a step wants to see that the memory is exhausted.
    computes = False

    def __init__(self, parts: int = 1) -> None:
        check_whole(1, parts=parts)
        self.first = parts
        self._begin()

    def _begin(self) -> None:
        #: Parts of a batch at present.
        self.parts = self.first
        #: The training step and the backward that run now are those of a part.
        self._busy = False
        self._log_mark = 0
        self._forget()

    def _forget(self) -> None:
        #: The loss of a batch in parts, and the gradients of all parts but the last.
        self._loss: Tensor | None = None
        self._done: Gradients = []

    @hookimpl
    def on_fit_start(self) -> None:
        """Begin with the parts that were asked for, unless a checkpoint knows better."""
        self._begin()

    # --- forward -------------------------------------------------------------------------------

    @hookimpl(wrapper=True, tryfirst=True)
    def training_step(self, run: Run) -> Generator[None, Any, Any]:
        """Make the step of the last part, or the only one, after those of the others."""
        if self._busy:
            return (yield)
        if run.by_hand:
            return (yield from self._only_told(run))
        self._log_mark = run.mark_log()
        self._forget()
        whole = (run.batch, run.batch_size) if self.parts > 1 else None
        done, weight = (0.0, 1.0) if whole is None else self._all_but_last(run)
        try:
            result = yield
            again = False
        except Exception as error:
            _be_whole(run, whole)
            if not self._halves(run, error):
                raise
            again = True
        finally:
            _be_whole(run, whole)
        if again:
            return self._again(run)
        return result if whole is None or run.manual else self._whole(run, result, done, weight)

    def _all_but_last(self, run: Run) -> tuple[Any, float]:
        """Step and differentiate all parts but the last, which becomes `run.batch`.

        Returns:
            The sum of their weighted losses, and the weight of the last.
        """
        while True:
            whole = run.batch, run.batch_size
            try:
                return self._first_parts(run)
            except Exception as error:
                _be_whole(run, whole)
                if not self._halves(run, error):
                    raise

    def _first_parts(self, run: Run) -> tuple[Any, float]:
        from trainbus import batches
        from trainbus.engine.task import loss_of

        done: Any = 0.0
        # A batch of one sample, or one that is of another kind than those before, stays whole.
        pieces = self._cut(run.batch)
        if len(pieces) == 1:
            return done, 1.0
        size, samples = run.batch_size, sum(map(batches.batch_size, pieces))
        former = _take(run) if run.window.size > 1 else []
        try:
            for number, piece in enumerate(pieces, 1):
                weight = batches.batch_size(piece) / samples
                run.batch, run.batch_size = piece, max(1, round(size * weight))
                if number == len(pieces):
                    break
                made = self._through_bus(run, "training_step")
                if run.manual:
                    raise UsageError(
                        "oom: the task steps by itself, so its batches cannot be cut; switch it off"
                    )
                loss = loss_of(run.task, made)
                share = loss * weight / run.window.divisor(size)
                run.loss, run.loss_to_backward = loss.detach(), share
                done = done + loss.detach() * weight
                del loss, share  # the graph is not needed during the next part
                self._through_bus(run, "backward")
                run.loss_to_backward = None
            self._done = _take(run)
        finally:
            _take(run)
            _add(former)
        return done, weight

    def _again(self, run: Run) -> Any:
        """The whole step once more, in as many parts as it needs."""
        while True:
            whole = run.batch, run.batch_size
            done, weight = self._all_but_last(run)
            try:
                result = self._through_bus(run, "training_step")
                return self._whole(run, result, done, weight)
            except Exception as error:
                _be_whole(run, whole)
                if not self._halves(run, error):
                    raise
            finally:
                _be_whole(run, whole)

    def _whole(self, run: Run, result: Any, done: Any, weight: float) -> Any:
        """What the step of the whole batch would have returned, with the graph of the last part."""
        from trainbus.engine.task import loss_of

        self._loss = loss = loss_of(run.task, result) * weight + done
        return {**result, "loss": loss} if isinstance(result, Mapping) else loss

    def _through_bus(self, run: Run, action: str) -> Any:
        self._busy = True
        try:
            return getattr(run.bus, action)(run)
        finally:
            self._busy = False

    def _cut(self, batch: Any) -> list[Any]:
        from trainbus.builtin.batch_parts import split

        try:
            return split(batch, self.parts)
        except UsageError:
            return [batch]

    # --- backward ------------------------------------------------------------------------------

    @hookimpl(wrapper=True, tryfirst=True)
    def backward(self, run: Run) -> Generator[None, Any, Any]:
        """Differentiate; again in more parts if need be."""
        if self._busy:
            return (yield)
        if run.by_hand or run.manual:
            return (yield from self._only_told(run))
        former = _take(run) if run.window.size > 1 else []
        done = None
        try:
            self._scale_done(run)
            try:
                done = yield
            except Exception as error:
                _take(run)
                if not self._halves(run, error):
                    raise
            while done is None:
                done = self._differentiated_again(run)
            _add(self._done)
        except BaseException:
            _take(run)
            raise
        finally:
            self._forget()
            _add(former)
        return done

    def _differentiated_again(self, run: Run) -> Any:
        """Step, events and backward of the batch in its parts; None when it takes more of them."""
        from trainbus.engine.task import loss_of

        run.output = self._again(run)
        loss = loss_of(run.task, run.output)
        share = loss / run.window.divisor(run.batch_size)
        run.loss, run.loss_to_backward = loss.detach(), share
        if run.bus.on_after_loss:
            run.bus.on_after_loss(run)
        self._scale_done(run)
        try:
            return self._through_bus(run, "backward")
        except Exception as error:
            del loss, share
            _take(run)
            if not self._halves(run, error):
                raise
        return None

    def _scale_done(self, run: Run) -> None:
        """Give the parts that are done the factor that listeners gave the loss."""
        import torch

        if not self._done or self._loss is None or run.loss_to_backward is None:
            return
        (factor,) = torch.autograd.grad(run.loss_to_backward, self._loss, retain_graph=True)
        for _, gradient in self._done:
            gradient.mul_(factor * run.window.divisor(run.batch_size))

    def _only_told(self, run: Run) -> Generator[None, Any, Any]:
        """Let what cannot be made again pass, with a note where the memory was exhausted."""
        try:
            return (yield)
        except Exception as error:
            if run.accelerator.is_out_of_memory(error):
                who = "the task steps" if run.manual else "your own loop makes the steps"
                error.add_note(f"oom cannot help here: {who} by itself, and can do so once only")
            raise

    @hookimpl
    def on_train_batch_end(self) -> None:
        """Let go of a batch that was left before its backward."""
        self._forget()

    # --- more parts ----------------------------------------------------------------------------

    def _halves(self, run: Run, error: Exception) -> bool:
        """Cut into twice as many parts from here on; False for what that does not mend."""
        from trainbus.builtin.batch_parts import split

        if not run.accelerator.is_out_of_memory(error):
            return False
        reason = None
        now = len(self._cut(run.batch))
        try:
            parts = len(split(run.batch, 2 * now))
            if parts == now:
                reason = f"a batch in {now} parts of one sample cannot be cut further"
        except UsageError as unfit:
            reason = str(unfit)
        if run.manual:
            reason = "the task steps by itself, and can do so once only"
        if reason is not None:
            error.add_note(f"oom cannot help here: {reason}")
            return False
        self.parts = parts
        logger.warning(
            "out of memory at step %d: batches are stepped in %d parts from here on",
            run.global_step, parts,
        )  # fmt: skip
        self._let_go(run, error)
        run.retract_log(self._log_mark)
        run.accelerator.free_memory()
        return True

    def _let_go(self, run: Run, error: Exception) -> None:
        """Let go of the graph, whoever holds a tensor of it."""
        error.__traceback__ = None
        held = [self._loss, run.loss_to_backward]
        held += run.output.values() if isinstance(run.output, Mapping) else [run.output]
        for tensor in held:
            if getattr(tensor, "grad_fn", None) is not None:
                with suppress(RuntimeError):  # a view cannot be detached in place
                    tensor.detach_()  # type: ignore[union-attr]
        run.loss_to_backward = None
        self._forget()
        gc.collect()

    # --- checkpoints ---------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The parts, so that a resumed run does not run out of memory first."""
        return {"parts": self.parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with as many parts. Raises `CheckpointError` for the section of something else."""
        sections.check(state, fields({"parts": whole(1, 2**20)}), "oom")
        self.parts = state["parts"]


def _be_whole(run: Run, whole: tuple[Any, int] | None) -> None:
    if whole is not None:
        run.batch, run.batch_size = whole


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

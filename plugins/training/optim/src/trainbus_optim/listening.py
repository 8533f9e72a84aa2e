"""In a run of trainbus: validate the averaged weights, and train with those of the step."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from torch import Tensor

from trainbus import UsageError, hookimpl
from trainbus.errors import Control

if TYPE_CHECKING:
    from trainbus import Run
    from trainbus_optim.chain import Chain


class Averages:
    """Puts the averaged weights of a chain into the model where the plugin `ema` puts its own.

    Validation and test passes see the average, checkpoints the weights of the training, with the
    average beside them as `weights`, where `load_weights` finds it. A run that was completed
    leaves the average in the model.
    """

    #: It follows the weights and changes none of what a step computes.
    computes = False

    def __init__(self, optimizer: Chain) -> None:
        self._optimizer = optimizer
        self._inside = ExitStack()
        self._is_in = False
        self._names: dict[int, str] = {}

    @hookimpl(tryfirst=True)
    def on_fit_start(self, run: Run) -> None:
        """Refuse a second average that would be validated."""
        other = run.claim("average that validates")
        if other is not None and other != run.bus.name_of(self):
            raise UsageError(
                f"{self._optimizer.recipe.name} is validated with its own average of the weights, "
                f"and the plugin {other!r} with another; give validate=False to the plugin, or "
                "leave it out"
            )
        run.claim("average that validates", run.bus.name_of(self))
        self._names = {id(p): name for name, p in run.task.named_parameters()}

    def _put_in(self) -> None:
        if not self._is_in:
            self._inside.enter_context(self._optimizer.averages())
            self._is_in = True

    def _put_back(self) -> None:
        if self._is_in:
            self._inside.close()
            self._is_in = False

    @hookimpl(tryfirst=True)
    def on_validation_start(self) -> None:
        """Put the average into the model."""
        self._put_in()

    @hookimpl(tryfirst=True)
    def on_validation_end(self) -> None:
        """Put the weights of the training back."""
        self._put_back()

    @hookimpl(tryfirst=True)
    def on_test_start(self) -> None:
        """Put the average into the model."""
        self._put_in()

    @hookimpl(tryfirst=True)
    def on_test_end(self) -> None:
        """Put the weights of the training back."""
        self._put_back()

    @hookimpl(tryfirst=True)
    def on_train_batch_start(self) -> None:
        """Train with the weights of the training, also after a pass that a loop broke off."""
        self._put_back()

    @hookimpl(wrapper=True)
    def validation_step(self) -> Generator[None, Any, Any]:
        """Put the weights back at once when a step fails."""
        try:
            return (yield)
        except Control:
            raise
        except BaseException:
            self._put_back()
            raise

    @hookimpl(wrapper=True)
    def save_checkpoint(self) -> Generator[None, Any, Any]:
        """A checkpoint holds the weights of the training."""
        return (yield from self._with_own())

    @hookimpl(wrapper=True)
    def load_checkpoint(self) -> Generator[None, Any, Any]:
        """A checkpoint is read into the weights of the training."""
        return (yield from self._with_own())

    def _with_own(self) -> Generator[None, Any, Any]:
        was_in = self._is_in
        self._put_back()
        try:
            return (yield)
        finally:
            if was_in:
                self._put_in()

    @hookimpl(tryfirst=True)
    def on_exception(self) -> None:
        """Put the weights back before others look at the wreck."""
        self._put_back()

    @hookimpl(tryfirst=True)
    def on_run_end(self, status: str) -> None:
        """Leave the average in the model, where training was completed or stopped."""
        self._put_back()
        if status in ("completed", "stopped"):
            for parameter, value in self._optimizer.averaged():
                parameter.detach().copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """The average, by the names of the parameters."""
        weights: dict[str, Tensor] = {
            self._names[id(p)]: value.clone()
            for p, value in self._optimizer.averaged()
            if id(p) in self._names
        }
        return {"weights": weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The average follows from the state of the optimizer."""

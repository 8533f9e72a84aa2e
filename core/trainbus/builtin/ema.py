"""Keep a moving average of the weights, and validate with it."""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from trainbus.arguments import check_number, check_whole
from trainbus.checkpoints import sections
from trainbus.errors import CheckpointError, Control, UsageError
from trainbus.events.markers import hookimpl
from trainbus.storage.untrusted import Unfit, fields, mapping, whole

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trainbus.engine.run import Run


logger = logging.getLogger("trainbus")


class EMA:
    """Keep an exponential moving average of the model's parameters, and validate with it.

    After each step `average = decay * average + (1 - decay) * parameter`. Averaging the iterates
    comes from Polyak and Juditsky (1992), "Acceleration of stochastic approximation by averaging".
    The warm-up is that of TensorFlow's `tf.train.ExponentialMovingAverage` with `num_updates`: the
    n-th average, counted from 0, uses `min(decay, (1 + n) / (10 + n))`, so that the first weights
    are forgotten soon.

    Only parameters are averaged. Buffers stay those of the model: the statistics of batch-norm
    layers are moving averages already, others are counters or constants, and no memory is needed.

    `average` holds the tensors by the names of the parameters, also after the run. Parameters of 16
    bits are averaged in float32, since small steps vanish in 16 bits.

    Args:
        decay: what stays of the average at each step.
        warmup: begin with a smaller decay.
        every: optimizer steps between two averages.
        validate: use the average in validation and test passes inside a fit.
        final: leave the average in the model when a run was completed or stopped.
    """

    #: It follows the weights and changes none of what a step computes.
    computes = False

    def __init__(
        self,
        decay: float = 0.999,
        warmup: bool = True,
        every: int = 1,
        validate: bool = True,
        final: bool = False,
    ) -> None:
        check_number(0, below=1, decay=decay)
        check_whole(1, every=every)
        self.decay = decay
        self.warmup = warmup
        self.every = every
        self.validate = validate
        self.final = final
        #: Averages made so far.
        self.updates = 0
        self.average: dict[str, Tensor] = {}
        self.model: nn.Module | None = None
        self.parameters: dict[str, Tensor] = {}
        self.step_seen = 0
        self._loaded = False
        #: Steps of this epoch whose weights were not finite, on the device.
        self._left_out: Any = None
        #: The average is in the model, and the model's weights are kept aside.
        self._swapped = False
        self._aside: dict[str, Tensor] = {}

    # --- averaging -----------------------------------------------------------------------------

    @hookimpl(tryfirst=True)
    def on_run_start(self, run: Run) -> None:
        """Begin again; a checkpoint may bring an average after this."""
        if run.stage != "train":
            return
        self.updates, self.average, self.parameters = 0, {}, {}
        self._swapped = self._loaded = False
        self._aside = {}
        self._left_out = None
        name = run.bus.name_of(self)
        # Two that exchanged weights around the same pass would put back each other's.
        for role, wanted in (("validates", self.validate), ("is left in the model", self.final)):
            if wanted and (other := run.claim(f"average that {role}")) not in (None, name):
                option = "validate" if role == "validates" else "final"
                raise UsageError(
                    f"the plugins {other!r} and {name!r} each keep an average, and only one can be "
                    f"that which {role}; give {option}=False to the other"
                )
            if wanted:
                run.claim(f"average that {role}", name)

    @hookimpl(tryfirst=True)
    def on_fit_start(self, run: Run) -> None:
        """Look at the model, which is placed by now."""
        self.model = run.task
        self.step_seen = run.global_step

    @hookimpl(tryfirst=True)
    def on_train_epoch_start(self) -> None:
        """Begin the average with the weights that training begins with."""
        if self.model is None:
            return
        self.put_back()
        self._find_parameters(self.model)
        self._begin()

    @hookimpl(tryfirst=True)
    def on_train_batch_start(self) -> None:
        """Train with the model's own weights, also after a pass that a loop broke off."""
        if self._swapped:
            self.put_back()

    @hookimpl(tryfirst=True)
    def on_train_batch_end(self, run: Run) -> None:
        """Average, if a step was made: here the last of several optimizers has made its own."""
        if run.global_step != self.step_seen:
            self.update(run.global_step)

    @hookimpl(tryfirst=True)
    def on_train_epoch_end(self, run: Run) -> None:
        """Average after a step that was made when the pass ended inside a window of batches."""
        if run.global_step != self.step_seen:
            self.update(run.global_step)
        if self._left_out is not None and (steps := int(self._left_out)):
            self._left_out = None
            logger.warning(
                "ema: the weights were not finite after %d steps of epoch %d; these are no part of "
                "the average", steps, run.epoch,
            )  # fmt: skip

    def _find_parameters(self, model: nn.Module) -> None:
        self.parameters = {
            name: parameter
            for name, parameter in model.named_parameters()
            if parameter.is_floating_point() or parameter.is_complex()
        }

    def _begin(self) -> None:
        """Begin the average of each parameter that has none: at the start all, later new ones."""
        before = self.average
        self.average = {
            name: before[name]
            if name in before
            else parameter.detach().to(_averaged_type(parameter), copy=True)
            for name, parameter in self.parameters.items()
        }

    def update(self, step: int) -> None:
        """Take the weights of now into the average."""
        import torch
        from torch.optim.swa_utils import get_ema_multi_avg_fn

        self.step_seen = step
        if step % self.every or not self.average:
            return
        decay = self.decay
        if self.warmup:
            decay = min(decay, (1 + self.updates) / (10 + self.updates))
        averages = list(self.average.values())
        parameters = [
            parameter.detach().to(average.dtype)  # itself, unless it has 16 bits
            for parameter, average in zip(self.parameters.values(), averages, strict=True)
        ]
        # Of one weight that is not a number the average would not recover. Nobody waits for the
        # device: what is left out is decided there.
        largest = torch._foreach_norm(parameters, float("inf"))
        device = largest[0].device
        finite = torch.stack([each.to(device) for each in largest]).isfinite().all()
        self._left_out = (0 if self._left_out is None else self._left_out) + (~finite).int()
        parameters = [
            torch.where(finite.to(weight.device), weight, average)
            for weight, average in zip(parameters, averages, strict=True)
        ]
        average_all = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average_all(averages, parameters, 0)
        self.updates += 1

    # --- validating with the average -----------------------------------------------------------

    @hookimpl(tryfirst=True)
    def on_validation_start(self) -> None:
        """Put the average into the model."""
        self._put_in()

    @hookimpl(tryfirst=True)
    def on_validation_end(self) -> None:
        """Put the model's own weights back."""
        self.put_back()

    @hookimpl(tryfirst=True)
    def on_test_start(self) -> None:
        """Put the average into the model."""
        self._put_in()

    @hookimpl(tryfirst=True)
    def on_test_end(self) -> None:
        """Put the model's own weights back."""
        self.put_back()

    @hookimpl(wrapper=True)
    def validation_step(self) -> Generator[None, Any, Any]:
        """Put the weights back at once when a step fails or your own loop breaks off."""
        try:
            return (yield)
        except Control:  # the pass goes on, or its end fires
            raise
        except BaseException:
            self.put_back()
            raise

    @hookimpl(wrapper=True)
    def save_checkpoint(self) -> Generator[None, Any, Any]:
        """A checkpoint that is written in the middle of a pass holds the model's own weights."""
        return (yield from self._with_own_weights())

    @hookimpl(wrapper=True)
    def load_checkpoint(self) -> Generator[None, Any, Any]:
        """A checkpoint is read into the model's own weights."""
        return (yield from self._with_own_weights())

    def _with_own_weights(self) -> Generator[None, Any, Any]:
        swapped = self._swapped
        self.put_back()
        try:
            return (yield)
        finally:
            if swapped:
                self._put_in()

    @hookimpl(tryfirst=True)
    def on_exception(self) -> None:
        """Put the model's own weights back before others look at the wreck."""
        self.put_back()

    @hookimpl(tryfirst=True)
    def on_run_end(self, status: str) -> None:
        """Leave the model's own weights, or with `final` the average."""
        self.put_back()
        if self.final and self.model is not None and status in ("completed", "stopped"):
            self.leave()
        self.model = None
        self.parameters = {}

    def leave(self) -> None:
        """Put the average into the model, for good."""
        for name, average in self.average.items():
            self.parameters[name].detach().copy_(average)

    def _put_in(self) -> None:
        if self._swapped or not self.validate or self.model is None or not self.average:
            return
        self._swapped = True
        for name, parameter in self.parameters.items():
            weights, average = parameter.detach(), self.average[name]
            if weights.dtype == average.dtype:
                _exchange(weights, average)
            else:
                self._aside[name] = weights.clone()
                weights.copy_(average)

    def put_back(self) -> None:
        """Put the model's own weights back."""
        if not self._swapped:
            return
        for name, parameter in self.parameters.items():
            if name in self._aside:
                parameter.detach().copy_(self._aside.pop(name))
            else:
                _exchange(parameter.detach(), self.average[name])
        self._swapped = False

    # --- checkpoints ---------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The average and how many steps it has seen.

        `weights` is where `load_weights` finds that with which the model was validated.
        """
        name = "weights" if self.validate else "average"
        return {"updates": self.updates, name: dict(self.average)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with an average of before. Raises `CheckpointError` when it does not fit."""
        tensors = mapping(_is_tensor)
        shape = fields({"updates": whole()}, {"weights": tensors, "average": tensors})
        sections.check(state, shape, "ema")
        average = state["weights"] if "weights" in state else state.get("average", {})
        if self.model is not None:
            self._find_parameters(self.model)
            here = {name: tuple(value.shape) for name, value in self.parameters.items()}
            there = {name: tuple(value.shape) for name, value in average.items()}
            if average and here != there:
                differing = sorted(dict(here.items() ^ there.items()))
                raise CheckpointError(
                    f"ema: the average does not fit the model's parameters: {', '.join(differing)}"
                )
            average = {
                name: average[name].to(self.parameters[name].device, copy=True)
                for name in self.parameters
                if average
            }
        self.average = average
        self.updates = state["updates"]
        self._loaded = True

    @hookimpl
    def on_checkpoint_loaded(self, run: Run) -> None:
        """Begin with the weights of a checkpoint that was written without this plugin."""
        self.step_seen = run.global_step
        if not self._loaded:
            self.updates, self.average = 0, {}
            if self.parameters:
                self._begin()
        self._loaded = False


def _is_tensor(value: Any, where: str) -> None:
    """Fits a tensor, also one that several processes share."""
    from torch import Tensor

    if not isinstance(value, Tensor):
        raise Unfit(f"{where} is a {type(value).__name__}; it has to be a tensor")


def _averaged_type(parameter: Tensor) -> Any:
    import torch

    return torch.float32 if parameter.dtype in (torch.float16, torch.bfloat16) else parameter.dtype


def _exchange(one: Tensor, other: Tensor) -> None:
    """Exchange values, not storage: what holds the addresses (a compiled model) keeps them."""
    held = one.clone()
    one.copy_(other)
    other.copy_(held)

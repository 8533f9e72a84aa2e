"""The plugin: autocast around steps, scaled gradients, converted models."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from trainbus import PluginError, SkipStep, UsageError, hookimpl
from trainbus_amp import fp8
from trainbus_amp.conversion import Conversion, cast, default_dtype
from trainbus_amp.precisions import PRECISIONS, WHO, Name, Precision, choose, unknown
from trainbus_amp.scaling import Scaling

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.amp import GradScaler

    from trainbus import Run

logger = logging.getLogger("trainbus")

#: What is built around the model has the converted one inside.
_OUTSIDE = ["compile", "distributed"]
_NOTHING = nullcontext()
_STAGES = ("train", "validation", "test", "predict")


class AMP:
    """Compute in another floating-point type, on any device of torch.

    - "bf16": operators that bear it compute in bfloat16 (`torch.autocast`).
    - "fp16": the same in float16, with a scaled loss so that small gradients do not become 0.
    - "bf16-true", "fp16-true", "fp32", "fp64": model and batches are converted.
    - "fp8": linear layers multiply in float8 (torchao), everything else is as in "bf16".

    `scaler` is the gradient scaler of the newest run, or None without one.

    Args:
        precision: that of the trainer by default, and "bf16" where it says none.
    """

    def __init__(self, precision: Name | None = None) -> None:
        if precision is not None and precision not in PRECISIONS:
            raise PluginError(unknown(precision))
        self.precision = precision
        self._scaling: Scaling | None = None
        self._used: Precision | None = None
        self._model: Conversion | fp8.Float8 | None = None
        #: What steps run in: autocast, or a default type for the tensors they make.
        self._inside: Callable[[], AbstractContextManager[Any]] = nullcontext
        #: Where autocast is to be off during a backward that is called from inside a step.
        self._device_type: str | None = None
        #: torch's own function: to import torch in each step would cost more than to ask.
        self._is_autocast_on: Callable[[str], bool] = lambda _: False
        self._batch_type: torch.dtype | None = None

    @property
    def scaler(self) -> GradScaler | None:
        """The gradient scaler, with the scale of now."""
        return None if self._scaling is None else self._scaling.scaler

    # --- the run -------------------------------------------------------------------------------

    @hookimpl(tryfirst=True)
    def on_run_start(self, run: Run) -> None:
        """Choose, check that the device can, and tell."""
        import torch

        run.claim("precision", run.bus.name_of(self))
        self._used = used = choose(run.precision, self.precision)
        used.check(run.accelerator)
        if used.name == "fp8":
            fp8.check()
        run.precision = used.name
        run.header["precision"] = f"{used.name} ({used.meaning})"
        self._scaling = self._device_type = self._batch_type = None
        self._is_autocast_on = torch.is_autocast_enabled
        if used.autocast:
            self._inside = partial(run.accelerator.autocast, used.dtype)
            if torch.amp.is_autocast_available(run.device.type):
                self._device_type = run.device.type
        else:
            self._batch_type = used.dtype
            usual = used.dtype == torch.get_default_dtype()
            self._inside = nullcontext if usual else partial(default_dtype, used.dtype)
        if used.scaled and run.stage == "train":
            scaler = run.accelerator.scaler()
            if scaler.is_enabled():  # a device may need none
                self._scaling = Scaling(scaler)
        run.bus.pause(run.bus.name_of(self), *self._idle())

    def _idle(self) -> list[str]:
        """The hooks at which there is nothing to do in this run: in each step they would cost."""
        idle = []
        if self._batch_type is None:
            idle += [f"on_{stage}_batch_start" for stage in _STAGES]
        if self._inside is nullcontext:
            idle += ["training_step", "validation_step", "predict_step"]
        if self._scaling is None:
            idle += ["on_before_optimizer_step"]
            if self._device_type is None:
                idle += ["backward"]
        if self._device_type is None:
            idle += ["optimizer_step"]
        return idle

    @hookimpl(wrapper=True, trylast=True, after=_OUTSIDE)
    def configure_model(self, run: Run) -> Generator[None, nn.Module, nn.Module]:
        """Convert the model, before others compile or distribute it."""
        model = yield
        assert self._used is not None
        if self._used.name == "fp8":
            self._model = fp8.Float8(model)
        elif not self._used.autocast:
            self._model = Conversion(model, self._used.type_name, keep=run.stage != "train")
        return model

    @hookimpl
    def on_fit_start(self, run: Run) -> None:
        """Refuse weights whose gradients cannot be unscaled."""
        import torch

        for optimizer in run.optimizers if self._scaling is not None else ():
            for group in optimizer.param_groups:
                if any(parameter.dtype == torch.float16 for parameter in group["params"]):
                    raise UsageError(
                        f"{WHO}: precision='fp16' keeps the weights in float32 and computes in "
                        f"float16, and {type(run.task).__name__} has weights in float16; call "
                        "model.float(), or use precision='fp16-true'"
                    )

    @hookimpl(trylast=True)
    def on_run_end(self) -> None:
        """Put the model back into the types, or the layers, that it had."""
        model, self._model = self._model, None
        if model is not None:
            model.undo()

    # --- batches and steps ---------------------------------------------------------------------
    #
    # A wrapper costs ten times what a listener does, so that there is one in a step.

    @hookimpl(tryfirst=True)
    def on_train_batch_start(self, run: Run) -> None:
        """Convert the batch, where the model was."""
        if self._batch_type is not None:
            run.batch = cast(run.batch, self._batch_type)

    on_validation_batch_start = on_test_batch_start = on_predict_batch_start = on_train_batch_start

    @hookimpl(wrapper=True, trylast=True)
    def training_step(self) -> Generator[None, Any, Any]:
        """Compute in the precision."""
        with self._inside():
            return (yield)

    validation_step = predict_step = training_step

    @hookimpl
    def backward(self, run: Run) -> bool | None:
        """Differentiate the scaled loss; outside of autocast, which a backward is not made for."""
        within = run.manual and self._within_autocast()
        scaling = self._scaling
        if scaling is None and not within:
            return None
        loss = run.loss_to_backward
        assert loss is not None
        with _off(self._device_type) if within else _NOTHING:
            if scaling is not None:
                loss = scaling.scale(loss, run.optimizers)
            loss.backward(inputs=run.backward_inputs)  # type: ignore[no-untyped-call]
        return True

    @hookimpl(tryfirst=True, before=["nonfinite", "clip"])
    def on_before_optimizer_step(self, run: Run) -> None:
        """Give all others the true gradients, or skip the step if they overflowed."""
        scaling = self._scaling
        if scaling is None:
            return
        assert run.optimizer is not None
        if not scaling.unscale(run.optimizer):
            raise SkipStep

    @hookimpl
    def optimizer_step(self, run: Run) -> bool | None:
        """Step outside of autocast, whose copies of the weights are old after it."""
        if not self._within_autocast():
            return None
        import torch

        assert run.optimizer is not None
        with _off(self._device_type):
            run.optimizer.step()
        torch.clear_autocast_cache()
        return True

    def _within_autocast(self) -> bool:
        """Whether a task or a loop differentiates and steps by itself, in the midst of a step."""
        return self._device_type is not None and self._is_autocast_on(self._device_type)

    # --- checkpoints ---------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The precision, and the state of the scaler."""
        return {
            "precision": None if self._used is None else self._used.name,
            "scaler": None if self._scaling is None else self._scaling.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the saved scale; a run may go on in another precision."""
        if self._used is not None and state["precision"] != self._used.name:
            logger.warning(
                "%s: the checkpoint was written with precision=%r, the run goes on with %r",
                WHO, state["precision"], self._used.name,
            )  # fmt: skip
        if self._scaling is not None and state["scaler"] is not None:
            self._scaling.load_state_dict(state["scaler"])


def _off(device_type: str | None) -> AbstractContextManager[Any]:
    """A context without autocast."""
    import torch

    assert device_type is not None
    return torch.autocast(device_type, enabled=False)

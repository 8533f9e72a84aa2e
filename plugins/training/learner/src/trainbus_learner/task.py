"""The task of a learner: a model, a loss, metrics, and groups with learning rates."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainbus import Accelerator, UsageError
from trainbus.engine.task import Supervised
from trainbus_data.metrics import CountedMean
from trainbus_learner.ensembles import spread_over_members
from trainbus_learner.ignoring import ignored
from trainbus_learner.learning_data import Loss, Source

if TYPE_CHECKING:
    from trainbus import Run

logger = logging.getLogger("trainbus")


class LearnerTask(Supervised):
    """A model with a loss, for batches (input, ..., target).

    Args:
        model: called with the inputs; those in uint8 come as floats in [0, 1], unless a module
            in the model scales for itself (`scales_bytes`).
        source: knows which parts of a batch are inputs, and which targets.
        make_optimizer: makes the optimizer, when the model is on its device.
    """

    def __init__(
        self,
        model: nn.Module,
        source: Source,
        make_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    ) -> None:
        super().__init__(model, _no_loss, make_optimizer, {})
        self.learn_from(source)
        self._title = type(model).__name__
        self._scale = not scales_bytes(model)
        #: Whether the output has a dimension of members behind that of the batch in training.
        self._members = bool(getattr(model, "gives_members", False))
        #: A parameter, in a tuple for it is no further one of the task: inputs come in its type,
        #: which a plugin may change.
        self._like = (next((p for p in model.parameters() if p.is_floating_point()), None),)
        self._to_check = False
        #: What gives the outputs in validation, in the place of the model.
        self._answer: Callable[[tuple[Any, ...]], Any] | None = None

    @property
    def run_name(self) -> str:
        """What runs are called: the network and the data."""
        return self._title

    @run_name.setter
    def run_name(self, title: str) -> None:
        self._title = title

    def measure(self, loss: Loss, metrics: Mapping[str, Any], check: bool) -> None:
        """Take a loss and metrics.

        Args:
            loss: of (output, target).
            metrics: by name, functions of (output, target), or objects with update/compute/reset.
            check: compare the outputs of the next batch with what the target needs.
        """
        self.loss, self.metrics, self._to_check = loss, dict(metrics), check
        #: Of a loss that leaves things out: how much of a target counts, which weighs its batch.
        self._counted: Callable[[Any], Tensor] | None = getattr(loss, "counted", None)
        self._mean = CountedMean()

    def learn_from(self, source: Source) -> None:
        """Take other data, whose batches are as those were."""
        self.source = source
        #: What the batches are; None with plain loaders.
        self.recipe = source.recipe
        self._sizes: dict[str, tuple[int, ...]] = {}
        block = source.target
        #: Fits targets to the inputs of their batch, where a block does.
        self._fitted: Callable[[Any, tuple[Any, ...]], Any] | None = (
            block.fitted if getattr(block, "in_picture", False) else None
        )

    def in_models_type(self, value: Any) -> Any:
        """An input as `forward` hands it to the model: see `as_model_takes`."""
        like = self._like[0]
        return as_model_takes(value, torch.float32 if like is None else like.dtype, self._scale)

    def forward(self, *inputs: Any) -> Any:
        """The model's output."""
        like = self._like[0]
        dtype = torch.float32 if like is None else like.dtype
        for each in inputs:  # in each step: without a call where there is nothing to convert
            if type(each) is Tensor and each.dtype is not dtype:
                inputs = tuple(as_model_takes(each, dtype, self._scale) for each in inputs)
                break
        try:
            return self.model(*inputs)
        except (RuntimeError, TypeError, ValueError) as error:
            given = ", ".join(_shape(each) for each in inputs)
            error.add_note(f"{type(self.model).__name__} was given an input {given}")
            raise

    @contextmanager
    def answering(self, answer: Callable[[tuple[Any, ...]], Any]) -> Iterator[None]:
        """Measure what this gives for the inputs of a batch, in place of what the model gives."""
        self._answer = answer
        try:
            yield
        finally:
            self._answer = None

    def training_step(self, batch: Any, run: Run) -> Tensor:
        """The loss, logged as `loss`."""
        inputs, target = self.source.split(batch)
        if "train" not in self._sizes:
            self._see("train", batch)
        if self._fitted is not None:
            target = self._fitted(target, inputs)
        output = self.forward(*inputs)
        if self._members:  # the mean of their losses, and never the loss of their mean
            output, target = spread_over_members(output, target)
        loss = self._loss(output, target)
        run.log(loss=loss)
        return loss

    def validation_step(self, batch: Any, run: Run) -> Any:
        """The model's output; the loss and the metrics are logged."""
        inputs, target = self.source.split(batch)
        if "valid" not in self._sizes:
            self._see("valid", batch)
        if self._fitted is not None:
            target = self._fitted(target, inputs)
        output = self.forward(*inputs) if self._answer is None else self._answer(inputs)
        loss = self._loss(output, target)
        if self._counted is None:
            run.log(loss=loss)
        else:
            self._mean.update(loss, self._counted(target))
            run.log(loss=self._mean)
        for name in self.metrics:
            try:
                self.log_metric(name, output, target, run)
            except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
                error.add_note(f"in the metric {name!r}, {_shapes(output, target)}")
                raise
        return output

    def _see(self, stage: str, batch: Any) -> None:
        """Look at the first batch of a stage: by its shapes alone, without waiting for a device."""
        first = batch[0]
        self._sizes[stage] = tuple(first.shape[2:]) if getattr(first, "ndim", 0) == 4 else ()
        train, valid = self._sizes.get("train", ()), self._sizes.get("valid", ())
        if train and valid and train != valid:
            logger.warning(
                "training sees images of %s, and validation of %s: an augmentation that changes "
                "the size (Crop, size=) is for training alone. Resize or CenterCrop in the data "
                "bring both to one size", *(" x ".join(map(str, each)) for each in (train, valid)),
            )  # fmt: skip

    def predict_step(self, batch: Any, run: Run) -> Any:
        """The model's output for the inputs of a batch, with or without a target in it."""
        if not isinstance(batch, (tuple, list)):
            return self(batch)
        count = self.source.inputs or max(1, len(batch) - 1)
        return self(*batch[:count])

    def _loss(self, output: Any, target: Any) -> Tensor:
        if self._to_check:
            self.check(output, target)
            self._to_check = False
        try:
            return self.loss(output, target)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            if Accelerator().is_out_of_memory(error):
                raise
            raise UsageError(
                f"the loss {name_of(self.loss)} cannot compare {_shapes(output, target)}: {error}"
            ) from error

    def check(self, output: Any, target: Any) -> None:
        """Refuse outputs whose number does not fit the target.

        Raises:
            UsageError: there are too many or too few.
        """
        block, model = self.source.target, type(self.model).__name__
        if not isinstance(output, Tensor):
            return
        if hasattr(block, "check_output"):
            block.check_output(output, of=model)
        elif block.outputs is None and isinstance(target, Tensor) and block.kind == "category":
            outputs = output.shape[1] if output.ndim > 1 else 1
            # The only place where the device is waited for: once, at the first batch.
            leave_out = ignored(self.loss, block)
            counted = target if leave_out is None else target[target != leave_out]
            if not target.is_floating_point() and counted.numel():
                highest = int(counted.max())
                if highest >= outputs:
                    raise UsageError(
                        f"{model} gives {outputs} outputs, but a target is {highest}: at least "
                        f"{highest + 1} outputs are needed, one for each class from 0 on"
                    )


def _no_loss(output: Any, target: Any) -> Tensor:
    raise UsageError("LearnerTask: measure(loss, metrics) says how outputs are measured")


def scales_bytes(model: nn.Module) -> bool:
    """Whether a module in the model makes floats of uint8 images by itself, and says so."""
    return any(getattr(module, "scales_bytes", False) for module in model.modules())


def as_model_takes(value: Any, dtype: torch.dtype, scale: bool) -> Any:
    """An input in the type of the model's parameters: floats, and bytes as floats in [0, 1].

    Under autocast floats are left as they are: it chooses the type of each operation.
    """
    if not isinstance(value, Tensor) or not dtype.is_floating_point:
        return value
    if value.dtype == torch.uint8:
        return value.float().div_(255).to(dtype) if scale else value
    if value.is_floating_point() and not torch.is_autocast_enabled(value.device.type):
        return value.to(dtype)
    return value


class BytesToFloats(nn.Module):
    """A model that takes uint8 inputs as well, as they are exported."""

    #: See `scales_bytes`.
    scales_bytes = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> Any:
        """The model's output."""
        like = next((p for p in self.model.parameters() if p.is_floating_point()), None)
        dtype = torch.float32 if like is None else like.dtype
        return self.model(*(as_model_takes(each, dtype, scale=True) for each in inputs))


def name_of(function: Any) -> str:
    """A loss, a metric or an optimizer, in words."""
    if isinstance(function, str):
        return function
    while hasattr(function, "func"):  # a partial
        function = function.func
    name = getattr(function, "__name__", "") or getattr(function, "name", "")
    return str(name or type(function).__name__)


def _shapes(output: Any, target: Any) -> str:
    return f"the model's output {_shape(output)} with the target {_shape(target)}"


def _shape(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"of shape {tuple(value.shape)} ({str(value.dtype).removeprefix('torch.')})"
    return f"that is a {type(value).__name__}"

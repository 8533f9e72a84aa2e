"""The task of a learner: a model, a loss, metrics, and groups with learning rates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainbus import Accelerator, UsageError
from trainbus.engine.task import Supervised
from trainbus_learner.learning_data import Loss, Source

if TYPE_CHECKING:
    from trainbus import Run


class LearnerTask(Supervised):
    """A model with a loss, for batches (input, ..., target).

    Args:
        model: called with the inputs; those in uint8 come as floats in [0, 1], unless a module
            in the model scales for itself (`scales_bytes`).
        source: knows which parts of a batch are inputs, and which targets.
        loss: of (output, target).
        metrics: by name, functions of (output, target), or objects with update/compute/reset.
        make_optimizer: makes the optimizer, when the model is on its device.
        check: compare the outputs of the first batch with what the target needs.
    """

    def __init__(
        self,
        model: nn.Module,
        source: Source,
        loss: Loss,
        metrics: Mapping[str, Any],
        make_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        check: bool,
    ) -> None:
        super().__init__(model, loss, make_optimizer, metrics)
        self._source = source
        self._scale = not scales_bytes(model)
        self._to_check = check
        #: What gives the outputs in validation, in the place of the model.
        self._answer: Callable[[tuple[Any, ...]], Any] | None = None

    def forward(self, *inputs: Any) -> Any:
        """The model's output."""
        if self._scale:
            for each in inputs:  # in each step: without a call where there is nothing to scale
                if type(each) is Tensor and each.dtype == torch.uint8:
                    inputs = tuple(map(as_floats, inputs))
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
        inputs, target = self._source.split(batch)
        loss = self._loss(self.forward(*inputs), target)
        run.log(loss=loss)
        return loss

    def validation_step(self, batch: Any, run: Run) -> Any:
        """The model's output; the loss and the metrics are logged."""
        inputs, target = self._source.split(batch)
        output = self.forward(*inputs) if self._answer is None else self._answer(inputs)
        run.log(loss=self._loss(output, target))
        for name in self.metrics:
            try:
                self.log_metric(name, output, target, run)
            except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
                error.add_note(f"in the metric {name!r}, {_shapes(output, target)}")
                raise
        return output

    def predict_step(self, batch: Any, run: Run) -> Any:
        """The model's output for the inputs of a batch, with or without a target in it."""
        if not isinstance(batch, (tuple, list)):
            return self(batch)
        count = self._source.inputs or max(1, len(batch) - 1)
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
        block, model = self._source.target, type(self.model).__name__
        if not isinstance(output, Tensor):
            return
        if hasattr(block, "check_output"):
            block.check_output(output, of=model)
        elif block.outputs is None and isinstance(target, Tensor) and block.kind == "category":
            outputs = output.shape[1] if output.ndim > 1 else 1
            # The only place where the device is waited for: once, at the first batch.
            if not target.is_floating_point() and target.numel():
                highest = int(target.max())
                if highest >= outputs:
                    raise UsageError(
                        f"{model} gives {outputs} outputs, but a target is {highest}: at least "
                        f"{highest + 1} outputs are needed, one for each class from 0 on"
                    )


def scales_bytes(model: nn.Module) -> bool:
    """Whether a module in the model makes floats of uint8 images by itself, and says so."""
    return any(getattr(module, "scales_bytes", False) for module in model.modules())


def as_floats(value: Any) -> Any:
    """Bytes as floats in [0, 1]; anything else as it is."""
    if isinstance(value, Tensor) and value.dtype == torch.uint8:
        return value.float().div_(255)
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
        return self.model(*(as_floats(each) for each in inputs))


def name_of(function: Any) -> str:
    """A loss or a metric, in words."""
    while hasattr(function, "func"):  # a partial
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def _shapes(output: Any, target: Any) -> str:
    return f"the model's output {_shape(output)} with the target {_shape(target)}"


def _shape(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"of shape {tuple(value.shape)} ({str(value.dtype).removeprefix('torch.')})"
    return f"that is a {type(value).__name__}"

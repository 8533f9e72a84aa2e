"""Task: the science. What a step computes, and with which optimizer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from trainbus.checkpoints import archive
from trainbus.checkpoints.weights import load_weights
from trainbus.engine.calls import Call, answer, loss_in
from trainbus.engine.given_arguments import noting, taken
from trainbus.engine.optimizers import make_optimizer, usual
from trainbus.engine.scheduled import Scheduled, parted
from trainbus.errors import UsageError

if TYPE_CHECKING:
    from trainbus.engine.run import Run

Optimizers = Optimizer | Sequence[Optimizer]
OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer] | str


class Task(nn.Module):
    """A module that knows how to be trained.

    `training_step` and `configure_optimizer` are needed to fit; `validation_step` to validate, and
    to test where there is no `test_step`. Methods marked `@hookimpl` listen like a plugin's.
    """

    #: Whether `training_step` makes the steps with torch's own calls: `loss.backward()`,
    #: `optimizer.step()` and `optimizer.zero_grad()`. They count as any others.
    manual = False
    #: What describes this task: sent to loggers as parameters. Where it is empty, what the
    #: constructor was given is.
    hparams: Mapping[str, Any] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = noting(cls.__init__)  # type: ignore[method-assign]

    @classmethod
    def from_checkpoint(cls, path: str | Path, **arguments: Any) -> Self:
        """A task as that of a checkpoint: of what its constructor was given, with its weights.

        Only numbers, texts, and lists and mappings of such are kept in a checkpoint; of what the
        file has, only what this constructor takes by name is used, and nothing is executed.

        Args:
            path: a checkpoint, or the directory of a run: its newest one.
            arguments: to the constructor, in place of those kept, and those that were not.

        Raises:
            CheckpointError: it is missing or damaged, or its weights do not fit.
            TypeError: the constructor needs more.
        """
        place = archive.place(path)
        if (place / "checkpoints").is_dir():
            place = archive.newest_valid(place / "checkpoints") or place
        kept = taken(cls, archive.about(place).get("arguments", {}))
        task = cls(**{**kept, **arguments})
        load_weights(task, place)
        return task

    @property
    def run_name(self) -> str:
        """What a run of this task is called: a part of its directory's name."""
        return type(self).__name__

    @property
    def step_name(self) -> str:
        """Where its loss comes from, for messages."""
        return f"{type(self).__name__}.training_step"

    def training_step(self, batch: Any, run: Run) -> Any:
        """Return the loss of a batch: a tensor of one element, or a mapping with it as `loss`."""
        raise self._missing("training_step", "fit")

    def validation_step(self, batch: Any, run: Run) -> Any:
        """Evaluate a batch, `run.log(...)` what is to be averaged; the result is `run.output`."""
        raise self._missing("validation_step", "validate or test")

    def test_step(self, batch: Any, run: Run) -> Any:
        """As `validation_step`, which it is by default, for `Trainer.test`."""
        return self.validation_step(batch, run)

    def predict_step(self, batch: Any, run: Run) -> Any:
        """Return the predictions for a batch: by default the module's output for its first part."""
        return self(batch[0] if isinstance(batch, (tuple, list)) else batch)

    def configure_optimizer(self) -> Any:
        """Return the optimizer, or several; and schedulers with them: see `Scheduled`.

        With an argument, `configure_optimizer(self, run)`, it gets the run, with its
        `total_steps`, `epochs_planned` and `device`.
        """
        raise self._missing("configure_optimizer", "fit")

    @staticmethod
    def supervised(
        model: nn.Module,
        loss: Callable[[Any, Any], Tensor] | None = functional.cross_entropy,
        optimizer: OptimizerFactory | Optimizer | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> Supervised:
        """A task of any module, for batches of (input, target).

        Batches may also be (input, input, target), or mappings with a target ("labels", "label",
        "target", "targets" or "y") whose rest are the model's arguments, as those of Hugging Face.

        Args:
            model: called with the input, or the inputs.
            loss: called with the model's output (its logits, where it has several fields) and the
                target; None takes the loss that the model gives itself.
            optimizer: made of the parameters by a call (`partial(torch.optim.SGD, lr=0.1)`), by
                the name of an installed one (`"muon"`, of trainbus-optim), or ready-made; AdamW
                with a learning rate of 1e-3 by default, fused where torch has the kernel.
            metrics: by name, functions of output and target that return one number for the batch,
                or objects with `update(output, target)`, `compute()` and `reset()`. They are
                evaluated in validation and test.
        """
        return Supervised(model, loss, optimizer, metrics or {})

    def _missing(self, method: str, verb: str) -> UsageError:
        return UsageError(f"{type(self).__name__} has no {method}, which {verb} needs; define it")


class Supervised(Task):
    """See `Task.supervised`."""

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Any, Any], Tensor] | None,
        optimizer: OptimizerFactory | Optimizer | None,
        metrics: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        # In a plain mapping: torchmetrics' modules are no part of the model.
        self.metrics = dict(metrics)
        self._call = Call(model)
        # Class weights are given with the loss, and are no state: no file overwrites them.
        self.register_state_dict_post_hook(_without_weights_of_loss)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_with_weights_of_loss)  # type: ignore[no-untyped-call]

    @property
    def run_name(self) -> str:
        """The model's class."""
        return type(self.model).__name__

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """The model's output."""
        return self.model(*inputs, **named)

    def training_step(self, batch: Any, run: Run) -> Tensor:
        """The loss of a batch, logged as `loss`."""
        loss, _, _ = self._evaluated(batch)
        run.log(loss=loss)
        return loss

    def validation_step(self, batch: Any, run: Run) -> Any:
        """The model's output; the loss and the metrics are logged."""
        loss, output, target = self._evaluated(batch)
        run.log(loss=loss)
        for name in self.metrics:
            self.log_metric(name, answer(output), target, run)
        return output

    def predict_step(self, batch: Any, run: Run) -> Any:
        """The model's output for the inputs; a target among them is left out."""
        inputs, named = self._call.without_target(batch)
        return self.model(*inputs, **named)

    def _evaluated(self, batch: Any) -> tuple[Tensor, Any, Any]:
        """Loss, output and target."""
        usual = type(batch) in (tuple, list) and len(batch) == 2 and type(batch[0]) is Tensor
        if usual and self.loss is not None:  # without a call more
            output = self.model(batch[0])
            given = output if type(output) is Tensor else answer(output)
            return self.loss(given, batch[1]), output, batch[1]
        inputs, named, target = self._call.parts(batch)
        if self.loss is None:
            output = self.model(*inputs, **({**named, self._call.target: target} if named else {}))
            return loss_in(output, self.model), output, target
        output = self.model(*inputs, **named)
        return self.loss(answer(output), target), output, target

    def log_metric(self, name: str, output: Any, target: Any, run: Run) -> None:
        """Log one of the metrics for a batch: a number, or an object that gives it later."""
        metric = self.metrics[name]
        if hasattr(metric, "update"):
            if isinstance(metric, nn.Module):
                metric.to(run.device)
            metric.update(output, target)
            run.log({name: metric})
        else:
            run.log({name: metric(output, target)})

    def configure_optimizer(self) -> Optimizers:
        """The optimizer that was given, or AdamW."""
        if isinstance(self.optimizer, Optimizer):
            return self.optimizer
        if self.optimizer is not None:
            return make_optimizer(self.optimizer, self.model)
        return usual(self.model)


def _given_with_loss(task: Supervised, prefix: str) -> dict[str, Tensor]:
    """The buffers of the losses of torch: weights of classes, of positive examples."""
    if not isinstance(task.loss, nn.Module):
        return {}
    return {
        f"{prefix}loss.{path}.{name}" if path else f"{prefix}loss.{name}": buffer
        for path, module in task.loss.named_modules()
        if type(module).__module__ == nn.CrossEntropyLoss.__module__
        for name, buffer in module.named_buffers(recurse=False)
    }


def _without_weights_of_loss(
    task: Supervised, state: dict[str, Any], prefix: str, _metadata: Any
) -> None:
    for name in _given_with_loss(task, prefix):
        state.pop(name, None)


def _with_weights_of_loss(task: Supervised, state: dict[str, Any], prefix: str, *_: Any) -> None:
    state.update(_given_with_loss(task, prefix))


def optimizers_of(
    task: Task, run: Run, given: Optimizers | None = None
) -> tuple[list[Scheduled], list[Optimizer]]:
    """The optimizers given, or the task's, with its schedulers.

    Raises:
        UsageError: they cannot work.
    """
    by_task = given is None
    where = f"{type(task).__name__}.configure_optimizer" if by_task else "trainer.open"
    try:
        if given is None:
            given = task.configure_optimizer(*[run] * _takes_run(task.configure_optimizer))
    except ValueError as error:
        if "empty parameter list" not in str(error):
            raise
        raise UsageError(
            f"{where}: the optimizer has no parameters. Are the layers made in __init__ and kept "
            "as attributes of the task (lists of them in nn.ModuleList)?"
        ) from None
    optimizers, schedulers = parted(given)
    for optimizer in optimizers:
        if not isinstance(optimizer, Optimizer):
            raise UsageError(
                f"{where} returned {type(optimizer).__name__}; return a torch.optim.Optimizer, or "
                "a list of them"
            )
        if not any(p.requires_grad for group in optimizer.param_groups for p in group["params"]):
            raise UsageError(
                f"{where}: no parameter of the {type(optimizer).__name__} requires a gradient; all "
                "are frozen"
            )
    if not optimizers:
        raise UsageError(f"{where} returned no optimizer")
    for each in schedulers:
        if not any(each.scheduler.optimizer is optimizer for optimizer in optimizers):
            kind = type(each.scheduler).__name__
            raise UsageError(f"{where}: the optimizer of the {kind} is none of those returned")
    return schedulers, optimizers


def _takes_run(method: Callable[..., Any]) -> bool:
    try:
        return bool(inspect.signature(method).parameters)
    except (TypeError, ValueError):
        return False


def loss_of(task: Task, loss: Any) -> Tensor:
    """What a training step returned, as a tensor to differentiate; a `UsageError` if it is none."""
    if isinstance(loss, Tensor):
        if loss.requires_grad and loss.numel() == 1:
            return loss
    elif isinstance(loss, Mapping) and "loss" in loss:
        return loss_of(task, loss["loss"])
    where = task.step_name
    if loss is None:
        raise UsageError(
            f"{where} returned None; return the loss, or step by yourself with "
            "run.backward(loss) and run.optimizer_step(optimizer); raise SkipBatch to leave a "
            "batch out"
        )
    if not isinstance(loss, Tensor):
        raise UsageError(f"{where} returned {type(loss).__name__}; return the loss as a tensor")
    if loss.numel() != 1:
        raise UsageError(
            f"{where} returned a loss of shape {tuple(loss.shape)}; reduce it to one number, "
            "with .mean() for example"
        )
    if not torch.is_grad_enabled():
        raise UsageError(
            f"{where} returned a loss without a graph: gradients are off here, by torch.no_grad() "
            "or in an evaluation pass"
        )
    raise UsageError(
        f"{where} returned a loss without a graph: nothing that requires a gradient leads to "
        "it. Was it made with .item(), .detach(), torch.tensor(...) or under torch.no_grad()?"
    )


class ByHand(Task):
    """The task of a hand-written loop: its steps are the loop's body."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """The model's output."""
        return self.model(*inputs, **options)

    @property
    def run_name(self) -> str:
        """The model's class."""
        return type(self.model).__name__

    @property
    def step_name(self) -> str:
        """Your own loop."""
        return "the loop's body: run.step(loss)"

"""What the loop does at each action, unless a plugin wraps or replaces it."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from trainbus.checkpoints import archive
from trainbus.devices.accelerator import Accelerator
from trainbus.engine import state
from trainbus.engine.closures import closure_of
from trainbus.engine.loop import Loop
from trainbus.engine.run import Run
from trainbus.engine.task import optimizers_of
from trainbus.errors import CheckpointError
from trainbus.events.markers import hookimpl


class Defaults:
    """The last listener of every action: the core's own way to do it."""

    @hookimpl(trylast=True)
    def configure_model(self, run: Run) -> nn.Module:
        """Place the task's module on the device."""
        return run.accelerator.place_module(run.task)

    @hookimpl(trylast=True)
    def configure_optimizer(self, run: Loop) -> list[Optimizer]:
        """Take those given to `trainer.open`, or ask the task."""
        run.given_schedulers, optimizers = optimizers_of(run.task, run, run.given_optimizers)
        return optimizers

    @hookimpl(trylast=True)
    def place_batch(self, run: Run) -> Any:
        """Ask the accelerator."""
        return run.accelerator.place_batch(run.batch)

    @hookimpl(trylast=True)
    def training_step(self, run: Run) -> Any:
        """Ask the task."""
        return run.task.training_step(run.batch, run)

    @hookimpl(trylast=True)
    def validation_step(self, run: Run) -> Any:
        """Ask the task, by the stage."""
        step = run.task.test_step if run.stage == "test" else run.task.validation_step
        return step(run.batch, run)

    @hookimpl(trylast=True)
    def predict_step(self, run: Run) -> Any:
        """Ask the task."""
        return run.task.predict_step(run.batch, run)

    @hookimpl(trylast=True)
    def backward(self, run: Run) -> bool:
        """Let autograd do it."""
        assert run.loss_to_backward is not None
        run.loss_to_backward.backward(inputs=run.backward_inputs)  # type: ignore[no-untyped-call]
        return True

    @hookimpl(trylast=True)
    def optimizer_step(self, run: Loop) -> bool:
        """Let the optimizer do it."""
        if run.closes and any(each is run.optimizer for each in run.closes):
            run.optimizer.step(closure_of(run))  # type: ignore[arg-type]
        else:
            run.optimizer.step()
        return True

    @hookimpl(trylast=True)
    def save_checkpoint(self, run: Loop, path: Path) -> bool:
        """Write it whole or not at all; of several processes the first does, for all."""
        parts = state.capture(run)
        failed = ""
        if run.rank == 0:
            try:
                archive.write(path, parts, state.about(run))
            except CheckpointError as error:
                if run.world_size == 1:
                    raise
                failed = str(error)
        if failed := run.peers.broadcast(failed):
            raise CheckpointError(failed)
        return True

    @hookimpl(trylast=True)
    def load_checkpoint(self, run: Loop, path: Path) -> bool:
        """Read it without executing anything that it holds."""
        source = str(path)
        parts = archive.read(path, before=lambda outline: state.check_fit(run, outline, source))
        state.restore(run, parts, source)
        return True


class Boundaries:
    """Tell an accelerator where steps end; registered where the accelerator wants to know."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._tell = accelerator.step_boundary

    @hookimpl(trylast=True)
    def on_train_batch_end(self, run: Run) -> None:
        """After a batch, with or without an optimizer's step."""
        self._tell("optimizer_step" if run.stepped else "micro_step")

    @hookimpl(trylast=True)
    def on_validation_batch_end(self) -> None:
        """After a batch without one."""
        self._tell("micro_step")

    on_test_batch_end = on_predict_batch_end = on_validation_batch_end

    @hookimpl(wrapper=True, tryfirst=True)
    def save_checkpoint(self) -> Generator[None, bool, bool]:
        """Before a state is saved."""
        self._tell("save")
        return (yield)

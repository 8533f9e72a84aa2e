"""Average the weights of the last part of a run, each as much as the others."""

from __future__ import annotations

import logging
from itertools import islice
from typing import TYPE_CHECKING, Any

from trainbus.arguments import check_number, is_number, is_whole
from trainbus.builtin.ema import EMA
from trainbus.errors import PluginError
from trainbus.events.markers import hookimpl

logger = logging.getLogger("trainbus")

if TYPE_CHECKING:
    from torch import nn

    from trainbus.engine.loop import Loop
    from trainbus.engine.run import Run


class SWA(EMA):
    """Leave the equal mean of the weights at the ends of the last epochs (Izmailov et al., 2018).

    The statistics of batch normalization are those of the averaged weights in the end: they are
    taken anew from a pass over the training data, without gradients. For that reason the average is
    not validated on the way unless that is asked for.

    Args:
        start: from which epoch on: a part of the run below 1, or an epoch, counted from 0.
        lr: a constant learning rate from there on; by default that of the optimizer, which a
            schedule may change.
        validate: use the average in validation and test passes inside a fit, with the statistics
            of batch normalization as they are.
        batches: of the training data that the statistics are taken from; None for all.
    """

    computes = True

    def __init__(
        self,
        start: float = 0.75,
        lr: float | None = None,
        validate: bool = False,
        batches: int | None = None,
    ) -> None:
        if not (is_number(start) and start >= 0 and (start < 1 or float(start).is_integer())):
            raise PluginError(f"start={start!r}: give a part of the run below 1, or an epoch")
        if lr is not None:
            check_number(above=0, lr=lr)
        if not (batches is None or is_whole(batches, 1)):
            raise PluginError(f"batches={batches!r}: give a whole number of at least 1, or None")
        super().__init__(decay=0.0, warmup=False, validate=validate, final=True)
        self.start = start
        self.lr = lr
        self.batches = batches

    def begins(self, run: Run) -> bool:
        """Whether the present epoch is one of those that are averaged."""
        if self.start >= 1 or self.start == 0:
            return run.epoch >= self.start
        planned = run.epochs_planned
        if planned is None:
            raise PluginError(
                f"swa: start={self.start} is a part of the run, whose epochs are not known; give "
                "an epoch"
            )
        return run.epoch >= int(self.start * planned)

    @hookimpl(tryfirst=True)
    def on_train_batch_end(self, run: Run) -> None:
        """Nothing: the weights are averaged at the ends of epochs."""
        self.step_seen = run.global_step

    @hookimpl(trylast=True)
    def on_before_optimizer_step(self, run: Run) -> None:
        """Set the constant learning rate."""
        if self.lr is not None and self.begins(run):
            for group in run.optimizer.param_groups:
                group["lr"] = self.lr

    @hookimpl(tryfirst=True)
    def on_train_epoch_end(self, run: Run) -> None:
        """Take the weights of this epoch into the mean."""
        if run.stopping or not self.begins(run):
            return
        # The decay of an equal mean: the first weights replace those that training began with.
        self.decay = self.updates / (self.updates + 1)
        self.update(0)
        self.step_seen = run.global_step

    @hookimpl(trylast=True)
    def on_fit_end(self, run: Loop) -> None:
        """Leave the average in the model, with statistics of its own."""
        if not self.updates or self.model is None or run.dry_run:
            return
        self.put_back()
        self.leave()
        normalizing = _with_statistics(self.model)
        if normalizing:
            _take_statistics(run, normalizing, self.batches)


def _with_statistics(model: nn.Module) -> list[Any]:
    from torch.nn.modules.batchnorm import _NormBase

    modules = (each for each in model.modules() if isinstance(each, _NormBase))
    return [each for each in modules if each.track_running_stats]


def _take_statistics(run: Loop, normalizing: list[Any], batches: int | None) -> None:
    """Let layers see the training data once, and keep the plain mean of what they saw.

    A step that cannot be made without gradients leaves them as they were, which is told.
    """
    import torch

    from trainbus.devices import generators
    from trainbus.engine.snapshot import same_modes

    loader = run.position.loader
    drawn, random = generators.states_of(loader), run.accelerator.random_state()
    momenta = [each.momentum for each in normalizing]
    before = [{n: b.clone() for n, b in each.named_buffers()} for each in normalizing]
    mark, was = run.mark_log(), run.batch
    try:
        with same_modes(run.model), torch.no_grad():
            for each in normalizing:
                each.reset_running_stats()
                each.momentum = None
                each.train()
            for batch in islice(iter(loader), batches):
                run.batch = batch
                run.batch = run.bus.place_batch(run)
                run.bus.training_step(run)
    except Exception as error:
        for each, buffers in zip(normalizing, before, strict=True):
            for name, buffer in each.named_buffers():
                buffer.copy_(buffers[name])
        logger.warning(
            "swa: the statistics of batch normalization are those of training, not of the averaged "
            "weights: a step without gradients raised %s: %s", type(error).__name__, error,
        )  # fmt: skip
    finally:
        for each, momentum in zip(normalizing, momenta, strict=True):
            each.momentum = momentum
        run.retract_log(mark)
        run.batch = was
        run.accelerator.set_random_state(random)
        generators.put_back(loader, drawn)

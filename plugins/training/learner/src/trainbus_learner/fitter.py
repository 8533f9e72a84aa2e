"""Fitter: what a learner is made of, and the verbs that train."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Optimizer

from trainbus import Trainer, UsageError
from trainbus.builtin.schedule import Schedule
from trainbus_learner import choices
from trainbus_learner.groups import Groups, ParameterGroups, Rates, default_optimizer
from trainbus_learner.metrics import Metrics, chosen
from trainbus_learner.phases import Cycle, Cycles, Plan
from trainbus_learner.sources import Loss, Source
from trainbus_learner.task import LearnerTask, name_of

if TYPE_CHECKING:
    from trainbus import Run


class Fitter:
    """What a learner is made of, and the verbs that train. See `Learner`."""

    def __init__(
        self,
        data: Any,
        model: nn.Module,
        *,
        loss: Loss | None = None,
        metrics: Metrics | None = None,
        optimizer: Callable[..., Optimizer] | None = None,
        lr: Rates | None = None,
        groups: Groups | None = None,
        pretrained: bool = False,
        model_description: Mapping[str, Any] | None = None,
        plugins: Sequence[str | object] = (),
        seed: int | None = None,
        precision: str | None = None,
        accelerator: Any = "auto",
        run_dir: str | Path = "runs",
        **trainer: Any,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise UsageError(f"Learner(model={model!r:.60}): give a torch.nn.Module")
        if isinstance(plugins, str):
            raise UsageError(f"Learner(plugins={plugins!r}): give a list, [{plugins!r}]")
        choices.check_options(trainer, inspect.signature(Fitter).parameters)
        self.source = Source(data, loss)
        self.model = model
        self.loss: Loss = loss if loss is not None else self.source.target.loss()
        self.metrics, why = chosen(metrics, self.source.target)
        self.groups = ParameterGroups(model, groups)
        self.pretrained = pretrained
        self.model_description = model_description
        self.plugins: list[str | object] = [*plugins]
        self.lr, lr_why = choices.rate(lr, optimizer)
        self._lr_given = self.lr if lr_why != choices.USUAL else None
        self.groups.rates(self.lr)
        if optimizer is not None and (not callable(optimizer) or isinstance(optimizer, nn.Module)):
            raise UsageError(
                f"Learner(optimizer={type(optimizer).__name__}): give what makes an optimizer of "
                "groups of parameters: torch.optim.SGD, or functools.partial(torch.optim.SGD, "
                "momentum=0.9)"
            )
        self.optimizer_factory = optimizer
        self.options = {
            "seed": seed, "precision": precision, "accelerator": accelerator, "run_dir": run_dir,
            **trainer,
        }  # fmt: skip
        # A loss that was given may want other outputs than the block of the target does.
        check = loss is None or self.source.data is None
        self.task = LearnerTask(
            model, self.source, self.loss, self.metrics, self._make_optimizer, check
        )
        self._rates = self.groups.rates(self.lr)
        #: The newest run.
        self.run: Run | None = None
        target = type(self.source.target).__name__
        #: What was chosen, and why, by topic.
        loss_why = "given" if loss is not None else f"that of {target}"
        self.choices = {
            "loss": f"{name_of(self.loss)} ({loss_why})",
            "metrics": f"{', '.join(self.metrics) or 'none'} ({why})",
            "learning rate": f"{choices.shown(self.lr)} ({lr_why})",
            "optimizer": "given" if optimizer else choices.OPTIMIZER,
            **self._about_batches(),
        }
        if optimizer is not None:
            self.choices["optimizer"] = f"{name_of(optimizer)} (given)"

    @property
    def data(self) -> Any:
        """The `Data`, or None with plain loaders."""
        return self.source.data

    @property
    def device(self) -> torch.device:
        """Where the model is: after the first fit, on the device of the trainer."""
        first = next(self.model.parameters(), None)
        return torch.device("cpu") if first is None else first.device

    # --- training ------------------------------------------------------------------------------

    def fit(self, epochs: int, lr: Rates | None = None, *, resume: str | Path | None = None) -> Run:
        """Train with the same learning rates from begin to end.

        A plugin may change them: `plugins=["schedule"]` with its options.

        Args:
            epochs: passes over the training data.
            lr: a number, a pair (lowest, highest) over the groups, or a list.
            resume: continue a run that was interrupted, as in `Trainer.fit`: "auto", or a path.
                It switches `checkpoint` on, if it is not.

        Returns:
            The finished run.
        """
        rates = self.groups.rates(self.lr if lr is None else lr)
        return self._train(
            epochs, rates, {"schedule": f"{choices.each_rate(rates)} throughout"}, [], resume
        )

    def fit_one_cycle(
        self,
        epochs: int,
        lr: Rates | None = None,
        *,
        warmup: float = 0.25,
        div: float = 25.0,
        final_div: float = 1e5,
        momentum: tuple[float, float, float] | None = (0.95, 0.85, 0.95),
        resume: str | Path | None = None,
    ) -> Run:
        """Train with learning rates that go up and down once (Smith and Topin, 2017).

        Args:
            epochs: passes over the training data.
            lr: the highest: a number, a pair (lowest, highest) over the groups, or a list.
            warmup: the part of the run in which they rise.
            div: the highest learning rate divided by the first.
            final_div: the highest learning rate divided by the last.
            momentum: at the start, at the highest learning rate and at the end; None for constant.
            resume: as in `fit`.
        """
        self._refuse_second_schedule("fit_one_cycle")
        rates = self.groups.rates(self.lr if lr is None else lr)
        schedule = Schedule(
            name="one_cycle", warmup=warmup, div=div, final_div=final_div, momentum=momentum
        )
        header = {"schedule": f"one cycle, at most {choices.each_rate(rates)}"}
        return self._train(epochs, rates, header, [schedule], resume)

    def fine_tune(
        self,
        epochs: int,
        lr: float | None = None,
        *,
        frozen_epochs: int = 1,
        spread: float = 100.0,
        warmup: float = 0.3,
        div: float = 5.0,
        resume: str | Path | None = None,
    ) -> Run:
        """Train the head of a pretrained model alone, and then all of it, in one run.

        With the body frozen, one cycle at `lr`, which rises nearly to the end; then all groups,
        one cycle at half of it for the head and `spread` times less for the first group. That is
        the rule of fastai, after Howard and Ruder (2018). A model with nothing pretrained gets one
        cycle over `epochs` with all of it, and the header says so.

        Args:
            epochs: passes with all of the model.
            lr: of the head at first.
            frozen_epochs: passes with the head alone.
            spread: the learning rate of the head divided by that of the first group.
            warmup: the part of the second cycle in which the learning rates rise.
            div: the highest learning rates of the second cycle divided by the first.
            resume: as in `fit`; it goes on in the cycle where the run was.
        """
        self._refuse_second_schedule("fine_tune")
        for name, value in (("epochs", epochs), ("frozen_epochs", frozen_epochs)):
            if not isinstance(value, int) or value < (name == "epochs"):
                raise UsageError(f"fine_tune({name}={value!r}): give a whole number of epochs")
        if not self.pretrained or len(self.groups) < 2:
            why = "nothing is pretrained" if not self.pretrained else "there is one group"
            rates = self.groups.rates(self.lr if lr is None else lr)
            header = {
                "schedule": f"one cycle, at most {choices.each_rate(rates)}",
                "fine_tune": f"{why}: one cycle with all of the model, nothing is frozen",
            }
            return self._train(epochs, rates, header, [Schedule(name="one_cycle")], resume)
        base = lr if lr is not None else self._lr_given or choices.FINE_TUNE_LR
        if not isinstance(base, (int, float)):
            raise UsageError(f"fine_tune(lr={base!r}): give one number, that of the head")
        alone = [base / 10] * (len(self.groups) - 1) + [base]
        together = self.groups.rates((base / 2 / spread, base / 2))
        cycles = [Cycle(frozen_epochs, alone, 0.99, 25.0)] if frozen_epochs else []
        cycles.append(Cycle(epochs, together, warmup, div))
        header = {
            "schedule": "fine-tuning, two cycles" if frozen_epochs else "one cycle",
            "fine_tune": f"{frozen_epochs} epochs with the head alone at {base:g}, {epochs} with "
            f"all groups at {choices.each_rate(together)}",
        }
        before = self.groups.frozen_to
        done = False
        try:
            self.freeze() if frozen_epochs else self.unfreeze()
            run = self._fine_tune(cycles, frozen_epochs, header, resume)
            done = True
        finally:
            self.groups.freeze_to(0 if done else before)
        return run

    def _fine_tune(
        self,
        cycles: list[Cycle],
        frozen_epochs: int,
        header: dict[str, str],
        resume: str | Path | None,
    ) -> Run:
        plan = Plan({**self._told(), **header}, frozen_epochs, self.unfreeze)
        names = self.groups.names

        def schedule(optimizer: Optimizer) -> Cycles:
            groups = [names.index(group["name"]) for group in optimizer.param_groups]
            return Cycles(optimizer, cycles, plan.steps_per_epoch, groups)

        epochs = sum(cycle.epochs for cycle in cycles)
        rates = list(cycles[-1].rates)
        return self._train(epochs, rates, header, [Schedule(make=schedule)], resume, plan)

    def _train(
        self,
        epochs: int,
        rates: list[float],
        header: dict[str, str],
        plugins: list[Any],
        resume: str | Path | None,
        plan: Plan | None = None,
    ) -> Run:
        defaults: list[str | object] = ["progress"] if choices.installed("progress") else []
        if resume is not None:
            defaults.append("checkpoint")
        plan = plan or Plan({**self._told(), **header})
        trainer = Trainer(
            epochs=epochs,
            plugins=[*defaults, *self.all_plugins(), *plugins, plan],
            **self.options,
        )
        self._rates = rates
        self.task.hparams = {"epochs": epochs, "lr": rates, **self._told(), **header}
        self.run = trainer.fit(self.task, self.source.train, self.source.valid, resume=resume)
        return self.run

    def _told(self) -> dict[str, str]:
        """What a run's header says; its learning rates are in its schedule."""
        return {topic: text for topic, text in self.choices.items() if topic != "learning rate"}

    def all_plugins(self) -> list[str | object]:
        """Those that were given, and that of the data where there are batch transforms."""
        named = any(each == "data" or type(each).__name__ == "DataPlugin" for each in self.plugins)
        if not self.source.batch_transforms or named:
            return self.plugins
        from trainbus_data import DataPlugin

        return [DataPlugin(), *self.plugins]

    def _make_optimizer(self) -> Optimizer:
        make = self.optimizer_factory or default_optimizer(self.model.parameters())
        return make(self.groups.optimizer_groups(self._rates))

    def _refuse_second_schedule(self, verb: str) -> None:
        if any(isinstance(each, Schedule) for each in self.plugins):
            raise UsageError(
                f"{verb} brings its own schedule, and plugins= has another one; use fit, or leave "
                "that out"
            )

    # --- what is trained, and how fast ---------------------------------------------------------

    def freeze(self) -> None:
        """Train the last group of parameters alone, and the norms of the others."""
        self.groups.freeze_to(-1)

    def freeze_to(self, n: int) -> None:
        """Freeze the groups before `n` (from the end, if it is below 0), but their norms."""
        self.groups.freeze_to(n)

    def unfreeze(self) -> None:
        """Train all groups; what was frozen before the learner was made stays so."""
        self.groups.freeze_to(0)

    def _about_batches(self) -> dict[str, str]:
        size = getattr(self.source.train, "batch_size", None)
        if self.data is not None:
            size = getattr(self.data, "batch_size", size)
        return {} if size is None else {"batch size": f"{size} (that of the data)"}

"""Fitter: what a learner is made of, and the verbs that train."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Optimizer

from trainbus import Trainer, UsageError, make_optimizer
from trainbus.arguments import check_whole
from trainbus.builtin.schedule import Schedule
from trainbus.plugins.selection import name_of as name_of_plugin
from trainbus_data.balance import Balance
from trainbus_data.words import names_checked
from trainbus_learner import defaults, losses, weights as own_weights
from trainbus_learner.attributes import Attributes
from trainbus_learner.description import labels_of
from trainbus_learner.fine_tuning import Cycle, Cycles, Plan
from trainbus_learner.groups import Groups, ParameterGroups, Rates, default_optimizer
from trainbus_learner.learning_data import Loss, Source
from trainbus_learner.metrics import Metrics, chosen
from trainbus_learner.task import LearnerTask, name_of
from trainbus_learner.weights import Taken

if TYPE_CHECKING:
    from trainbus import Run


class Fitter(Attributes):
    """What a learner is made of, and the verbs that train. See `Learner`."""

    #: What computes a step.
    _task_class: type[LearnerTask] = LearnerTask

    def __init__(
        self,
        data: Any,
        model: nn.Module,
        *,
        loss: Loss | str | None = None,
        class_weights: Balance | None = None,
        metrics: Metrics | None = None,
        optimizer: Callable[..., Optimizer] | str | None = None,
        lr: Rates | None = None,
        groups: Groups | None = None,
        pretrained: bool = False,
        weights: str | Path | None = None,
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
        defaults.check_options(trainer, inspect.signature(Fitter).parameters)
        self.source = Source(data, loss)
        self._class_weights = class_weights
        self.model = model
        self._given_loss, self._given_metrics = loss, metrics
        self.groups = ParameterGroups(model, groups)
        self.pretrained = pretrained
        self.model_description = model_description
        self.plugins: list[str | object] = [*plugins]
        self._lr, lr_why = defaults.rate(lr, optimizer)
        self._lr_given = self._lr if lr_why != defaults.USUAL else None
        self.groups.rates(self._lr)
        defaults.check_optimizer(optimizer)
        self.optimizer_factory = optimizer
        self.options = {
            "seed": seed, "precision": precision, "accelerator": accelerator, "run_dir": run_dir,
            **trainer,
        }  # fmt: skip
        self.task = self._task_class(model, self.source, self._make_optimizer)
        self._rates = self.groups.rates(self.lr)
        #: The newest run.
        self.run: Run | None = None
        self._seconds = 0.0
        #: What was chosen, and why, by topic.
        self.choices: dict[str, str] = {}
        self._choose_measures()
        self.choices |= {
            "learning rate": f"{defaults.written(self.lr)} ({lr_why})",
            "optimizer": f"{name_of(optimizer)} (given)" if optimizer else defaults.OPTIMIZER,
            **self._about_batches(),
        }
        self.task.run_name = defaults.title(type(model).__name__, self.source.data)
        if weights is not None:
            self.load_weights(weights)
        self._is_made = True

    def _choose_measures(self) -> None:
        """The loss and the metrics: those that were given, or those of the target."""
        target, given = self.source.target, self._given_loss
        # A loss that was given may want other outputs than the block of the target does.
        check = given is None or self.source.data is None
        made, why = losses.chosen(given, self._class_weights, target, self.source.data)
        loss = target.loss() if made is None else made
        why = why or f"usual for {type(target).__name__}"
        metrics, metrics_why = chosen(self._given_metrics, target, loss)
        self.task.measure(loss, metrics, check)
        self.choices["loss"] = f"{name_of(loss)} ({why})"
        self.choices["metrics"] = f"{', '.join(metrics) or 'none'} ({metrics_why})"

    @property
    def lr(self) -> Rates:
        """The learning rate of a fit that is given none; another one may be set."""
        return self._lr

    @lr.setter
    def lr(self, lr: Rates) -> None:
        self.groups.rates(lr)  # it refuses what is none
        self._lr = self._lr_given = lr
        self.choices["learning rate"] = f"{defaults.written(lr)} (given)"

    @property
    def loss(self) -> Loss:
        """The loss, a function of (output, target); another one may be set."""
        return self.task.loss

    @loss.setter
    def loss(self, loss: Loss | str) -> None:
        if not callable(loss) and not isinstance(loss, str):
            raise UsageError(
                f"learner.loss = {loss!r:.60}: give a function of (output, target), or a name"
            )
        losses.chosen(loss, self._class_weights, self.source.target, self.source.data)
        self._given_loss = loss
        self._choose_measures()

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics by name; others may be set, as they are given to the learner."""
        return self.task.metrics

    @metrics.setter
    def metrics(self, metrics: Metrics) -> None:
        self._given_metrics = metrics
        self._choose_measures()

    @property
    def data(self) -> Any:
        """The `Data`, or None with plain loaders; others with equal blocks may be set.

        Their images may have another size.
        """
        return self.source.data

    @data.setter
    def data(self, data: Any) -> None:
        source = Source(data, self._given_loss)
        if source.data is None or self.data is None:
            raise UsageError(
                "learner.data = ...: a Data takes the place of a Data; with loaders make a new "
                "learner on learner.model"
            )
        if source.kinds != self.source.kinds:
            raise UsageError(
                f"learner.data = ...: an item is {', '.join(source.kinds)}, but the model was made "
                f"for {', '.join(self.source.kinds)}"
            )
        for new, old in zip(source.recipe.blocks, self.source.recipe.blocks, strict=False):
            if (given := new.state() | {"size": None}) != (had := old.state() | {"size": None}):
                wrong = next(name for name in given if given[name] != had.get(name))
                raise UsageError(
                    f"learner.data = ...: the block {new!r:.80} has {wrong}={given[wrong]!r:.60}, "
                    f"but the model was made for {had.get(wrong)!r:.60}"
                )
        self.source = source
        self.task.learn_from(source)
        self._choose_measures()
        self.choices |= self._about_batches() | self._about_data()

    def _about_data(self) -> dict[str, str]:
        """What is said of other data that were set."""
        return {}

    @property
    def seconds(self) -> float:
        """How long all fits of this learner took together."""
        return self._seconds

    @property
    def device(self) -> torch.device:
        """Where the model is: after the first fit, on the device of the trainer."""
        first = next(self.model.parameters(), None)
        return torch.device("cpu") if first is None else first.device

    # --- weights -------------------------------------------------------------------------------

    def load_weights(self, path: str | Path) -> Taken:
        """Go on from weights of an earlier training: the body has to fit, the head may be new.

        The head is the last group of parameters, or the last layer where there is one group. Of
        weights that know other classes (an export says which) the last layer is new. Nothing that
        the file holds is executed, and the optimizer begins anew.

        Args:
            path: a directory of `export`; a file of `save`, of `torch.save(model.state_dict())` or
                safetensors; a checkpoint, or the directory of a run that kept some.

        Returns:
            What was taken and what is new, to be printed.

        Raises:
            UsageError: they are of another architecture, or no weights; the model is as it was.
        """
        taken = self._taken_from(own_weights.read(path))
        self._begin_from(taken)
        return taken

    def _taken_from(self, found: own_weights.Found) -> Taken:
        return own_weights.take(
            self.model,
            found,
            own_weights.body_of(self.model, self.groups.groups),
            own_weights.last_layer(self.model),
            labels_of(self.source.target),
        )

    def _begin_from(self, taken: Taken) -> None:
        """The model knows something now."""
        self.pretrained = True
        self.choices["weights"] = str(taken)

    # --- training ------------------------------------------------------------------------------

    @names_checked()
    def fit(self, epochs: int, lr: Rates | None = None, *, resume: str | Path | None = None) -> Run:
        """Train with the same learning rates from the beginning to the end.

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
        return self._train(epochs, rates, f"{defaults.each_rate(rates)} throughout", [], resume)

    @names_checked()
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
        said = f"one cycle, at most {defaults.each_rate(rates)}"
        return self._train(epochs, rates, said, [schedule], resume)

    @names_checked()
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
            spread: how much faster the head learns than the first group.
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
            said = f"one cycle, at most {defaults.each_rate(rates)}, nothing is frozen: {why}"
            return self._train(epochs, rates, said, [Schedule(name="one_cycle")], resume)
        base = lr if lr is not None else self._lr_given or defaults.FINE_TUNE_LR
        if not isinstance(base, (int, float)):
            raise UsageError(f"fine_tune(lr={base!r}): give one number, for the head")
        alone = [base / 10] * (len(self.groups) - 1) + [base]
        together = self.groups.rates((base / 2 / spread, base / 2))
        cycles = [Cycle(frozen_epochs, alone, 0.99, 25.0)] if frozen_epochs else []
        cycles.append(Cycle(epochs, together, warmup, div))
        said = f"{epochs} epochs with all groups at {defaults.each_rate(together)}"
        said = f"one cycle, {said}"
        if frozen_epochs:
            alone_at = f"{frozen_epochs} epochs with the head alone at {base:g}"
            said = f"two cycles, {alone_at}, {said.removeprefix('one cycle, ')}"
        before = self.groups.frozen_to
        done = False
        try:
            self.freeze() if frozen_epochs else self.unfreeze()
            run = self._fine_tune(cycles, frozen_epochs, said, resume)
            done = True
        finally:
            self.groups.freeze_to(0 if done else before)
        return run

    def _fine_tune(
        self,
        cycles: list[Cycle],
        frozen_epochs: int,
        said: str,
        resume: str | Path | None,
    ) -> Run:
        plan = Plan(self._header(said), frozen_epochs, self.unfreeze)

        def schedule(optimizer: Optimizer) -> Cycles:
            return Cycles(optimizer, cycles, plan.steps_per_epoch, self.groups.places())

        epochs = sum(cycle.epochs for cycle in cycles)
        rates = list(cycles[-1].rates)
        return self._train(epochs, rates, said, [Schedule(make=schedule)], resume, plan)

    def _train(
        self,
        epochs: int,
        rates: list[float],
        said: str,
        plugins: list[Any],
        resume: str | Path | None,
        plan: Plan | None = None,
    ) -> Run:
        check_whole(1, UsageError, "fit", epochs=epochs)
        usual: list[str | object] = ["progress"] if defaults.installed("progress") else []
        if resume is not None:
            usual.append("checkpoint")
        if not self.pretrained:
            defaults.say_if_few_steps(self.model, self.source.train, epochs)
        plan = plan or Plan(self._header(said))
        trainer = Trainer(
            epochs=epochs,
            plugins=[*usual, *self.all_plugins(), *plugins, plan],
            **self.options,
        )
        self._rates = rates
        # The learning rate that was chosen is for fits that are given none: the schedule has it.
        chosen = {topic: text for topic, text in self.choices.items() if topic != "learning rate"}
        self.task.hparams = {**chosen, "epochs": epochs, "lr": rates, "schedule": said}
        begun = time.perf_counter()
        self.run = trainer.fit(self.task, self.source.train, self.source.valid, resume=resume)
        self._seconds += time.perf_counter() - begun
        return self.run

    def _header(self, schedule: str) -> dict[str, str]:
        """The header of a run, in few lines; `summary` has all that was chosen."""
        optimizer = name_of(self.optimizer_factory) if self.optimizer_factory else defaults.NAME
        metrics = ", ".join(self.metrics) or "none"
        by_rule = getattr(self.data, "batch_size_by_rule", False)
        return {
            "loss": f"{self.choices['loss']}; metrics: {metrics}",
            **({"batch size": self.choices["batch size"]} if by_rule else {}),
            "schedule": f"{optimizer}, {schedule}",
        }

    def all_plugins(self) -> list[str | object]:
        """Those that were given, and `data` where the data have batch transforms."""
        if not self.source.batch_transforms or "data" in map(name_of_plugin, self.plugins):
            return self.plugins
        from trainbus_data import DataPlugin

        return [DataPlugin(), *self.plugins]

    def _make_optimizer(self, _parameters: Iterable[nn.Parameter]) -> Optimizer:
        make = self.optimizer_factory or default_optimizer(self.model.parameters())
        return make_optimizer(make, self.model, self.groups.optimizer_groups(self._rates))

    def _refuse_second_schedule(self, verb: str) -> None:
        if any(isinstance(each, Schedule) for each in self.plugins):
            raise UsageError(
                f"{verb} brings its own schedule, and plugins= has another one; use fit, or leave "
                "the other one out"
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
        if size is None:
            return {}
        if not getattr(self.data, "batch_size_by_rule", False):
            return {"batch size": f"{size} (from the data)"}
        count = len(self.data.train_items)
        why = f"for {count:,} items: {len(self.source.train):,} steps an epoch"
        return {"batch size": f"{size} ({why})"}

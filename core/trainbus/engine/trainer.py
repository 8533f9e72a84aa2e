"""Trainer: the engineering. The verbs: fit, validate, test, predict, and a loop of one's own."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from trainbus import batches
from trainbus.bus import Bus
from trainbus.checkpoints import resume as resuming
from trainbus.checkpoints.weights import load_weights
from trainbus.engine.functions import hook_named, listen
from trainbus.engine.lifetime import Lifetime
from trainbus.engine.loop import Loop
from trainbus.engine.predictions import Predictions
from trainbus.engine.run import Run, Stage
from trainbus.engine.snapshot import modes, set_modes
from trainbus.engine.task import ByHand, Optimizers, Task
from trainbus.engine.validations import Validations
from trainbus.errors import Control, UsageError
from trainbus.loaders import Loaders

logger = logging.getLogger("trainbus")
Listener = TypeVar("Listener", bound=Callable[..., Any])


class Trainer(Lifetime):
    """Runs tasks, with the plugins that are named.

    Args:
        epochs: passes over the training data; without any limit given, one.
        max_steps: optimizer steps after which training is complete.
        max_time: seconds, or a `timedelta`, after which training is complete.
        plugins: names of installed plugins, `"./file.py"`, `"package.module:Class"`, plugin
            objects, and `"-name"` to switch one off.
        accelerator: "auto", the name of an accelerator, or an `Accelerator`.
        devices: "auto", 1, or a list with the index of the one device to use.
        precision: a name that a precision plugin knows; None leaves the model as it is.
        seed: seeds Python, NumPy and torch when a run starts.
        deterministic: use deterministic algorithms while a run lasts, or fail where there is none.
        accumulate: batches whose gradients make one optimizer step.
        clip_norm: limit of the norm of the gradients of each optimizer (the plugin `clip`).
        validate_every: epochs between validations, a fraction of an epoch below 1, or a text:
            "500 steps" (of the optimizer, counted across epochs), "30 min".
        limit_batches: use so many batches of each loader, or a fraction of them; or by stage:
            `{"train": 100, "valid": 0.5}`.
        min_epochs, min_steps: before them nobody stops a run, but a signal or a limit.
        validate_first: validate before the first step, too.
        sanity_batches: before the first step, try so many batches of validation: a mistake in
            `validation_step` shows at once. Nothing of them is recorded.
        log_every: optimizer steps between recorded training metrics.
        run_dir: the directory that gets one directory for each run.
        dry_run: run so many batches of everything, with loggers and checkpoints off.
        overfit: train, and validate, on the same first batches in every epoch.
    """

    def __getstate__(self) -> Any:
        raise UsageError(
            "a trainer cannot be copied or pickled: it holds a bus and the plugins of runs; make "
            "another one of the same arguments"
        )

    # --- functions as plugins ------------------------------------------------------------------

    def on(self, event: str, **options: Any) -> Callable[[Listener], Listener]:
        """Make a function a listener: `@trainer.on("train_batch_end", every=50)`.

        Args:
            event: a hook, with or without its `on_`.
            options: those of `@hookimpl`.
        """
        hook_named(self.bus, event)

        def register(function: Listener) -> Listener:
            listen(self.bus, event, function, **options)
            return function

        return register

    # --- the verbs -----------------------------------------------------------------------------

    def fit(
        self,
        task: Task,
        train: Iterable[Any],
        valid: Iterable[Any] | None = None,
        resume: str | Path | None = None,
        load: Literal["best"] | None = None,
    ) -> Run:
        """Train a task.

        For each epoch: for each training batch `training_step`, backward and, when a window of
        batches is complete, the optimizers; then the validation batches, as often as
        `validate_every` says. Ends with the epochs, steps or time that were asked for.

        Args:
            task: what to train.
            train: any iterable of batches, or several by name, read side by side (`Loaders`).
            valid: any iterable of batches to validate on, or several, or None.
            resume: a checkpoint to continue from; "auto" for the newest undamaged one of the
                newest run in `run_dir`, or a new run if there is none; "best" for its best.
            load: "best" leaves the task with the weights of the best checkpoint, not the last.

        Returns:
            The finished run: its metrics, counters, directory and status.
        """
        bus = self.bus
        _check_load(load, bus)
        with self.running(task, "train", resume) as run:
            train, valid = run.peers.deal(Loaders.of(train), "train"), Loaders.of(valid)
            run.plan(train, self.epochs)
            self.prepare(run, with_optimizers=True)
            if self.overfit is not None:
                train = list(islice(train, self.overfit))
                train = train if run.world_size == 1 else batches.OfThisProcess(train)
                valid = None if valid is None else train
            validations = Validations(run, train, valid, self._evaluate)
            run.enter("fit")
            if run.resume_path is not None:
                run.load_checkpoint(run.resume_path)
            validations.begin()
            for _ in run.epochs(self.epochs):
                for _ in run.training_batches(train, validations.catch_up):
                    try:
                        loss = bus.training_step(run)
                    except Control as control:
                        run.leave_batch(control)
                    else:
                        run.step(loss)
                        loss = None  # what it holds is not kept until the next one is there
                    if validations.inside and validations.is_due():
                        validations.make()
                validations.end_epoch()
        if load is not None and not run.dry_run:
            run.load_weights(resuming.best(run.dir / "checkpoints"))
        return run

    def validate(
        self, task: Task, loader: Iterable[Any], weights: str | Path | None = None
    ) -> dict[str, float]:
        """Evaluate a task with its `validation_step`; returns the means, as `valid/...`.

        Args:
            task: what is evaluated.
            loader: any iterable of batches, or several by name, one after the other.
            weights: put into the task before: those of a path, or "best" or "last" of the newest
                run of this task in `run_dir`.
        """
        return self._evaluate_alone(task, loader, "valid", weights)

    def test(
        self, task: Task, loader: Iterable[Any], weights: str | Path | None = None
    ) -> dict[str, float]:
        """Evaluate a task with its `test_step`, as `validate`; returns the means, as `test/...`."""
        return self._evaluate_alone(task, loader, "test", weights)

    def predict(
        self, task: nn.Module, loader: Iterable[Any], weights: str | Path | None = None
    ) -> Iterator[Any]:
        """Yield the predictions of each batch, in order; a batch is read when it is asked for.

        Of several loaders, each with the name of its loader: `(name, predictions)`.
        """
        if isinstance(task, nn.Module) and not isinstance(task, Task):
            task = Task.supervised(task)
        self._load(task, weights)
        return Predictions(self._predictions(task, loader), self.wait_for)

    def _predictions(self, task: nn.Module, loader: Iterable[Any]) -> Generator[Any, None, None]:
        gradients = torch.is_grad_enabled()
        with self.running(task, "predict") as run:
            self.prepare(run)
            found, several = modes(run.model), isinstance(loader := Loaders.of(loader), Loaders)
            for output in run.evaluation_batches(loader, "predict", _predict_step):
                evaluating = set_modes(found)
                with torch.set_grad_enabled(gradients):  # the consumer's code runs here
                    yield (run.loader_name, output) if several else output
                found = set_modes(evaluating)

    @contextmanager
    def open(
        self,
        model: nn.Module,
        optimizer: Optimizers | None = None,
        resume: str | Path | None = None,
    ) -> Iterator[Run]:
        """Run your own loop, with every plugin: see `Run.batches` and `Run.step`.

        Args:
            model: what is trained; placed on the device, in place.
            optimizer: one or several; those of the task when `model` is a `Task`.
            resume: as in `fit`: the loop goes on where `run.epochs` and `run.batches` stood.
        """
        if not isinstance(model, nn.Module):
            raise UsageError(f"trainer.open({model!r:.80}): give a torch.nn.Module")
        task = model if isinstance(model, Task) else ByHand(model)
        with self.running(task, "train", resume) as run:
            self.prepare(run, isinstance(model, Task) and optimizer is None, optimizer)
            run.enter("fit")
            if run.resume_path is not None:
                run.load_checkpoint(run.resume_path)
            try:
                yield run
            except BaseException as error:
                run.abandon(error)
                raise
            run.abandon()

    def _evaluate(self, run: Loop, loader: Iterable[Any], stage: Stage) -> None:
        # Read to the end, and nothing kept: the output of a batch is gone before the next.
        deque(run.evaluation_batches(loader, stage, _validation_step), maxlen=0)

    def _load(self, task: nn.Module, weights: str | Path | None) -> None:
        """Put weights into a task that is to be evaluated."""
        if weights is None or not isinstance(task, Task):
            return
        if weights in ("best", "last"):
            weights = resuming.newest(Path(self.run_dir).absolute(), str(weights), task.run_name)
        load_weights(task, weights)

    def _evaluate_alone(
        self, task: Task, loader: Iterable[Any], stage: Stage, weights: str | Path | None
    ) -> dict[str, float]:
        self._load(task, weights)
        with self.running(task, stage) as run:
            self.prepare(run)
            self._evaluate(run, loader, stage)
        prefix = f"{stage}/"
        return {name: value for name, value in run.metrics.items() if name.startswith(prefix)}


def _check_load(load: object, bus: Bus) -> None:
    if load not in (None, "best"):
        raise UsageError(f"fit(load={load!r:.80}): give 'best', or leave it out")
    if load and not any(getattr(each, "keeps_best", False) for each in bus.plugins.values()):
        raise UsageError(
            "fit(load='best'): no plugin keeps a best checkpoint; name one that does, "
            "Checkpoint('valid/loss') for example"
        )


def _validation_step(run: Run) -> Any:
    return run.bus.validation_step(run)  # looked up in each batch: plugins come and go


def _predict_step(run: Run) -> Any:
    return run.bus.predict_step(run)

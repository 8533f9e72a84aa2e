"""Trainer: the engineering. Which plugins, which device, for how long; and the loops."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import torch
from torch import nn

from trainbus.batches import Limited, describe, size
from trainbus.bus import Bus
from trainbus.checkpoints import resume as run_dirs
from trainbus.devices import accelerator as accelerators
from trainbus.devices import random_state
from trainbus.devices.accelerator import Accelerator, Boundaries
from trainbus.engine.defaults import Actions
from trainbus.engine.functions import hook_named, listen
from trainbus.engine.interrupts import deferred
from trainbus.engine.loop import Stage
from trainbus.engine.run import Run
from trainbus.engine.task import ByHand, Optimizers, Task
from trainbus.errors import Control, UsageError
from trainbus.events.checks import listens
from trainbus.events.plugin import Plugin
from trainbus.plugins import loading
from trainbus.storage.lock import Hold

logger = logging.getLogger("trainbus")
Listener = TypeVar("Listener", bound=Callable[..., Any])


class Trainer:
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
        validate_every: epochs between validations, or a fraction of an epoch below 1.
        limit_batches: use so many batches of each loader, or a fraction of them.
        log_every: optimizer steps between recorded training metrics.
        run_dir: the directory that gets one directory for each run.
        dry_run: run so many batches of everything, with loggers and checkpoints off.
        overfit: train, and validate, on the same first batches in every epoch.
    """

    def __init__(
        self,
        *,
        epochs: int | None = None,
        max_steps: int | None = None,
        max_time: float | timedelta | None = None,
        plugins: Sequence[str | object] = (),
        accelerator: str | Accelerator = "auto",
        devices: int | str | Sequence[int] = "auto",
        precision: str | None = None,
        seed: int | None = None,
        deterministic: bool = False,
        accumulate: int = 1,
        clip_norm: float | None = None,
        validate_every: int | float = 1,
        limit_batches: int | float | None = None,
        log_every: int = 1,
        run_dir: str | Path = "runs",
        dry_run: int | None = None,
        overfit: int | None = None,
    ) -> None:
        counts = {
            "epochs": epochs,
            "max_steps": max_steps,
            "accumulate": accumulate,
            "log_every": log_every,
            "dry_run": dry_run,
            "overfit": overfit,
        }
        for name, count in counts.items():
            right = count is None or (_whole(count) and count >= 1)
            _require(right, name, count, "a whole number, at least 1")
        _require(seed is None or _whole(seed), "seed", seed, "a whole number")
        if isinstance(max_time, timedelta):
            max_time = max_time.total_seconds()
        amounts = {
            "max_time": max_time,
            "clip_norm": clip_norm,
            "limit_batches": limit_batches,
            "validate_every": validate_every,
        }
        for name, amount in amounts.items():
            right = amount is None or (isinstance(amount, (int, float)) and amount > 0)
            _require(right, name, amount, "a number greater than 0")
        what = "whole epochs, or a fraction below 1"
        _require(
            validate_every < 1 or _whole(validate_every), "validate_every", validate_every, what
        )
        right = limit_batches is None or limit_batches <= 1 or _whole(limit_batches)
        _require(right, "limit_batches", limit_batches, "a whole number, or a fraction up to 1")
        if epochs is max_steps is max_time is None or dry_run is not None:
            epochs = 1
        self.epochs = epochs
        self.max_steps = max_steps
        self.max_time = max_time
        self.precision = precision
        self.seed = seed
        self.deterministic = deterministic
        self.accumulate = accumulate
        self.validate_every = validate_every
        self.limit_batches = limit_batches if dry_run is None else dry_run
        self.log_every = log_every
        self.run_dir = Path(run_dir).expanduser()
        self.dry_run = dry_run
        self.overfit = overfit
        self.accelerator = accelerator
        self.devices = devices
        self.bus = Bus()
        builtin = [Plugin("core", Actions(), core=True)]
        if clip_norm is not None:
            from trainbus.builtin.clip import Clip

            builtin.append(Plugin("clip", Clip(clip_norm), "Trainer(clip_norm=...)"))
        self.bus.register_all(builtin)
        #: What was loaded and why, for the header, the manifest and `trainbus plugins`.
        self.loaded = loading.register(self.bus, loading.load(plugins))
        self._running_now = False
        self._unfreed: list[Path] = []

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
    ) -> Run:
        """Train a task.

        For each epoch: for each training batch `training_step`, backward and, when a window of
        batches is complete, the optimizers; then the validation batches, as often as
        `validate_every` says. Ends with the epochs, steps or time that were asked for.

        Args:
            task: what to train.
            train: any iterable of batches.
            valid: any iterable of batches to validate on, or None.
            resume: a checkpoint to continue from; "auto" for the newest undamaged one of the
                newest run in `run_dir`, or a new run if there is none; "best" for its best.

        Returns:
            The finished run: its metrics, counters, directory and status.
        """
        bus = self.bus
        with self._running(task, "train", resume) as run:
            self._prepare(run, with_optimizers=True)
            if self.overfit is not None:
                train = list(islice(train, self.overfit))
                valid = None if valid is None else train
            self._check_validation(run, valid)
            interval = self._validation_interval(run, train, valid)
            run.enter("fit")
            if run.resume_path is not None:
                run.load_checkpoint(run.resume_path)
            # A checkpoint may have been written just before a validation inside an epoch.
            owed = interval is not None and run.owes_validation(interval)
            for epoch in run.epochs(self.epochs):
                for _ in run.training_batches(train):
                    if owed:
                        owed = False
                        self._validate(run, valid)
                    try:
                        loss = bus.training_step(run)
                    except Control as control:
                        run.leave_batch(control)
                    else:
                        run.step(loss)
                    if interval and (run.batch_index + 1) % interval == 0:
                        self._validate(run, valid)
                if interval is None:
                    due = (epoch + 1) % self.validate_every == 0 or run.finished or run.dry_run
                else:  # validated inside the epoch, perhaps at this very batch
                    due = (run.finished or run.dry_run) and (run.batch_index + 1) % interval != 0
                    due, owed = due or owed, False
                if due:
                    self._validate(run, valid)
        return run

    def validate(self, task: Task, loader: Iterable[Any]) -> dict[str, float]:
        """Evaluate a task with its `validation_step`; returns the means, as `valid/...`."""
        return self._evaluate_alone(task, loader, "valid")

    def test(self, task: Task, loader: Iterable[Any]) -> dict[str, float]:
        """Evaluate a task with its `test_step`; returns the means, as `test/...`."""
        return self._evaluate_alone(task, loader, "test")

    def predict(self, task: nn.Module, loader: Iterable[Any]) -> Iterator[Any]:
        """Yield the predictions of each batch, in order; a batch is read when it is asked for."""
        if isinstance(task, nn.Module) and not isinstance(task, Task):
            task = Task.supervised(task)
        return self._predictions(task, loader)

    def _predictions(self, task: nn.Module, loader: Iterable[Any]) -> Iterator[Any]:
        gradients = torch.is_grad_enabled()
        with self._running(task, "predict") as run:
            self._prepare(run)
            for output in run.evaluation_batches(loader, "predict", _predict_step):
                with torch.set_grad_enabled(gradients):  # the consumer's code runs here
                    yield output

    @contextmanager
    def open(self, model: nn.Module, optimizer: Optimizers | None = None) -> Iterator[Run]:
        """Run a loop of one's own, with every plugin: see `Run.batches` and `Run.step`.

        Args:
            model: what is trained; placed on the device, in place.
            optimizer: one or several; those of the task when `model` is a `Task`.
        """
        if not isinstance(model, nn.Module):
            raise UsageError(f"trainer.open({model!r:.80}): give a torch.nn.Module")
        task = model if isinstance(model, Task) else ByHand(model)
        with self._running(task, "train") as run:
            self._prepare(run, isinstance(model, Task) and optimizer is None, optimizer)
            run.enter("fit")
            try:
                yield run
            except BaseException as error:
                run.abandon(error)
                raise
            run.abandon()

    # --- what the verbs share ------------------------------------------------------------------

    @contextmanager
    def _running(
        self, task: nn.Module, stage: Stage, resume: str | Path | None = None
    ) -> Iterator[Run]:
        """A run from its first event to its last; whatever was changed is put back."""
        if not isinstance(task, Task):
            raise UsageError(
                f"{task!r:.80} is no Task; subclass trainbus.Task, or use Task.supervised(model)"
            )
        if self._running_now:
            raise UsageError("this trainer is in the middle of a run; use another one")
        bus = self.bus
        if bus.logger_names and "journal" not in bus.plugins:  # without it they would get nothing
            from trainbus.builtin.journal import Journal

            bus.register(Journal(), "journal", "needed by a logger")
        chosen, why = accelerators.choose(self.accelerator, self._ask("provide_accelerator"))
        chosen.select(self._device_index())
        algorithms = torch.are_deterministic_algorithms_enabled()
        only_warn = torch.is_deterministic_algorithms_warn_only_enabled()
        modes = [(module, module.training) for module in task.modules()]
        registered: list[Plugin] = []
        unmute: Callable[[], None] | None = None
        run: Run | None = None
        self._running_now = True
        try:
            bus.recall()
            run = Run(self, task, chosen, why)
            run.stage = stage
            if resume is not None:
                path, held = run_dirs.resume_from(self.run_dir, resume, run.name)
                run.continue_in(path, held)
            if run.dry_run:
                unmute = bus.mute("record")
            listeners = []
            if listens(task, bus.hooks):
                listeners.append(Plugin("task", task, type(task).__name__))
            if type(chosen).step_boundary is not Accelerator.step_boundary:
                listeners.append(Plugin("accelerator", Boundaries(chosen), chosen.name))
            bus.register_all(listeners)
            registered = listeners
            # Between predictions signals are the consumer's.
            with nullcontext() if stage == "predict" else deferred(run.interrupt):
                yield from self._lifetime(run)
        finally:
            if stage != "train":
                for module, mode in modes:
                    module.training = mode
            if self.deterministic:
                torch.use_deterministic_algorithms(algorithms, warn_only=only_warn)
            for member in registered:
                bus.unregister(member.name)
            if unmute is not None:
                unmute()
                while self._unfreed:
                    shutil.rmtree(self._unfreed.pop(), ignore_errors=True)
            if run is not None:
                run.release()
            self._running_now = False

    def _lifetime(self, run: Run) -> Iterator[Run]:
        bus = self.bus
        try:
            if self.seed is not None:
                random_state.seed_everything(self.seed)
            if self.deterministic:
                torch.use_deterministic_algorithms(True)
            if self.max_time is not None:
                run.deadline = monotonic() + self.max_time
            run.fire("on_run_start")
            if run.precision is not None and run.claimed("precision") is None:
                raise UsageError(
                    f"precision={run.precision!r}: no active plugin provides it; install and name "
                    "one that does (plugins=['amp'], for example), or leave it out"
                )
            yield run
            for event in run.open_events[::-1]:
                run.leave(event)
            run.flush()
            if run.interruption is not None:
                raise run.interruption
            if run.status == "running":
                run.status = "completed"
        except GeneratorExit:
            run.status = "stopped"
            raise
        except BaseException as raised:
            # What a signal broke (a loader whose workers got it, too) is no failure of its own.
            error = raised if run.interruption is None else run.interruption
            ended = isinstance(error, (KeyboardInterrupt, SystemExit))
            run.status = "interrupted" if ended else "failed"
            with suppress(Exception):  # a device that failed may give nothing back
                run.flush()
            if bus.on_exception:
                bus.on_exception(run, error)
            if error is raised:
                raise
            raise error from raised
        finally:
            if bus.on_run_end:
                bus.on_run_end(run, run.status)

    def _prepare(
        self, run: Run, with_optimizers: bool = False, given: Optimizers | None = None
    ) -> None:
        bus = self.bus
        run.model = bus.configure_model(run)
        if isinstance(run.model, Task):
            run.task = run.model
        if run.stage == "train":
            # Once: what a listener or the task puts into evaluation mode later stays in it.
            run.model.train()
        if given is not None:
            run.given_optimizers = given
        if with_optimizers or given is not None:
            run.optimizers = list(bus.configure_optimizer(run))
            run.optimizer = run.optimizers[0]
            for optimizer in run.optimizers:
                optimizer.zero_grad()
        if not isinstance(run.task.hparams, Mapping):
            raise UsageError(
                f"{type(run.task).__name__}.hparams is {run.task.hparams!r:.80}; give a mapping, "
                "{'lr': 0.1} or vars(namespace)"
            )
        if run.task.hparams:
            run.log_params(run.task.hparams)
        for topic, text in run.header.items():
            logger.info("%s: %s", topic, text)

    def _validate(self, run: Run, valid: Iterable[Any] | None) -> None:
        if valid is not None and not run.stopping:
            self._evaluate(run, valid, "valid")

    def _evaluate(self, run: Run, loader: Iterable[Any], stage: Stage) -> None:
        for _ in run.evaluation_batches(loader, stage, _validation_step):
            pass

    def _evaluate_alone(self, task: Task, loader: Iterable[Any], stage: Stage) -> dict[str, float]:
        with self._running(task, stage) as run:
            self._prepare(run)
            self._evaluate(run, loader, stage)
        prefix = f"{stage}/"
        return {name: value for name, value in run.metrics.items() if name.startswith(prefix)}

    def _check_validation(self, run: Run, valid: Iterable[Any] | None) -> None:
        """Tell of a step that is missing before the first epoch, and not after it."""
        missing = type(run.task).validation_step is Task.validation_step
        if valid is not None and missing and self.bus.order()["validation_step"] == ["core"]:
            raise UsageError(
                f"{type(run.task).__name__} has no validation_step, which the validation loader "
                "needs; define it, or leave the loader out"
            )

    def _validation_interval(
        self, run: Run, train: Iterable[Any], valid: Iterable[Any] | None
    ) -> int | None:
        """Batches between validations inside an epoch, or None to count epochs."""
        if valid is None or self.validate_every >= 1:
            return None
        total = size(train if self.limit_batches is None else Limited(train, self.limit_batches))
        if total is None:
            raise UsageError(
                f"validate_every={self.validate_every} is a fraction of an epoch, but "
                f"{describe(train)} does not tell its length; give whole epochs"
            )
        return max(1, round(total * self.validate_every))

    def _ask(self, hook: str) -> list[Any]:
        call = getattr(self.bus, hook)
        return call() if call else []

    def _device_index(self) -> int | None:
        if self.devices in ("auto", 1):
            return None
        if isinstance(self.devices, (list, tuple)) and len(self.devices) == 1:
            return int(self.devices[0])
        raise UsageError(
            f"devices={self.devices!r}: give 'auto', 1, or a list with one index; several devices "
            "need a plugin that starts one process for each, and none is active"
        )

    def make_run_dir(self, run: Run) -> Hold:
        """Make the directory of a run; that of a dry run is removed after it."""
        if run.dry_run:
            self._unfreed.append(Path(tempfile.mkdtemp(prefix="trainbus-dry-run-")))
            return Hold(self._unfreed[-1])
        return run_dirs.make(self.run_dir, run.name)


def _validation_step(run: Run) -> Any:
    return run.bus.validation_step(run)  # looked up in each batch: plugins come and go


def _predict_step(run: Run) -> Any:
    return run.bus.predict_step(run)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require(right: bool, name: str, value: object, what: str) -> None:
    if not right:
        raise UsageError(f"Trainer({name}={value!r}): {name} must be {what}")

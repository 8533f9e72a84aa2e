"""Trainer: the engineering. Which plugins, which device, for how long; and the verbs."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any, Literal, TypeVar
from weakref import ref

import torch
from torch import nn

from trainbus.bus import Bus
from trainbus.checkpoints import resume as resuming
from trainbus.checkpoints.weights import load_weights
from trainbus.devices.accelerator import Accelerator
from trainbus.devices.random_state import seed_everything
from trainbus.engine.choice import choose
from trainbus.engine.defaults import Boundaries, Defaults
from trainbus.engine.functions import hook_named, listen
from trainbus.engine.interrupts import deferred
from trainbus.engine.loop import Loop
from trainbus.engine.optimizer_state import options
from trainbus.engine.predictions import Predictions
from trainbus.engine.run import Run, Stage
from trainbus.engine.settings import Settings
from trainbus.engine.snapshot import in_evaluation_mode, modes, same_modes, set_modes
from trainbus.engine.stray_step import StrayStep
from trainbus.engine.task import ByHand, Optimizers, Task
from trainbus.engine.task_state import TaskState
from trainbus.engine.validations import Validations
from trainbus.errors import Control, UsageError
from trainbus.events.checks import listens
from trainbus.events.plugin import Plugin
from trainbus.loaders import Loaders
from trainbus.plugins import loading
from trainbus.plugins.discovery import Installed
from trainbus.storage.run_dir import RunDirectory

logger = logging.getLogger("trainbus")
Listener = TypeVar("Listener", bound=Callable[..., Any])


class Trainer(Settings):
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

    def __post_init__(self) -> None:
        super().__post_init__()
        self.bus, installed = Bus(), Installed()
        self.bus.register_all([Plugin("core", Defaults(), core=True)])
        if self.clip_norm is not None:
            why, options = "Trainer(clip_norm=...)", {"norm": self.clip_norm}
            self.bus.register_all([loading.built_in("clip", why, options, installed)])
        #: What was loaded and why, for the header, the manifest and `trainbus plugins`.
        self.loaded = loading.register(self.bus, loading.load(self.plugins, installed))
        self._is_running = False
        #: Predictions that were not read to their end, as long as somebody holds them.
        self._waiting: Callable[[], Predictions | None] = lambda: None

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
        with self._running(task, "train", resume) as run:
            self._prepare(run, with_optimizers=True)
            if self.overfit is not None:
                train = list(islice(train, self.overfit))
                valid = None if valid is None else train
            train, valid = Loaders.of(train), Loaders.of(valid)
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
        return Predictions(self._predictions(task, loader), self._wait_for)

    def _wait_for(self, predictions: Predictions) -> None:
        self._end_waiting()
        self._waiting = ref(predictions)

    def _end_waiting(self) -> None:
        if (waiting := self._waiting()) is not None:
            waiting.end()

    def _predictions(self, task: nn.Module, loader: Iterable[Any]) -> Generator[Any, None, None]:
        gradients = torch.is_grad_enabled()
        with self._running(task, "predict") as run:
            self._prepare(run)
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
        with self._running(task, "train", resume) as run:
            self._prepare(run, isinstance(model, Task) and optimizer is None, optimizer)
            run.enter("fit")
            if run.resume_path is not None:
                run.load_checkpoint(run.resume_path)
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
    ) -> Iterator[Loop]:
        """A run from its first event to its last; whatever was changed is put back."""
        if not isinstance(task, Task):
            raise UsageError(
                f"{task!r:.80} is no Task; subclass trainbus.Task, or use Task.supervised(model)"
            )
        self._end_waiting()
        if self._is_running:
            raise UsageError("this trainer is in the middle of a run; use another one")
        bus = self.bus
        _check_processes(bus)
        if bus.logger_names and "journal" not in bus.plugins:  # without it they would get nothing
            bus.register_all([loading.built_in("journal", "needed by a logger")])
        accelerator, why = choose(self.accelerator, _asked(bus.provide_accelerator))
        accelerator.select(self.device_index)
        self._is_running = True
        with ExitStack() as undo:
            undo.callback(setattr, self, "_is_running", False)
            bus.recall()
            run = self._new_run(task, stage, accelerator, why, resume, undo)
            if run.dry_run:
                undo.callback(bus.mute("record"))
            for listener in self._listeners_of_run(run):
                bus.register_all([listener])
                undo.callback(bus.unregister, listener.name)
            if self.deterministic:
                undo.enter_context(_deterministic())
            if stage != "train":
                undo.enter_context(same_modes(task))
            # Between predictions signals are the consumer's.
            undo.enter_context(nullcontext() if stage == "predict" else deferred(run.interrupt))
            yield from self._lifetime(run)

    def _new_run(
        self,
        task: Task,
        stage: Stage,
        accelerator: Accelerator,
        why: str,
        resume: str | Path | None,
        undo: ExitStack,
    ) -> Loop:
        path, lock = None, None
        parent = Path(self.run_dir).absolute()  # the process may change its directory
        if resume is not None:
            path, lock = resuming.resume_from(parent, resume, task.run_name)
        directory = RunDirectory(parent, task.run_name, self.dry_run is not None, lock)
        undo.callback(directory.release)
        run = Loop(self, self.bus, task, accelerator, self.loaded, directory)
        run.stage, run.resume_path = stage, path
        run.header.update(
            device=f"{_device_in_words(accelerator)} ({why})",
            precision=self.precision or "as the model has it",
            plugins=loading.listed(self.loaded),
        )
        return run

    def _listeners_of_run(self, run: Loop) -> Iterator[Plugin]:
        """The task and the accelerator, where they listen."""
        if listens(run.task, self.bus.hooks):
            yield Plugin("task", run.task, type(run.task).__name__)
        if type(run.accelerator).step_boundary is not Accelerator.step_boundary:
            yield Plugin("accelerator", Boundaries(run.accelerator), run.accelerator.name)

    def _lifetime(self, run: Loop) -> Iterator[Loop]:
        bus = self.bus
        try:
            if self.seed is not None:
                seed_everything(self.seed)
            if self.max_seconds is not None:
                run.deadline = monotonic() + self.max_seconds
            run.fire("on_run_start")
            if run.precision is not None and run.claim("precision") is None:
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
                run.hand_out(run.buffer.fetch())
            if bus.on_exception:
                bus.on_exception(run, error)
            if error is raised:
                raise
            raise error from raised
        finally:
            if run.stray is not None:
                run.stray.end()
            if bus.on_run_end:
                bus.on_run_end(run, run.status)

    def _prepare(
        self, run: Loop, with_optimizers: bool = False, given: Optimizers | None = None
    ) -> None:
        bus = self.bus
        run.model = bus.configure_model(run)
        if isinstance(run.model, Task):
            run.task = run.model
        if run.stage == "train" and (frozen := in_evaluation_mode(run.model)):
            run.header["evaluation mode"] = f"{frozen}, as they were found"
        run.given_optimizers = given
        if with_optimizers or given is not None:
            run.optimizers = list(bus.configure_optimizer(run))
            run.optimizer = run.optimizers[0]
            run.stray = StrayStep(run.optimizers)
            run.given_options = options(run.optimizers)
            run.task_state = TaskState(run.task, run.optimizers)
            run.position.of_task = run.task_state.random_generators()
            for optimizer in run.optimizers:
                optimizer.zero_grad()
        if not isinstance(run.task.hparams, Mapping):
            raise UsageError(
                f"{type(run.task).__name__}.hparams is {run.task.hparams!r:.80}; give a mapping, "
                "{'lr': 0.1} or vars(namespace)"
            )
        if run.task.hparams:
            run.log_params(run.task.hparams)
        if not any(getattr(each, "shows_header", False) for each in bus.plugins.values()):
            for topic, text in run.header.items():
                logger.info("%s: %s", topic, text)

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
        with self._running(task, stage) as run:
            self._prepare(run)
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


def _device_in_words(accelerator: Accelerator) -> str:
    device = accelerator.device
    return str(device) if accelerator.name == device.type else f"{accelerator.name}, {device}"


def _asked(contribution: Callable[[], list[Any]] | None) -> list[Any]:
    return contribution() if contribution else []


def _check_processes(bus: Bus) -> None:
    """Refuse to train the same model in several processes that know nothing of each other."""
    told = os.environ.get("WORLD_SIZE", "1")
    distributes = any(getattr(each, "distributes", False) for each in bus.plugins.values())
    if told.isdigit() and int(told) > 1 and not distributes:
        raise UsageError(
            f"WORLD_SIZE={told}: a launcher (torchrun?) started {told} processes, but no active "
            "plugin distributes this run, so that each would make all of it alone; start one "
            "process, or unset WORLD_SIZE where that is what you want"
        )


@contextmanager
def _deterministic() -> Iterator[None]:
    """Deterministic algorithms, or an error where there is none; then what was before."""
    before = torch.are_deterministic_algorithms_enabled()
    only_warn = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warn)

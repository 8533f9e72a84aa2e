"""A trainer's runs, from their first event to their last: what the verbs share."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar
from weakref import ref

import torch
from torch import nn

from trainbus.bus import Bus
from trainbus.checkpoints import resume as resuming
from trainbus.devices.accelerator import Accelerator
from trainbus.devices.peers import Peers
from trainbus.devices.random_state import seed_everything
from trainbus.engine.choice import choose
from trainbus.engine.closures import needs_closure
from trainbus.engine.defaults import Boundaries, Defaults
from trainbus.engine.given_arguments import given_to
from trainbus.engine.interrupts import deferred
from trainbus.engine.loop import Loop
from trainbus.engine.optimizer_state import options
from trainbus.engine.optimizers import listeners_of
from trainbus.engine.own_steps import OwnSteps
from trainbus.engine.place import agreed_place
from trainbus.engine.predictions import Predictions
from trainbus.engine.processes import seed_apart
from trainbus.engine.run import Stage
from trainbus.engine.scheduled import Scheduled
from trainbus.engine.settings import Settings
from trainbus.engine.snapshot import in_evaluation_mode, same_modes
from trainbus.engine.stray_step import StrayStep
from trainbus.engine.task import Optimizers, Task
from trainbus.engine.task_state import TaskState
from trainbus.errors import UsageError
from trainbus.events.checks import listens
from trainbus.events.plugin import Plugin
from trainbus.plugins import loading, selection
from trainbus.plugins.discovery import Installed
from trainbus.storage.run_dir import RunDirectory

logger = logging.getLogger("trainbus")
Listener = TypeVar("Listener", bound=Callable[..., Any])


class Lifetime(Settings):
    """Which plugins, which device, for how long; see `Trainer`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.bus, installed = Bus(), Installed()
        self.bus.register_all([Plugin("core", Defaults(), core=True)])
        if self.clip_norm is not None:
            why, options = "Trainer(clip_norm=...)", {"norm": self.clip_norm}
            self.bus.register_all([loading.built_in("clip", why, options, installed)])
        #: What was loaded and why, for the header, the manifest and `trainbus plugins`.
        self.loaded = loading.register(self.bus, loading.load(self.plugins, installed))
        self.switched_off = dict(selection.select(self.plugins, installed=installed).blocked)
        self.is_running = False
        #: Listeners that the optimizers of the run brought.
        self._brought: list[Plugin] = []
        #: Predictions that were not read to their end, as long as somebody holds them.
        self._waiting: Callable[[], Predictions | None] = lambda: None

    def wait_for(self, predictions: Predictions) -> None:
        """Note predictions that nobody has read to their end yet."""
        self.end_waiting()
        self._waiting = ref(predictions)

    def end_waiting(self) -> None:
        """End them."""
        if (waiting := self._waiting()) is not None:
            waiting.end()

    # --- what the verbs share ------------------------------------------------------------------

    @contextmanager
    def running(
        self, task: nn.Module, stage: Stage, resume: str | Path | None = None
    ) -> Iterator[Loop]:
        """A run from its first event to its last; whatever was changed is put back."""
        if not isinstance(task, Task):
            raise UsageError(
                f"{task!r:.80} is no Task; subclass trainbus.Task, or use Task.supervised(model)"
            )
        self.end_waiting()
        if self.is_running:
            raise UsageError("this trainer is in the middle of a run; use another one")
        bus = self.bus
        peers = _peers(bus)
        if bus.logger_names and "journal" not in bus.plugins:  # without it they would get nothing
            bus.register_all([loading.built_in("journal", "needed by a logger")])
        accelerator, why = choose(self.accelerator, _asked(bus.provide_accelerator))
        if peers.world_size > 1:
            accelerator.select_for_rank(peers.local_rank)
        else:
            accelerator.select(self.device_index)
        self.is_running = True
        with ExitStack() as undo:
            undo.callback(setattr, self, "is_running", False)
            undo.callback(accelerator.deselect)
            accelerator.begin_peak()
            bus.recall()
            run = self._new_run(task, stage, accelerator, why, resume, undo, peers)
            run.undo = undo
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
        peers: Peers,
    ) -> Loop:
        wants_directory = stage == "train" or bool(self.bus.logger_names)
        path, directory = self._place(task.run_name, resume, peers, wants_directory)
        undo.callback(directory.release)
        run = Loop(self, self.bus, task, accelerator, self.loaded, directory, peers)
        run.stage, run.resume_path = stage, path
        run.header.update(
            device=f"{_device_in_words(accelerator)} ({why})",
            precision=self.precision or "as the model has it",
            plugins=loading.listed(self.loaded),
        )
        return run

    def _place(
        self, name: str, resume: str | Path | None, peers: Peers, wanted: bool
    ) -> tuple[Path | None, RunDirectory]:
        """The checkpoint to begin with, and where the run writes: the first process says it."""
        parent = Path(self.run_dir).absolute()  # the process may change its directory

        def find() -> tuple[Path | None, RunDirectory]:
            path, lock = None, None
            if resume is not None:
                path, lock = resuming.resume_from(parent, resume, name)
            return path, RunDirectory(parent, name, self.dry_run is not None, lock)

        return find() if peers.world_size == 1 else agreed_place(peers, find, wanted)

    def _listeners_of_run(self, run: Loop) -> Iterator[Plugin]:
        """The task and the accelerator, where they listen."""
        if listens(run.task, self.bus.hooks):
            yield Plugin("task", run.task, type(run.task).__name__)
        if type(run.accelerator).step_boundary is not Accelerator.step_boundary:
            yield Plugin("accelerator", Boundaries(run.accelerator), run.accelerator.name)

    def _lifetime(self, run: Loop) -> Iterator[Loop]:
        bus, peers = self.bus, run.peers
        try:
            if self.seed is not None:
                seed_everything(self.seed)
            if peers.world_size > 1:
                run.header["processes"] = peers.described()
            peers.begin(run)
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
            if (other := peers.failure(error)) is not None:
                error = other
            peers.failure_is_told = peers.fail(error) or other is not None
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
            peers.end(run)
            if bus.on_run_end:
                bus.on_run_end(run, run.status)
            for brought in self._brought:
                bus.unregister(brought.name)
            self._brought = []

    def prepare(
        self, run: Loop, with_optimizers: bool = False, given: Optimizers | None = None
    ) -> None:
        """Model, optimizers and schedulers, and what the run says at its start."""
        bus = self.bus
        run.given_optimizers = given
        run.model = bus.configure_model(run)
        if isinstance(run.model, Task):
            run.task = run.model
        if run.stage == "train" and (frozen := in_evaluation_mode(run.model)):
            run.header["evaluation mode"] = f"{frozen}, as they were found"
        if with_optimizers or given is not None:
            run.optimizers = list(bus.configure_optimizer(run))
            run.optimizer = run.optimizers[0]
            self._schedule(run)
            run.closes = [each for each in run.optimizers if needs_closure(each)]
            if run.task.manual:
                run.own_steps = OwnSteps(run, run.count_step)
                run.undo.callback(run.own_steps.end)
            else:
                run.stray = StrayStep(run.optimizers)
            run.given_options = options(run.optimizers)
            run.task_state = TaskState(run.task, run.optimizers)
            run.position.of_task = run.task_state.random_generators()
            for optimizer in run.optimizers:
                optimizer.zero_grad()
            self._brought = listeners_of(run.optimizers)
            bus.register_all(self._brought)
        if not isinstance(run.task.hparams, Mapping):
            raise UsageError(
                f"{type(run.task).__name__}.hparams is {run.task.hparams!r:.80}; give a mapping, "
                "{'lr': 0.1} or vars(namespace)"
            )
        if parameters := run.task.hparams or given_to(run.task):
            run.log_params(parameters)
        if run.stage == "train":
            seed_apart(run.peers, self.seed)
        shown = any(getattr(each, "shows_header", False) for each in bus.plugins.values())
        if not shown and run.rank == 0:
            for topic, text in run.header.items():
                logger.info("%s: %s", topic, text)

    def _schedule(self, run: Loop) -> None:
        """Let a plugin step the schedulers that came with the optimizers."""
        if not run.given_schedulers:
            return
        if "schedule" in self.bus.plugins:
            raise UsageError(
                f"{type(run.task).__name__}.configure_optimizer returned schedulers, and the "
                "plugin schedule is active; leave one of them out"
            )
        given = {"make": partial(_schedulers_of, run.given_schedulers)}
        plugin = loading.built_in("schedule", "the task's schedulers", given)
        self.bus.register_all([plugin])
        run.undo.callback(self.bus.unregister, plugin.name)


def _device_in_words(accelerator: Accelerator) -> str:
    device = accelerator.device
    return str(device) if accelerator.name == device.type else f"{accelerator.name}, {device}"


def _asked(contribution: Callable[[], list[Any]] | None) -> list[Any]:
    return contribution() if contribution else []


def _peers(bus: Bus) -> Peers:
    """The processes that train together; refuses those that know nothing of each other."""
    offered = [each for each in _asked(bus.provide_peers) if each is not None]
    if len(offered) > 1:
        kinds = " and ".join(type(each).__name__ for each in offered)
        raise UsageError(f"two plugins provide the processes of a run ({kinds}); switch one off")
    if offered:
        if not isinstance(offered[0], Peers):
            raise UsageError(
                f"provide_peers returned {offered[0]!r:.80}; return a trainbus.Peers or None"
            )
        return offered[0]
    told = os.environ.get("WORLD_SIZE", "1")
    if told.isdigit() and int(told) > 1:
        raise UsageError(
            f"WORLD_SIZE={told}: a launcher (torchrun?) started {told} processes, but no active "
            "plugin distributes this run, so that each would make all of it alone; pip install "
            "trainbus-distributed and name it (plugins=['distributed']), start one process, or "
            "unset WORLD_SIZE where that is what you want"
        )
    return Peers()


@contextmanager
def _deterministic() -> Iterator[None]:
    """Deterministic algorithms, or an error where there is none; then what was before."""
    before = torch.are_deterministic_algorithms_enabled()
    only_warn = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False  # it chooses by the clock
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warn)
        torch.backends.cudnn.benchmark = benchmark


def _schedulers_of(given: Sequence[Scheduled], optimizer: Any) -> list[Scheduled]:
    return [each for each in given if each.scheduler.optimizer is optimizer]

"""What passes over data share, and those that do not train: validation, test, prediction."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from trainbus import batches
from trainbus.bus import Bus
from trainbus.devices import generators
from trainbus.devices.accelerator import Accelerator
from trainbus.devices.peers import Peers
from trainbus.engine.arrays import picture_of, table_of
from trainbus.engine.metrics import MetricBuffer, Row
from trainbus.engine.position import Position
from trainbus.engine.run import Stage
from trainbus.engine.scheduled import Scheduled
from trainbus.engine.settings import Settings
from trainbus.engine.snapshot import same_modes
from trainbus.engine.step import Step
from trainbus.engine.task import Optimizers, Task
from trainbus.engine.task_state import TaskState
from trainbus.errors import Control
from trainbus.events.plugin import Plugin
from trainbus.loaders import Loaders
from trainbus.records.values import ReadOnly
from trainbus.storage.run_dir import RunDirectory

logger = logging.getLogger("trainbus")

_EVENTS: dict[Stage, str] = {"valid": "validation", "test": "test", "predict": "predict"}
_ACTIONS = {"valid": "validation_step", "test": "validation_step", "predict": "predict_step"}
#: Saved before a pass inside another one, and restored after it: of the run, and of its log.
_SAVED = ("stage", "loader", "loader_name", "batches_in_pass", "batch_index", "batch", "output")
_SAVED_LOG = ("step", "prefix", "averaging", "weight", "batch_start")


class Passes(Step):
    """A run and the passes inside of it; see `Loop` for those that train."""

    def __init__(
        self,
        trainer: Settings,
        bus: Bus,
        task: Task,
        accelerator: Accelerator,
        loaded: Sequence[Plugin],
        directory: RunDirectory,
        peers: Peers,
    ) -> None:
        #: What was logged and is not fetched yet.
        self.buffer = MetricBuffer(accelerator, trainer.log_every, peers)
        super().__init__(trainer, bus, task, accelerator, loaded, self.buffer, directory, peers)
        #: The optimizers given to `trainer.open`, instead of the task's.
        self.given_optimizers: Optimizers | None = None
        #: The newest value of each metric at the end of each epoch since this process began, with
        #: `epoch` and `global_step`.
        self.history: list[dict[str, float]] = []
        #: Puts back what the run changed.
        self.undo = ExitStack()
        #: Schedulers that came with the optimizers.
        self.given_schedulers: Sequence[Scheduled] = ()
        self.position = Position()
        #: The checkpoint that this run is to begin with.
        self.resume_path: Path | None = None
        #: Sections of a loaded checkpoint whose plugins are not active.
        self.kept_sections: dict[str, Any] = {}
        #: What was given to each optimizer, by group; and what the task keeps besides modules.
        self.given_options: list[list[dict[str, Any]]] = []
        self.task_state: TaskState | None = None
        #: The epoch is left before its end: it is owed, and no end of it is counted.
        self.cut_short = False

    # --- endings ----------------------------------------------------------------------------------

    def stop(self, reason: str = "") -> None:
        trainer = self.trainer
        early = self.epochs_done < trainer.min_epochs or self.global_step < trainer.min_steps
        if not (early and "fit" in self.open_events):
            super().stop(reason)
        elif self.first_time(f"stop: {reason}"):
            logger.warning(
                "the run is not stopped (%s) before min_epochs=%d, min_steps=%d",
                reason or "asked to", trainer.min_epochs, trainer.min_steps,
            )  # fmt: skip

    def savepoint(self, after: str) -> None:
        """Tell those who save states that all who listen at this moment are done."""
        if self.agreement is not None and after != "train_batch":
            self.meet()
        self.told_of_stop = self.stopping
        if "fit" in self.open_events:
            self.fire("on_savepoint", after)

    def owe_validation(self) -> None:
        """Leave an epoch that is stopping before its validation, which a resumed run makes."""
        if not self.cut_short:
            self.cut_short = True
            self.savepoint("train_epoch")

    # --- validation, test and prediction -------------------------------------------------------

    def evaluation_batches(
        self,
        loader: Iterable[Any],
        stage: Stage = "valid",
        step: Callable[[Any], Any] | None = None,
    ) -> Iterator[Any]:
        if self.stopping and "epoch" in self.open_events:
            self.owe_validation()
            return
        bus, event = self.bus, _EVENTS[stage]
        loader = self.peers.deal(Loaders.of(loader), stage)
        with self._inner_pass(stage):
            self.begin_pass(stage, loader)
            if stage == "valid":
                self.position.begin_validation(loader)
            self.model.eval()
            torch.set_grad_enabled(False)
            self.enter(event)
            skip = self.ends_pass or self.stopping
            for index, batch in enumerate(() if skip else self._batches_to_evaluate()):
                self.batch_index, self.batch, self.output = index, batch, None
                self.buffer.weight, self.has_batch = None, True
                given = step is not None
                try:
                    self.batch = bus.place_batch(self)
                    if on_start := getattr(bus, f"on_{event}_batch_start"):
                        on_start(self)
                    if step is None:
                        yield from self._lend(_ACTIONS[stage])
                    else:
                        self.output = step(self)
                except Control as control:
                    self.obey(control)
                    given = False
                self.fire(f"on_{event}_batch_end")
                if len(self.buffer.pending) >= self.buffer.max_pending:
                    self.flush()
                if given:
                    yield self.output
                if self.ends_pass or self.stopping:
                    break
            self._end_evaluation(loader, stage)

    def _batches_to_evaluate(self) -> Iterable[Any]:
        """The batches of the pass; of several loaders with the end of each."""
        return self._of_several(self.loader) if isinstance(self.loader, Loaders) else self.loader

    def _of_several(self, several: Loaders) -> Iterator[Any]:
        for name, loader in several.loaders.items():
            self.loader_name, self.buffer.prefix = name, f"{self.stage}/{name}"
            before = self.batch_index
            yield from loader
            if self.batch_index == before and self.agreement is None:
                raise batches.is_empty(loader, f"{self.stage} ({name})")
            self.hand_out(self.buffer.end_part(self.global_step, self.stage))
        self.loader_name, self.buffer.prefix = "", self.stage

    def rehearse(self, loader: Iterable[Any], count: int) -> None:
        """Try the first batches of a validation: no event is told, and nothing is recorded."""
        drawn = generators.states_of(loader)
        with self._inner_pass("valid"):
            self.begin_pass("valid", Loaders.of(loader))
            self.model.eval()
            torch.set_grad_enabled(False)
            for index, batch in enumerate(islice(self._batches_to_evaluate(), count)):
                self.batch_index, self.batch = index, batch
                self.buffer.weight, self.has_batch = None, True
                self.batch = self.bus.place_batch(self)
                self.output = self.bus.validation_step(self)
            self.has_batch = False
        generators.put_back(loader, drawn)

    def _end_evaluation(self, loader: Iterable[Any], stage: Stage) -> None:
        self.check_not_empty(loader)
        broken_off = self.stopping
        if not broken_off:
            self.hand_out(self.buffer.end_pass(self.global_step))
            if stage == "valid":
                self.position.validated(self)
        self.buffer.averaging = False
        if broken_off and "epoch" in self.open_events:
            self.owe_validation()  # before its end is told: it is made once more
        self.leave(_EVENTS[stage])
        if stage == "valid" and not broken_off:
            self.savepoint("validation")

    @contextmanager
    def _inner_pass(self, stage: Stage) -> Iterator[None]:
        """Put back, whatever happens: the place in training, modes, random states, means."""
        self.abandon()
        saved = {name: getattr(self, name) for name in _SAVED}
        saved_log = {name: getattr(self.buffer, name) for name in _SAVED_LOG}
        random_state, gradients = self.accelerator.random_state(), torch.is_grad_enabled()
        ends_pass, self.ends_pass = self.ends_pass, False
        # A pass that is asked for in a run that is ending (a test in `on_fit_end`) is made whole.
        was_stopping, self.stopping = self.stopping, False
        self.position.random = random_state
        self.flush()
        self.buffer.begin_inner_pass()
        event = _EVENTS[stage]
        try:
            with same_modes(self.model):
                yield
        except GeneratorExit:
            if stage == "predict":  # the consumer wants no more
                self.leave(event)
            raise
        finally:
            self.buffer.leave_inner_pass()
            if event in self.open_events:  # it failed
                self.open_events.remove(event)
            torch.set_grad_enabled(gradients)
            if stage != "predict":  # its consumer draws from them in between
                self.accelerator.set_random_state(random_state)
            self.ends_pass = ends_pass
            self.stopping = self.stopping or was_stopping
            self.position.random = None
            for name, value in saved.items():
                setattr(self, name, value)
            for name, value in saved_log.items():
                setattr(self.buffer, name, value)

    def _lend(self, action: str) -> Iterator[Any]:
        """Yield the batch once, between the two halves of the wrappers of an action."""
        opened = self.bus.open(action, self)
        try:
            yield self.batch
        except BaseException as error:
            self.bus.close(action, opened, None, error)
        else:
            self.bus.close(action, opened, self.output)

    # --- what passes share ---------------------------------------------------------------------

    def begin_pass(self, stage: Stage, loader: Iterable[Any]) -> None:
        self.stage = self.buffer.prefix = stage
        batches.check(loader, stage)
        self.loader = self._limited(loader)
        self.batch_index = -1
        self.buffer.averaging = True
        self.buffer.step = self.global_step

    def _limited(self, loader: Iterable[Any]) -> Iterable[Any]:
        limit, wrap = self.trainer.limit(self.stage), self.accelerator.wrap_loader
        if isinstance(loader, Loaders) and self.stage != "train":
            each = {name: batches.limited(one, limit) for name, one in loader.loaders.items()}
            limited: Iterable[Any] = Loaders(each, "sequential")
            self.batches_in_pass = batches.size(limited)
            return Loaders({name: wrap(one) for name, one in each.items()}, "sequential")
        limited = batches.limited(loader, limit)
        self.batches_in_pass = batches.size(limited)
        return wrap(limited)

    def check_not_empty(self, loader: Iterable[Any]) -> None:
        without = self.peers.data_rank > 0 and self.stage != "train"  # fewer batches than processes
        if self.batch_index < 0 and not (self.ends_pass or self.stopping or without):
            raise batches.is_empty(loader, self.stage)

    def flush(self) -> None:
        open_step = None  # the step at work, whose values belong together
        if self.window.begun or self.accumulating:
            open_step = self.global_step + 1
        elif self.has_batch and self.stage == "train":
            open_step = self.buffer.step
        self.hand_out(self.buffer.fetch(open_step))

    def hand_out(self, rows: Sequence[Row]) -> None:
        """Give numbers that were fetched to those who listen, and what is no number."""
        if self.buffer.arrays:
            arrays, self.buffer.arrays = self.buffer.arrays, {}
            for name, value in arrays.items():
                self.log_artifact(name, table_of(name, value), "table")
                if (picture := picture_of(value)) is not None:
                    self.log_artifact(name, picture, "image")
        for step, values, when in rows:
            if self.bus.on_metrics:
                try:
                    self.bus.on_metrics(self, step, ReadOnly(values), when)
                except Control as control:
                    self.obey(control)

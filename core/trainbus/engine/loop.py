"""The passes over data: training epochs, validation, test and prediction."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from trainbus import batches
from trainbus.bus import Bus
from trainbus.devices import generators
from trainbus.devices.accelerator import Accelerator
from trainbus.engine.accumulation import looking_ahead
from trainbus.engine.metrics import MetricBuffer, Row
from trainbus.engine.position import Position
from trainbus.engine.run import Stage
from trainbus.engine.settings import Settings
from trainbus.engine.snapshot import same_modes
from trainbus.engine.step import Step
from trainbus.engine.task import Optimizers, Task
from trainbus.engine.task_state import TaskState
from trainbus.errors import Control, StopRun
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


class Loop(Step):
    """Where a run stands in its data, and how it goes on.

    `Trainer.fit` and a hand-written loop both read `training_batches` and call `step`.
    """

    def __init__(
        self,
        trainer: Settings,
        bus: Bus,
        task: Task,
        accelerator: Accelerator,
        loaded: Sequence[Plugin],
        directory: RunDirectory,
    ) -> None:
        #: What was logged and is not fetched yet.
        self.buffer = MetricBuffer(accelerator, trainer.log_every)
        super().__init__(trainer, bus, task, accelerator, loaded, self.buffer, directory)
        #: The optimizers given to `trainer.open`, instead of the task's.
        self.given_optimizers: Optimizers | None = None
        self.position = Position()
        #: The checkpoint that this run is to begin with.
        self.resume_path: Path | None = None
        #: Sections of a loaded checkpoint whose plugins are not active.
        self.kept_sections: dict[str, Any] = {}
        #: What was given to each optimizer, by group; and what the task keeps besides modules.
        self.given_options: list[list[dict[str, Any]]] = []
        self.task_state: TaskState | None = None
        #: The epoch is left before its end: it is owed, and no end of it is counted.
        self._cut_short = False

    # --- epochs --------------------------------------------------------------------------------

    def epochs(self, count: int | None = None) -> Iterator[int]:
        count = 1 if self.trainer.dry_run else count or self.trainer.epochs
        self.epochs_planned = count
        position = self.position
        if self.trainer.max_steps is not None and self.global_step >= self.trainer.max_steps:
            self.finished = True
        if position.saved is not None and not position.saved["batches"]:
            position.restore_random(self)
        while not (self.stopping or self.finished) and (count is None or self.epoch < count):
            self.leave("epoch")
            self.ends_pass = self._cut_short = False
            position.over = ""
            self.enter("epoch")
            yield self.epoch
            self.leave("epoch")
            if not self._cut_short:
                self.epoch += 1

    # --- training ------------------------------------------------------------------------------

    def batches(self, loader: Iterable[Any], epochs: int | None = None) -> Iterator[Any]:
        if epochs is None:
            yield from self._by_hand(loader)
        else:
            for _ in self.epochs(epochs):
                yield from self._by_hand(loader)

    def _by_hand(self, loader: Iterable[Any]) -> Iterator[Any]:
        self.by_hand = True
        for batch in self.training_batches(loader):
            try:
                self.opened = self.bus.open("training_step", self)
            except Control as control:
                self.leave_batch(control)
                continue
            self.handed_out = True
            yield batch
            if self.handed_out:
                self.abandon()

    def training_batches(
        self, loader: Iterable[Any], catch_up: Callable[[], None] | None = None
    ) -> Iterator[Any]:
        """Yield each placed batch of one training pass, with the events of the pass around them.

        Args:
            loader: what to read.
            catch_up: makes what a run that goes on inside a pass owes, before it reads on.
        """
        bus, buffer, window = self.bus, self.buffer, self.window
        first, rest = self._begin_training(loader)
        if first and catch_up is not None and not (self.position.over or self.ends_pass):
            catch_up()
        exhausted = False
        for index, batch in enumerate(rest, first):
            self.batch_index, self.batch, self.output = index, batch, None
            self.position.read = batch
            if self.finished and not self.accumulating:  # a loader that told too short a length
                break
            self.has_batch, self.stepped, self.manual, self.vetoed_by = True, False, False, ""
            self.is_undone = False
            buffer.weight, buffer.step = None, self.global_step + 1
            if self.accumulate > 1 or window.begun:
                buffer.batch_start = len(buffer.pending)
                if window.begun == 0:
                    window.first_batch = index
                left = None if self.batches_in_pass is None else self.batches_in_pass - index
                self.accumulating = window.begin_batch(self.accumulate, left)
            try:
                self.batch = bus.place_batch(self)
                if bus.on_train_batch_start:
                    bus.on_train_batch_start(self)
            except StopRun as stop:  # as `run.stop`: the batch is made, and is the last one
                self.obey(stop)
                yield self.batch
            except Control as control:
                self.leave_batch(control)
            else:
                yield self.batch
            if buffer.pending and (
                len(buffer.pending) >= buffer.max_pending or monotonic() >= buffer.due_time
            ):
                self.flush()
            if self.ends_pass:
                break
            # A window of accumulated batches is finished first: its start is where one can resume.
            # A pass whose last batch is done is read to its end, where its sampler may draw again.
            if not self.accumulating and (
                self.stopping or (self.finished and index + 1 != self.batches_in_pass)
            ):
                break
        else:
            exhausted = not (self.stopping and self.batch_index < 0)
        self._end_training(loader, exhausted)

    def _begin_training(self, loader: Iterable[Any]) -> tuple[int, Iterable[Any]]:
        """The index of the first batch of a training pass, and the batches from it on."""
        self.abandon()
        self.leave("train_epoch")
        if self.position.saved is None:
            self.flush()
            self.buffer.begin_pass()
        self.position.pass_start = {}
        batches.set_epoch(loader, self.epoch)  # it may change the length
        self._begin_pass("train", loader)
        self.window.begun = 0
        saved = self.position.saved
        if saved is not None and saved["over"]:  # neither its start nor its end is once more
            return self.position.start(self, loader)
        self.enter("train_epoch")
        if self.stopping:
            return 0, ()
        first, rest = self.position.start(self, loader)
        if self.ends_pass:
            return first, ()
        if self.accumulate > 1 and self.batches_in_pass is not None:
            forget = partial(setattr, self, "batches_in_pass", None)
            rest = looking_ahead(iter(rest), self.batches_in_pass - first, forget)
        return first, rest

    def _end_training(self, loader: Iterable[Any], exhausted: bool) -> None:
        position = self.position
        stood_behind = position.over  # where a checkpoint was written behind this pass
        self._cut_short = not (stood_behind or exhausted or self.ends_pass)
        if self._cut_short and self.batches_done and not self.told_of_stop:
            self.savepoint("train_batch")  # the stop came after that of the batch
        if not self._cut_short:
            self.epochs_done = self.epoch + 1
            self.batches_done, position.pass_batches = 0, self.batch_index + 1
            position.over, position.saved = stood_behind or "train_epoch", None
        if stood_behind:
            self.buffer.averaging = self.ends_pass = False
            return
        if self.window.gathered:  # the pass ended in the middle of a window
            self.step_optimizers()
        self._check_not_empty(loader)
        if exhausted:
            position.check_length(self, loader)
        self.batch = self.output = position.read = None
        self.buffer.step = self.global_step
        self.hand_out(self.buffer.end_pass(self.global_step, suffix="_epoch"))
        self.buffer.averaging = self.ends_pass = False
        self.leave("train_epoch")

    def ended(self, event: str) -> None:
        if event == "epoch" and not (self._cut_short or self.batches_done):
            self.position.over = "epoch"
            self.savepoint(event)

    def savepoint(self, after: str) -> None:
        """Tell those who save states that all who listen at this moment are done."""
        self.told_of_stop = self.stopping
        if "fit" in self.open_events:
            self.fire("on_savepoint", after)

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

    def owe_validation(self) -> None:
        """Leave an epoch that is stopping before its validation, which a resumed run makes."""
        if not self._cut_short:
            self._cut_short = True
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
        loader = Loaders.of(loader)
        with self._inner_pass(stage):
            self._begin_pass(stage, loader)
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
            if self.batch_index == before:
                raise batches.is_empty(loader, f"{self.stage} ({name})")
            self.hand_out(self.buffer.end_part(self.global_step, self.stage))
        self.loader_name, self.buffer.prefix = "", self.stage

    def rehearse(self, loader: Iterable[Any], count: int) -> None:
        """Try the first batches of a validation: no event is told, and nothing is recorded."""
        drawn = generators.states_of(loader)
        with self._inner_pass("valid"):
            self._begin_pass("valid", Loaders.of(loader))
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
        self._check_not_empty(loader)
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

    def _begin_pass(self, stage: Stage, loader: Iterable[Any]) -> None:
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

    def _check_not_empty(self, loader: Iterable[Any]) -> None:
        if self.batch_index < 0 and not (self.ends_pass or self.stopping):
            raise batches.is_empty(loader, self.stage)

    def flush(self) -> None:
        open_step = None  # the step at work, whose values belong together
        if self.window.begun or self.accumulating:
            open_step = self.global_step + 1
        elif self.has_batch and self.stage == "train":
            open_step = self.buffer.step
        self.hand_out(self.buffer.fetch(open_step))

    def hand_out(self, rows: Sequence[Row]) -> None:
        """Give numbers that were fetched to those who listen."""
        for step, values, when in rows:
            if self.bus.on_metrics:
                try:
                    self.bus.on_metrics(self, step, ReadOnly(values), when)
                except Control as control:
                    self.obey(control)

    def load_checkpoint(self, path: str | Path, keep_place: bool = False) -> None:
        if keep_place:
            self.flush()
            log, saved = self.buffer.state_dict(), self.position.saved
            kept = (self.epoch, self.epochs_done, self.skipped_steps)
        self.bus.load_checkpoint(self, Path(path))
        self.fire("on_checkpoint_loaded", Path(path))
        if keep_place:
            self.buffer.load_state_dict(log)
            self.position.restore(saved)
            self.epoch, self.epochs_done, self.skipped_steps = kept

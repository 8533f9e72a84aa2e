"""The training passes of a run: its epochs, and the batches of each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from trainbus import batches
from trainbus.engine.accumulation import looking_ahead
from trainbus.engine.passes import Passes
from trainbus.errors import Control, StopRun
from trainbus.loaders import Loaders

logger = logging.getLogger("trainbus")


class Loop(Passes):
    """Where a run stands in its data, and how it goes on.

    `Trainer.fit` and a hand-written loop both read `training_batches` and call `step`.
    """

    def plan(self, loader: Iterable[Any], epochs: int | None) -> None:
        """Note how long the run is to be, as far as that is known before it begins."""
        self.epochs_planned = 1 if self.trainer.dry_run else epochs
        size = batches.size(batches.limited(loader, self.trainer.limit("train")))
        lengths = [] if self.trainer.max_steps is None else [self.trainer.max_steps]
        if size is not None and self.epochs_planned is not None:
            lengths.append(-(-size // self.accumulate) * self.epochs_planned)
        self.total_steps = min(lengths, default=None)

    # --- epochs --------------------------------------------------------------------------------

    def epochs(self, count: int | None = None) -> Iterator[int]:
        count = 1 if self.trainer.dry_run else count or self.trainer.epochs
        self.epochs_planned = count
        position = self.position
        if self.trainer.max_steps is not None and self.global_step >= self.trainer.max_steps:
            self.finished = True
        if position.saved is not None and not position.saved["batches"]:
            position.restore_random(self)
        if self.agreement is not None:
            self.meet()
        while not (self.stopping or self.finished) and (count is None or self.epoch < count):
            self.leave("epoch")
            self.ends_pass = self.cut_short = False
            position.over = ""
            self.enter("epoch")
            yield self.epoch
            self.leave("epoch")
            if not self.cut_short:
                self.epoch += 1
            if self.agreement is not None:
                self.meet()

    # --- training ------------------------------------------------------------------------------

    def batches(self, loader: Iterable[Any], epochs: int | None = None) -> Iterator[Any]:
        if epochs is None:
            yield from self._by_hand(loader)
        else:
            for _ in self.epochs(epochs):
                yield from self._by_hand(loader)

    def _by_hand(self, loader: Iterable[Any]) -> Iterator[Any]:
        self.by_hand = True
        for batch in self.training_batches(self.peers.deal(Loaders.of(loader), "train")):
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
            self.has_batch, self.stepped, self.vetoed_by = True, False, ""
            self.manual = self.own_steps is not None
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
        self.begin_pass("train", loader)
        self.window.begun = 0
        saved = self.position.saved
        if saved is not None and saved["over"]:  # neither its start nor its end is once more
            return self.position.start(self, loader)
        self.enter("train_epoch")
        if self.agreement is not None:
            self.meet()
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
        self.cut_short = not (stood_behind or exhausted or self.ends_pass)
        if self.cut_short and self.batches_done and not self.told_of_stop:
            self.savepoint("train_batch")  # the stop came after that of the batch
        if not self.cut_short:
            self.epochs_done = self.epoch + 1
            self.batches_done, position.pass_batches = 0, self.batch_index + 1
            position.over, position.saved = stood_behind or "train_epoch", None
        if stood_behind:
            self.buffer.averaging = self.ends_pass = False
            return
        if self.window.gathered:  # the pass ended in the middle of a window
            self.step_optimizers()
        self.check_not_empty(loader)
        if exhausted:
            position.check_length(self, loader)
        self.batch = self.output = position.read = None
        self.buffer.step = self.global_step
        self.hand_out(self.buffer.end_pass(self.global_step, suffix="_epoch"))
        self.buffer.averaging = self.ends_pass = False
        self.leave("train_epoch")

    def ended(self, event: str) -> None:
        if event == "epoch":
            place = {"epoch": self.epoch, "global_step": self.global_step}
            self.history.append({**place, **self.buffer.latest})
        if event == "epoch" and not (self.cut_short or self.batches_done):
            self.position.over = "epoch"
            self.savepoint(event)

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

"""Keep the last and the best states of a run on the disk."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

from trainbus.builtin import usr1
from trainbus.builtin.background import Background
from trainbus.builtin.checkpoint_options import SECTION, check_options, is_finite, is_over
from trainbus.builtin.monitor import Monitor
from trainbus.checkpoints import sections, states
from trainbus.engine.wishes import Wish
from trainbus.errors import CheckpointError
from trainbus.events.markers import hookimpl
from trainbus.storage.files import remove_leftovers

if TYPE_CHECKING:
    from trainbus.engine.loop import Loop
    from trainbus.engine.run import Run

logger = logging.getLogger("trainbus")


class Checkpoint:
    """Write `checkpoints/step-N` in the run's directory, and `checkpoints/best` for the best.

    Under another name than `checkpoint` it has a directory of its own: `checkpoints/NAME`.

    A state is written at the end of an epoch, or of a step; when SIGTERM or Ctrl-C end the run;
    when SIGUSR1 asks for it, and the run goes on; and when the run fails, as `exception-N`. The
    oldest go when newer ones are durable.

    Args:
        monitor: a metric, `valid/loss` for example; without one there is no best.
        mode: whether a smaller ("min") or a larger ("max") value is better.
        every_steps: optimizer steps between states inside an epoch.
        every_epochs: epochs between states.
        every_minutes: minutes between states inside an epoch.
        keep_best: how many of the best states are kept.
        keep_last: how many of the last states are kept.
        threshold: only what is better than this is a best.
        background: write on a thread of its own: training waits for a copy in memory only.
        on_error: when a state cannot be written (the disk is full), end the run ("raise") or go
            on with the states of before and a warning ("warn").
    """

    def __init__(
        self,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "min",
        every_steps: int | None = None,
        every_epochs: int = 1,
        every_minutes: float | None = None,
        keep_best: int = 1,
        keep_last: int = 1,
        threshold: float | None = None,
        background: bool = False,
        on_error: Literal["raise", "warn"] = "raise",
    ) -> None:
        check_options(
            mode, on_error, every_minutes, threshold, every_epochs=every_epochs,
            keep_best=keep_best, keep_last=keep_last, every_steps=every_steps,
        )  # fmt: skip
        self.monitor = monitor
        self.mode = mode
        self.every_steps = every_steps
        self.every_epochs = every_epochs
        self.every_minutes = every_minutes
        self.keep_best = keep_best
        self.keep_last = keep_last
        self.threshold = threshold
        self.on_error = on_error
        self.background = background
        self._background = Background() if background else None
        self._monitor = None if monitor is None else Monitor(monitor, mode)
        #: Ends the answers to SIGUSR1.
        self._answers: Callable[[], None] | None = None
        self._fitting = False
        self._begin()

    def _begin(self) -> None:
        if self._monitor is not None:
            self._monitor.reset()
        #: What a state holds was looked at.
        self._checked = False
        #: The step whose state is kept as it is, whatever follows in its epoch.
        self._kept_step = -1
        #: The best states so far: value and directory name, the best first.
        self.best: list[tuple[float, str]] = []
        self.last: list[str] = []
        #: What goes when the next state is durable.
        self._superseded: list[str] = []
        #: What the three lists were before the state that is being written.
        self._before: tuple[list[tuple[float, str]], list[str], list[str]] = ([], [], [])
        self._saved_at = monotonic()
        self._saved_step = 0
        #: SIGUSR1 came.
        self._asked = False
        #: An optimizer is at work: the weights may be half old, half new.
        self._stepping = False

    @property
    def keeps_best(self) -> bool:
        """Whether there is a best to load when a run is over."""
        return self._monitor is not None

    def best_path(self, run: Run) -> Path | None:
        """The directory of the best state, or None when there is none yet."""
        if run.world_size == 1:
            self._deliver(run, wait=True)
        elif self._background is not None:  # the first process alone may ask
            self._background.wait()
        return self.directory(run) / self.best[0][1] if self.best else None

    # --- when to save --------------------------------------------------------------------------

    @hookimpl(tryfirst=True)
    def on_run_start(self, run: Run) -> None:
        """Start without a best, unless a checkpoint brings one, before anybody can validate."""
        if run.stage == "train":
            own, plugins = run.bus.name_of(self), run.bus.plugins.items()
            alike = [name for name, each in plugins if isinstance(each, Checkpoint)]
            states.check_folder(own, [name for name in alike if name != own])
            self._begin()
            self._fitting = True

    @hookimpl
    def on_fit_start(self, run: Run) -> None:
        """Listen to SIGUSR1."""
        self._answers = usr1.listen(self._ask)

    @hookimpl
    def on_epoch_start(self, run: Loop) -> None:
        """Refuse, before anything is trained, what could not be saved after it."""
        if not self._checked and not run.dry_run:
            from trainbus.engine import state

            self._checked = True
            try:
                state.check(run)
            except CheckpointError as error:
                self._before = (self.best, self.last, self._superseded)
                self._failed(run, error)

    @hookimpl
    def on_checkpoint_loaded(self, run: Run, path: Path) -> None:
        """Go on with the states that are on the disk; what was loaded need not be saved again."""
        self._saved_step = run.global_step
        if self._fitting:
            self._go_on(run, path)

    def _ask(self) -> None:
        self._asked = True

    @hookimpl(trylast=True)
    def on_before_optimizer_step(self) -> None:
        """From here on the weights may be half old, half new."""
        self._stepping = True

    @hookimpl
    def on_after_optimizer_step(self) -> None:
        """The weights are whole again."""
        self._stepping = False

    @hookimpl
    def on_savepoint(self, run: Loop, after: str) -> None:
        """Compare, and save what is due, asked for, or the last before the run ends.

        All processes of a run do, and come to the same: a state is of all of them.
        """
        if after == "train_batch":
            self._stepping = False
        if self._background is not None:
            self._deliver(run)
        if run.dry_run or not self._fitting:
            return
        if after == "epoch" or (after == "validation" and self._compares_validation):
            self._save_best(run)
        is_time = is_over(self.every_minutes, self._saved_at, after)
        if (
            run.stopping
            or run.wanted(Wish.SAVE, self._asked or is_time)
            or self._is_due(run, after)
        ):
            self._save_last(run)
            if after == "train_epoch" and not run.stopping:
                self._kept_step = run.global_step  # what follows is no part of a longer run

    def _is_due(self, run: Run, after: str) -> bool:
        if after == "train_batch":
            steps = self.every_steps
            if steps is not None and run.stepped and run.global_step % steps == 0:
                return True
            # In the last batch of an epoch more of it follows, and then another savepoint.
            return run.finished and run.batches_done != run.batches_in_pass
        if after == "epoch":
            return (run.epoch + 1) % self.every_epochs == 0 and self._kept_step != run.global_step
        return after == "train_epoch"

    @hookimpl(tryfirst=True)
    def on_fit_end(self, run: Run) -> None:
        """Save what the last epochs did, if that was not done."""
        name = f"step-{run.global_step:08d}"
        # Inside an epoch, where your own loop was left: what is newer than the last state.
        is_saved = run.batches_done and run.global_step == self._saved_step
        if not (run.dry_run or is_saved or run.accumulating) and name not in self.last:
            self._save_last(run)
        self._deliver(run, wait=True)

    @hookimpl(trylast=True, rank_zero=True)
    def on_exception(self, run: Loop, error: BaseException) -> None:
        """Save what is newer than the last state, if the weights are whole and finite."""
        at_once = run.interruption is not None and not isinstance(error, Exception)
        if at_once or isinstance(error, CheckpointError) or not self._fitting:
            return  # a signal that ended the run at once; what no state can hold
        if run.world_size > 1:  # a state is of all processes, and they are not all there
            return
        if run.position.is_half_restored:
            logger.warning("checkpoint: the run was not wholly restored; nothing is saved")
            return
        self._deliver(run, wait=True)
        if run.dry_run or run.global_step == self._saved_step:
            return
        if self._stepping or not is_finite(run):
            what = "half-updated" if self._stepping else "not finite"
            logger.warning("checkpoint: the weights are %s; nothing is saved", what)
            return
        name = f"exception-{run.global_step:08d}"
        self._before = (self.best, self.last, self._superseded)
        self.last = [*self.last, name]
        self._save(run, name)
        self._deliver(run, wait=True)

    @hookimpl
    def on_run_end(self, run: Run) -> None:
        """Wait for what is being written, and leave SIGUSR1 to who had it before."""
        if self._answers is not None:
            self._answers()
            self._answers = None
        self._fitting = False
        if run.world_size == 1:  # of several, all met at the end of the fit; or one has failed
            self._deliver(run, wait=True)
        elif self._background is not None:
            self._background.wait()

    # --- how to save ---------------------------------------------------------------------------

    @hookimpl
    def save_checkpoint(self, run: Loop, path: Path) -> bool | None:
        """With `background`, begin to write; `on_checkpoint_saved` fires when it is durable."""
        if self._background is None:
            return None
        self._deliver(run, wait=True)
        self._background.begin(run, path)
        return False

    def _deliver(self, run: Run, wait: bool = False) -> None:
        """Tell of a state that was written in the background."""
        if self._background is None:
            return
        try:
            path = self._background.delivered(run, wait)
        except CheckpointError as error:
            self._failed(run, error)
        else:
            if path is not None:
                run.fire("on_checkpoint_saved", path)

    @hookimpl
    def on_checkpoint_saved(self, run: Run, path: Path) -> None:
        """Let `best` lead to the best, and remove what is superseded."""
        directory = self.directory(run)
        if path.parent != directory:  # one of the user's own, or of another plugin of this kind
            return
        if run.rank:  # what is on the disk is the business of the first process
            self._superseded = []
            return
        if self.best:
            self._point(run, directory)
        kept = {*self.last, *(name for _, name in self.best)}
        for name in set(self._superseded) - kept:
            states.discard(directory, name)
        self._superseded = []
        remove_leftovers(directory)

    def _go_on(self, run: Run, path: Path) -> None:
        """Keep of the lists what is on the disk, and let go what nobody lists.

        A run may go on from an earlier state of its own: then what was kept in the future that it
        leaves goes with the next state, and a best that is gone is the state that it goes on from.
        """
        directory = self.directory(run) if run.has_dir else None
        here = set(run.peers.broadcast(sorted(states.found(directory))))
        here_too = path.name in here and path.parent == directory
        lost = [each for each in self.best if each[1] not in here]
        self.best = [each for each in self.best if each[1] in here]
        self.last = [name for name in self.last if name in here]
        for value, name in lost:
            if here_too and states.step_of(name) == run.global_step and name != path.name:
                self.best.append((value, path.name))
                lost = []
        self.best.sort(key=lambda each: each[0], reverse=self.mode == "max")
        if lost and not self.best:
            logger.warning(
                "%s: the best so far (%s of %.6g) is not on the disk here; the best is looked for "
                "anew", run.bus.name_of(self), self.monitor, lost[0][0],
            )  # fmt: skip
        kept = {*self.last, *(name for _, name in self.best)}
        others = sorted(here - kept - {*self._superseded, path.name})
        if others and run.rank == 0:
            logger.warning(
                "%s: the run goes on from %s; %s, which it leaves behind, %s removed when the next "
                "state is on the disk", run.bus.name_of(self), path, ", ".join(others),
                "is" if len(others) == 1 else "are",
            )  # fmt: skip
        self._superseded = sorted(here - kept)  # nothing else that a file lists
        if directory is not None and here and run.rank == 0:
            self._point(run, directory)

    def _point(self, run: Run, directory: Path) -> None:
        """Let `best` lead to the best state; where that cannot be, it is told, and left out."""
        link = directory / "best"
        try:
            states.point(link, self.best[0][1] if self.best else None)
        except OSError as error:
            if run.first_time(f"{link} cannot be made"):
                message = f"{run.bus.name_of(self)}: {link} is left out: {error}"
                logger.warning("%s", message)
                run.errors.append(message)

    def directory(self, run: Run) -> Path:
        """Where it keeps its states: each plugin of this kind in a directory of its own."""
        return run.dir / "checkpoints" / states.folder(run.bus.name_of(self))

    def _failed(self, run: Run, error: CheckpointError) -> None:
        """Go back to the states of before; they are all still there."""
        self.best, self.last, self._superseded = self._before
        if self.on_error == "raise":
            raise error
        kept = self.last[-1] if self.last else "none yet"
        logger.warning("%s; the run goes on (the newest state is %s)", error, kept)
        run.errors.append(str(error))

    def _save(self, run: Run, name: str) -> None:
        try:
            run.save_checkpoint(self.directory(run) / name)
        except CheckpointError as error:
            self._failed(run, error)

    @property
    def _compares_validation(self) -> bool:
        return self.monitor is not None and self.monitor.startswith("valid/")

    def _save_last(self, run: Run) -> None:
        self._deliver(run, wait=True)
        self._before = (self.best, self.last, self._superseded)
        name = f"step-{run.global_step:08d}"
        last = [*(other for other in self.last if other != name), name]
        self.last = last[-self.keep_last :]
        self._superseded = [*self._superseded, *last[: -self.keep_last]]
        self._asked = False
        self._saved_at = monotonic()
        self._saved_step = run.global_step
        self._save(run, name)

    def _new_value(self, run: Loop) -> float | None:
        """The metric, where it was measured anew; of several processes that of the first."""
        if self._monitor is None or run.rank or not self._monitor.due(run):
            return None
        return self._monitor.value(run, run.bus.name_of(self))

    def _save_best(self, run: Loop) -> None:
        value = run.peers.broadcast(self._new_value(run))
        if value is None:
            return
        sign = -1 if self.mode == "max" else 1
        if self.threshold is not None and not sign * value < sign * self.threshold:
            return
        worse = sign * value
        kept = [sign * v for v, _ in self.best]
        if not math.isfinite(value) or (len(kept) >= self.keep_best and worse >= kept[-1]):
            return
        self._deliver(run, wait=True)
        self._before = (self.best, self.last, self._superseded)
        name = f"best-{run.global_step:08d}"
        best = sorted([*self.best, (value, name)], reverse=self.mode == "max", key=lambda b: b[0])
        self.best = best[: self.keep_best]
        if not run.position.measures_last:  # else a run that goes on has these still
            self._superseded = [*self._superseded, *(old for _, old in best[self.keep_best :])]
        self._save(run, name)

    def state_dict(self) -> dict[str, Any]:
        """What the best and the last states are, to go on with them."""
        return {
            "monitor": None if self._monitor is None else self._monitor.state_dict(),
            "best": [list(each) for each in self.best],
            "last": list(self.last),
            "superseded": list(self._superseded),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the states of before; with the best, if it is the best of the same metric.

        Raises:
            CheckpointError: it is the section of something else.
        """
        sections.check(state, SECTION, "checkpoint")
        before = state["monitor"] or {"metric": None, "mode": None}
        self.best = []
        if (before["metric"], before["mode"]) == (self.monitor, self.mode):
            self.best = [(value, name) for value, name in state["best"]]
        elif state["best"] and self.monitor is not None:
            logger.warning(
                "checkpoint: the best so far was that of %s; that of %s (%s) is looked for anew",
                before["metric"], self.monitor, self.mode,
            )  # fmt: skip
        if self._monitor is not None and state["monitor"] is not None:
            self._monitor.load_state_dict(state["monitor"])
        self.last = list(state["last"])
        self._superseded = list(state["superseded"])

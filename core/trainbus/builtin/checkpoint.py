"""Keep the last and the best states of a run on the disk."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
import signal
import threading
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

from trainbus.builtin.background import Background
from trainbus.builtin.monitor import Monitor
from trainbus.errors import CheckpointError, PluginError
from trainbus.events.markers import hookimpl
from trainbus.storage.files import remove_leftovers

if TYPE_CHECKING:
    from trainbus.engine.loop import Loop
    from trainbus.engine.run import Run

logger = logging.getLogger("trainbus")


class Checkpoint:
    """Write `checkpoints/step-N` in the run's directory, and `checkpoints/best` for the best.

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
        background: bool = False,
        on_error: Literal["raise", "warn"] = "raise",
    ) -> None:
        if mode not in ("min", "max"):
            raise PluginError(f"mode={mode!r}: give 'min' or 'max'")
        if on_error not in ("raise", "warn"):
            raise PluginError(f"on_error={on_error!r}: give 'raise' or 'warn'")
        counts = {"every_epochs": every_epochs, "keep_best": keep_best, "keep_last": keep_last}
        for name, count in {**counts, "every_steps": every_steps}.items():
            if count is not None and count < 1:
                raise PluginError(f"{name}={count}: give a whole number of at least 1")
        if every_minutes is not None and every_minutes <= 0:
            raise PluginError(f"every_minutes={every_minutes}: give a number greater than 0")
        self.monitor = monitor
        self.mode = mode
        self.every_steps = every_steps
        self.every_epochs = every_epochs
        self.every_minutes = every_minutes
        self.keep_best = keep_best
        self.keep_last = keep_last
        self.on_error = on_error
        self.background = background
        self._background = Background() if background else None
        self._signal_handler: Any = None
        self._fitting = False
        self._begin()

    def _begin(self) -> None:
        #: A validation took place in this epoch.
        self._validated = False
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

    def best_path(self, run: Run) -> Path | None:
        """The directory of the best state, or None when there is none yet."""
        self._deliver(run, wait=True)
        return run.dir / "checkpoints" / self.best[0][1] if self.best else None

    # --- when to save --------------------------------------------------------------------------

    @hookimpl
    def on_fit_start(self, run: Run) -> None:
        """Start without a best, unless a checkpoint brings one; listen to SIGUSR1."""
        self._begin()
        self._fitting = True
        self._saved_step = run.global_step
        # Python allows handlers in the main thread only, and some systems have no such signal.
        if hasattr(signal, "SIGUSR1") and threading.current_thread() is threading.main_thread():
            self._signal_handler = signal.signal(signal.SIGUSR1, self._ask) or signal.SIG_DFL

    @hookimpl
    def on_checkpoint_loaded(self, run: Run) -> None:
        """What was loaded need not be saved again."""
        self._saved_step = run.global_step

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True

    @hookimpl(trylast=True)
    def on_before_optimizer_step(self) -> None:
        """From here on the weights may be half old, half new."""
        self._stepping = True

    @hookimpl
    def on_after_optimizer_step(self) -> None:
        """The weights are whole again."""
        self._stepping = False

    @hookimpl(trylast=True, rank_zero=True)
    def on_train_batch_end(self, run: Run) -> None:
        """Save inside an epoch, when it is due or asked for, or a signal ends the run."""
        self._stepping = False
        if self._background is not None:
            self._deliver(run)
        if run.accumulating or run.dry_run:
            return
        due = run.stepped and (
            self.every_steps is not None and run.global_step % self.every_steps == 0
        )
        if self.every_minutes is not None:
            due = due or monotonic() - self._saved_at >= 60 * self.every_minutes
        if due or run.stopping or self._asked:
            self._save_last(run)

    @hookimpl
    def on_epoch_start(self) -> None:
        """No validation yet."""
        self._validated = False

    @hookimpl(trylast=True, rank_zero=True)
    def on_validation_end(self, run: Run) -> None:
        """Compare, unless the pass was broken off."""
        if not (run.dry_run or run.stopping) and self._compares_validation:
            self._validated = True
            self._save_best(run)

    @hookimpl(trylast=True, rank_zero=True, after=["early_stopping"])
    def on_epoch_end(self, run: Run) -> None:
        """Compare what is not a validation's, then save."""
        if run.dry_run or run.batches_done:  # the epoch was cut short
            return
        due = run.trainer.validate_every <= 1 and not run.stopping
        if not self._compares_validation or (due and not self._validated):
            self._save_best(run)
        if (run.epoch + 1) % self.every_epochs == 0:
            self._save_last(run)

    @hookimpl(tryfirst=True, rank_zero=True)
    def on_fit_end(self, run: Run) -> None:
        """Save what the last epochs did, if that was not done."""
        name = f"step-{run.global_step:08d}"
        if not (run.dry_run or run.batches_done) and name not in self.last:
            self._save_last(run)
        self._deliver(run, wait=True)

    @hookimpl(trylast=True, rank_zero=True)
    def on_exception(self, run: Run, error: BaseException) -> None:
        """Save what is newer than the last state, if the weights are whole and finite."""
        if run.status != "failed" or isinstance(error, CheckpointError) or not self._fitting:
            return
        self._deliver(run, wait=True)
        if run.dry_run or run.global_step == self._saved_step:
            return
        if self._stepping or not _finite(run):
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
        if self._signal_handler is not None:
            signal.signal(signal.SIGUSR1, self._signal_handler)
            self._signal_handler = None
        self._fitting = False
        self._deliver(run, wait=True)

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
            path = self._background.finished(wait)
        except CheckpointError as error:
            self._failed(run, error)
        else:
            if path is not None:
                run.fire("on_checkpoint_saved", path)

    @hookimpl
    def on_checkpoint_saved(self, run: Run, path: Path) -> None:
        """Let `best` lead to the best, and remove what is superseded."""

        directory = run.dir / "checkpoints"
        if path.parent != directory:  # one of the user's own
            return
        if self.best:
            _point(directory / "best", self.best[0][1])
        kept = {*self.last, *(name for _, name in self.best)}
        for name in set(self._superseded) - kept:
            shutil.rmtree(directory / name, ignore_errors=True)
        self._superseded = []
        remove_leftovers(directory)

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
            run.save_checkpoint(run.dir / "checkpoints" / name)
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

    def _save_best(self, run: Run) -> None:
        if self.monitor is None:
            return
        value = Monitor(self.monitor, self.mode).value(run, "checkpoint")
        worse = -value if self.mode == "max" else value
        kept = [-v if self.mode == "max" else v for v, _ in self.best]
        if math.isnan(value) or (len(kept) >= self.keep_best and worse >= kept[-1]):
            return
        self._deliver(run, wait=True)
        self._before = (self.best, self.last, self._superseded)
        name = f"best-{run.global_step:08d}"
        best = sorted([*self.best, (value, name)], reverse=self.mode == "max", key=lambda b: b[0])
        self.best = best[: self.keep_best]
        self._superseded = [*self._superseded, *(old for _, old in best[self.keep_best :])]
        self._save(run, name)

    def state_dict(self) -> dict[str, Any]:
        """What the best and the last states are, to go on with them."""
        return {
            "best": [list(each) for each in self.best],
            "last": list(self.last),
            "superseded": list(self._superseded),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the states of before."""
        self.best = [(value, name) for value, name in state["best"]]
        self.last = list(state["last"])
        self._superseded = list(state["superseded"])


def _point(link: Path, target: str) -> None:
    """Make `best` lead to another directory, in one move."""
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    temporary.symlink_to(target, target_is_directory=True)
    temporary.replace(link)


def _finite(run: Run) -> bool:
    import torch

    return all(bool(torch.isfinite(p.detach()).all()) for p in run.task.parameters())

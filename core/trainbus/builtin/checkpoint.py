"""Keep the last and the best states of a run on the disk."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

from trainbus.builtin.monitor import Monitor
from trainbus.errors import PluginError
from trainbus.markers import hookimpl

if TYPE_CHECKING:
    from trainbus.run import Run


class Checkpoint:
    """Write `checkpoints/step-N` in the run's directory, and `checkpoints/best` for the best.

    A state is written at the end of an epoch, or of a step, and when a signal ends the run; the
    oldest go when newer ones are durable.

    Args:
        monitor: a metric, `valid/loss` for example; without one there is no best.
        mode: whether a smaller ("min") or a larger ("max") value is better.
        every_steps: optimizer steps between states inside an epoch.
        every_epochs: epochs between states.
        every_minutes: minutes between states inside an epoch.
        keep_best: how many of the best states are kept.
        keep_last: how many of the last states are kept.
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
    ) -> None:
        if mode not in ("min", "max"):
            raise PluginError(f"mode={mode!r}: give 'min' or 'max'")
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
        self._begin()

    def _begin(self) -> None:
        #: A validation took place in this epoch.
        self._validated = False
        #: The best states so far: value and directory name, the best first.
        self.best: list[tuple[float, str]] = []
        self.last: list[str] = []
        self._saved_at = monotonic()

    def best_path(self, run: Run) -> Path | None:
        """The directory of the best state, or None when there is none yet."""
        return run.dir / "checkpoints" / self.best[0][1] if self.best else None

    @hookimpl
    def on_fit_start(self) -> None:
        """Start without a best, unless a checkpoint brings one."""
        self._begin()

    @hookimpl(trylast=True, rank_zero=True)
    def on_train_batch_end(self, run: Run) -> None:
        """Save inside an epoch, when it is due or a signal ends the run."""
        if not run.stepped or run.dry_run:
            return
        due = self.every_steps is not None and run.global_step % self.every_steps == 0
        if self.every_minutes is not None:
            due = due or monotonic() - self._saved_at >= 60 * self.every_minutes
        if due or run.stopping:
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

    @property
    def _compares_validation(self) -> bool:
        return self.monitor is not None and self.monitor.startswith("valid/")

    def _save_last(self, run: Run) -> None:
        name = f"step-{run.global_step:08d}"
        self.last = [*(other for other in self.last if other != name), name]
        gone, self.last = self.last[: -self.keep_last], self.last[-self.keep_last :]
        run.save_checkpoint(run.dir / "checkpoints" / name)
        self._saved_at = monotonic()
        _remove(run.dir / "checkpoints", gone)

    def _save_best(self, run: Run) -> None:
        if self.monitor is None:
            return
        value = Monitor(self.monitor, self.mode).value(run, "checkpoint")
        worse = -value if self.mode == "max" else value
        kept = [-v if self.mode == "max" else v for v, _ in self.best]
        if math.isnan(value) or (len(kept) >= self.keep_best and worse >= kept[-1]):
            return
        name = f"best-{run.global_step:08d}"
        best = sorted([*self.best, (value, name)], reverse=self.mode == "max", key=lambda b: b[0])
        self.best, gone = best[: self.keep_best], best[self.keep_best :]
        directory = run.dir / "checkpoints"
        run.save_checkpoint(directory / name)
        _point(directory / "best", self.best[0][1])
        _remove(directory, [old for _, old in gone])

    def state_dict(self) -> dict[str, Any]:
        """What the best and the last states are, to go on with them."""
        return {"best": [list(each) for each in self.best], "last": list(self.last)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the states of before."""
        self.best = [(value, name) for value, name in state["best"]]
        self.last = list(state["last"])


def _point(link: Path, target: str) -> None:
    """Make `best` lead to another directory, in one move."""
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    temporary.symlink_to(target, target_is_directory=True)
    temporary.replace(link)


def _remove(directory: Path, names: list[str]) -> None:
    for name in names:
        shutil.rmtree(directory / name, ignore_errors=True)

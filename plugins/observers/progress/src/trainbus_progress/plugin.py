"""The events of a run, as a story for the display."""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING

from trainbus import PluginError, hookimpl
from trainbus.errors import nearest

from trainbus_progress.text import Pass, Table, clock, count, described, duration

if TYPE_CHECKING:
    from rich.console import Console
    from trainbus import Run

    from trainbus_progress.display import Display

logger = logging.getLogger("trainbus")

_NAMES = {"train": "training", "valid": "validation", "test": "test", "predict": "prediction"}
_EVALUATED = ("valid/", "test/", "predict/")
_STYLES = {"completed": "green", "failed": "bold red"}


class Progress:
    """Show how a run goes: its header, a bar, a line for each epoch, and how it ended.

    Nothing here waits for the device: during a pass only numbers are shown that were fetched
    already.

    Args:
        refresh: updates of the bars per second, in a terminal or a notebook.
        metrics: those to show, as `accuracy` or as `valid/accuracy`; all of them by default.
    """

    observer = True

    #: Where to show it; None for the standard output. No option: set it on the object.
    console: Console | None = None

    def __init__(self, refresh: float = 10.0, metrics: list[str] | None = None) -> None:
        if refresh <= 0:
            raise PluginError(f"refresh={refresh}: give updates per second, more than 0")
        self.refresh = refresh
        self.metrics = metrics
        self._display: Display | None = None

    # --- the run -------------------------------------------------------------------------------

    @hookimpl
    def on_run_start(self) -> None:
        """Import rich, so that its absence is known before the first step."""
        import rich  # noqa: F401

        self._display = None

    @hookimpl(trylast=True, rank_zero=True)
    def on_fit_start(self, run: Run) -> None:
        """Print the header, as all plugins have completed it."""
        self._begin(run, "train")
        topics = {"task": run.name, **run.header}
        if run.dry_run:
            topics["dry run"] = "a few batches of everything; loggers and checkpoints are off"
        elif run.has_dir:
            topics["directory"] = str(run.dir)
        self._show.header(topics)

    def _begin(self, run: Run, stage: str) -> None:
        from trainbus_progress.display import choose

        self._display = choose(self.console, self.refresh)
        self._stage = stage
        self._table = Table()
        self._started = self._epoch_started = monotonic()
        self._first_epoch, self._first_step = run.epoch, run.global_step
        self._trained: dict[str, float] = {}
        self._evaluated: dict[str, float] = {}
        #: The training pass at work, and the pass at work: that one, or one inside it.
        self._training: Pass | None = None
        self._pass: Pass | None = None
        self._reason = ""

    @property
    def _show(self) -> Display:
        assert self._display is not None
        return self._display

    @hookimpl(rank_zero=True)
    def on_exception(self, error: BaseException) -> None:
        """Give the terminal back before others tell of the error."""
        if self._display is not None:
            self._display.close()
            text = f"{type(error).__name__}: {error}".partition("\n")[0]
            self._reason = "" if isinstance(error, KeyboardInterrupt) else text.removesuffix(": ")

    @hookimpl(trylast=True, rank_zero=True)
    def on_run_end(self, run: Run, status: str) -> None:
        """Give the terminal back and tell how it ended."""
        display, self._display = self._display, None
        if display is None:  # it ended before anything was shown
            return
        display.close()
        display.line(self._ending(run, status), _STYLES.get(status, "yellow"))
        for error in run.errors:
            display.line(f"error: {error}", "red")
        if status == "completed" and self._stage == "train":
            self._check_names(run)

    def _ending(self, run: Run, status: str) -> str:
        reason = run.stop_reason or self._reason
        parts = []
        if self._stage == "train":
            parts = [count(run.epoch, "epoch", "epochs"), count(run.global_step, "step", "steps")]
        elif self._pass is not None:
            parts = [count(self._pass.done, "batch", "batches")]
        if status == "completed":
            parts += described(self._evaluated)
        if run.has_dir and not run.dry_run:
            parts.append(f"in {run.dir}")
        return (
            ("dry run: " if run.dry_run else "")
            + f"{_NAMES[self._stage]} {status}"
            + (f" ({reason})" if reason else "")
            + f" after {duration(monotonic() - self._started)}: {', '.join(parts)}"
        )

    # --- training ------------------------------------------------------------------------------

    @hookimpl(rank_zero=True)
    def on_epoch_start(self) -> None:
        """Look at the clock."""
        self._epoch_started = monotonic()

    @hookimpl(rank_zero=True)
    def on_train_epoch_start(self, run: Run) -> None:
        """Start the bar."""
        title = f"epoch {self._label(run)}"
        self._training = self._pass = Pass(title, run.batches_in_pass, monotonic())
        self._redraw(run)

    @hookimpl(rank_zero=True)
    def on_train_batch_end(self, run: Run) -> None:
        """Count, and draw when it is due."""
        self._pass.done = run.batch_index + 1  # type: ignore[union-attr]
        if monotonic() >= self._due:
            self._update(run)

    @hookimpl(rank_zero=True)
    def on_train_epoch_end(self, run: Run) -> None:
        """Keep the means of the pass."""
        self._redraw(run)
        self._training = None
        self._trained = self._chosen(run, means=True)
        if "epoch" not in run.open_events:  # a loop of one's own, without `run.epochs`
            self._row(self._label(run))
            self._epoch_started = monotonic()

    @hookimpl(trylast=True, rank_zero=True)
    def on_epoch_end(self, run: Run) -> None:
        """Print the epoch's line."""
        self._row(self._label(run))

    def _row(self, label: str) -> None:
        seconds = monotonic() - self._epoch_started
        head, row = self._table.row(label, {**self._trained, **self._evaluated}, seconds)
        if head:
            self._show.line(head, "bold")
        self._show.line(row)
        self._trained, self._evaluated = {}, {}

    def _label(self, run: Run) -> str:
        planned = run.epochs_planned
        if planned is None:
            return str(run.epoch + 1)
        return f"{run.epoch + 1:>{len(str(planned))}}/{planned}"

    # --- validation, test and prediction -------------------------------------------------------

    @hookimpl(rank_zero=True)
    def on_validation_start(self, run: Run) -> None:
        """Start a bar, below that of a training pass that is not over."""
        self._enter(run, "valid")

    @hookimpl(rank_zero=True)
    def on_validation_batch_end(self, run: Run) -> None:
        """Count, and draw when it is due."""
        self.on_train_batch_end(run)

    @hookimpl(rank_zero=True)
    def on_validation_end(self, run: Run) -> None:
        """Keep the metrics; inside an epoch they get a line of their own."""
        self._leave(run, "valid")
        if self._training is not None:
            self._resume(run, self._training)
        elif self._stage == "train" and "epoch" not in run.open_events:
            self._row(self._label(run))

    def _resume(self, run: Run, training: Pass) -> None:
        training.resume(monotonic())
        self._pass = training
        if training.total is not None and training.done < training.total:
            self._row(f"{run.epoch + training.done / training.total:.2f}")

    @hookimpl(rank_zero=True)
    def on_test_start(self, run: Run) -> None:
        """Start a bar."""
        self._enter(run, "test")

    @hookimpl(rank_zero=True)
    def on_test_batch_end(self, run: Run) -> None:
        """Count, and draw when it is due."""
        self.on_train_batch_end(run)

    @hookimpl(rank_zero=True)
    def on_test_end(self, run: Run) -> None:
        """Keep the metrics for the last line."""
        self._leave(run, "test")

    @hookimpl(rank_zero=True)
    def on_predict_start(self, run: Run) -> None:
        """Start a bar."""
        self._enter(run, "predict")

    @hookimpl(rank_zero=True)
    def on_predict_batch_end(self, run: Run) -> None:
        """Count, and draw when it is due."""
        self.on_train_batch_end(run)

    @hookimpl(rank_zero=True)
    def on_predict_end(self, run: Run) -> None:
        """Show the last count."""
        self._redraw(run)

    def _enter(self, run: Run, stage: str) -> None:
        if self._display is None:
            self._begin(run, stage)
        if self._training is not None:
            self._training.update(monotonic(), self._training.notes)
        self._pass = Pass(stage, run.batches_in_pass, monotonic())
        self._redraw(run)

    def _leave(self, run: Run, stage: str) -> None:
        self._redraw(run)
        self._evaluated = self._chosen(run, stage)

    # --- what is shown -------------------------------------------------------------------------

    def _redraw(self, run: Run) -> None:
        """A pass has begun or ended."""
        self._update(run, due=False)

    def _update(self, run: Run, due: bool = True) -> None:
        now = monotonic()
        at_work = self._pass
        assert at_work is not None
        at_work.update(now, self._notes(run, now) if at_work is self._training else ())
        passes = [at_work] if self._training in (None, at_work) else [self._training, at_work]
        self._show.update(passes, due)
        # Drawing takes its time, too, on a slow connection.
        self._due = monotonic() + self._show.interval

    def _notes(self, run: Run, now: float) -> list[str]:
        """What a training pass has to say beyond itself."""
        notes = []
        if run.trainer.max_steps is not None:
            notes.append(f"step {run.global_step}/{run.trainer.max_steps}")
        left = self._left(run, now)
        if left is not None:
            notes.append(f"run {clock(left)} left")
        here = {name.removeprefix("train/"): value for name, value in self._chosen(run).items()}
        return notes + described(here)

    def _left(self, run: Run, now: float) -> float | None:
        """Seconds until epochs, steps or time are over, whichever is first; None if unknown.

        None, too, when this is the only epoch: the bar tells the same.
        """
        shares = []
        epochs = (run.epochs_planned or 1) - self._first_epoch
        if epochs > 1 and run.batches_in_pass:
            done = (run.batch_index + 1) / run.batches_in_pass
            shares.append((run.epoch - self._first_epoch + done) / epochs)
        if run.trainer.max_steps is not None:
            steps = run.trainer.max_steps - self._first_step
            shares.append((run.global_step - self._first_step) / max(1, steps))
        elapsed = now - self._started
        ends = [elapsed * (1 - share) / share for share in shares if share > 0]
        if run.deadline is not None:
            ends.append(run.deadline - now)
        return max(0.0, min(ends)) if ends else None

    def _chosen(self, run: Run, stage: str = "train", means: bool = False) -> dict[str, float]:
        """The newest numbers of a stage that are on the host, under the names they are shown by.

        In training, each metric has a value for a step and, as `.../name_epoch`, its `means`; one
        that is computed by an object has no other value than that of the whole pass.
        """
        found, chosen = run.last_metrics, {}
        for name, value in found.items():
            plain = name
            if stage != "train":
                fits = name.startswith(f"{stage}/")
            elif name.startswith(_EVALUATED):
                fits = False
            elif name.endswith("_epoch"):
                fits, plain = means, name.removesuffix("_epoch")
            else:
                fits = not means or f"{name}_epoch" not in found
            if fits and self._wanted(plain):
                chosen[plain] = value
        return chosen

    def _wanted(self, name: str) -> bool:
        return self.metrics is None or not {name, name.partition("/")[2]}.isdisjoint(self.metrics)

    def _check_names(self, run: Run) -> None:
        """Say which of the chosen metrics never came."""
        logged = {name.removesuffix("_epoch") for name in run.last_metrics}
        known = logged | {name.partition("/")[2] for name in logged}
        for name in self.metrics or ():
            if name not in known:
                logger.warning(
                    "progress was to show %r, which was not logged%s Logged were: %s",
                    name, nearest(name, known), ", ".join(sorted(logged)) or "none",
                )  # fmt: skip

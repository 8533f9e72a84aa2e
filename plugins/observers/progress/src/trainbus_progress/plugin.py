"""The events of a run, as a story for the display."""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING

from trainbus import hookimpl
from trainbus.arguments import check_number
from trainbus_progress.metrics import evaluated, missing, trained
from trainbus_progress.text import Pass, Table, clock, count, described, duration

if TYPE_CHECKING:
    from rich.console import Console

    from trainbus import Run
    from trainbus_progress.display import Display

logger = logging.getLogger("trainbus")

_NAMES = {"train": "training", "valid": "validation", "test": "test", "predict": "prediction"}
#: A header is not longer than this; the rest is in `run.json`.
HEADER_LINES = 10
_STYLES = {"completed": "green", "failed": "bold red"}


class Progress:
    """Show how a run goes: its header, a bar, a line for each epoch, and how it ended.

    Nothing here waits for the device: during a pass only numbers are shown that were fetched
    already.

    Args:
        refresh: updates of the bars per second, in a terminal or a notebook.
        metrics: those to show, as `accuracy` or as `valid/accuracy`; all of them by default.
        verbose: show the whole header, and not its first ten lines.
    """

    observer = True
    #: The log does without the header of a run.
    shows_header = True

    #: Where to show it; None for the standard output. No option: set it on the object.
    console: Console | None = None

    def __init__(
        self, refresh: float = 10.0, metrics: list[str] | None = None, verbose: bool = False
    ) -> None:
        check_number(above=0, refresh=refresh)
        self.refresh = refresh
        self.metrics = metrics
        self.verbose = verbose
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
        self._begin(run)
        topics = {"task": run.name, **run.header}
        if run.dry_run:
            topics["dry run"] = "a few batches of everything; loggers and checkpoints are off"
        elif run.has_dir:
            topics["directory"] = str(run.dir)
        verbose = self.verbose or logger.isEnabledFor(logging.INFO)
        try:
            self._show.header(topics, None if verbose else HEADER_LINES)
        except (OSError, ValueError) as error:  # a pipe that nobody reads is no reason not to train
            logger.warning("progress: the header cannot be shown: %s", error)

    def _begin(self, run: Run) -> None:
        from trainbus_progress.display import choose

        self._display = choose(self.console, self.refresh)
        self._stage = run.stage
        self._table = Table()
        self._started = self._epoch_started = monotonic()
        self._first_epoch, self._first_step = run.epoch, run.global_step
        limit = run.trainer.max_seconds
        self._deadline = None if limit is None else self._started + limit
        self._trained: dict[str, float] = {}
        self._evaluated: dict[str, float] = {}
        #: The training pass at work, and the pass at work: that one, or one inside it.
        self._training: Pass | None = None
        self._pass: Pass | None = None
        #: How much of the last training pass was done.
        self._share = 1.0
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
            for message in missing(run.last_metrics, self.metrics):
                logger.warning("progress: %s", message)

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
        self._share = self._training.share if self._training is not None else 1.0
        self._training = None
        self._trained = trained(run.last_metrics, self.metrics, means=True)
        if "epoch" not in run.open_events:  # your own loop, without `run.epochs`
            self._row(self._label(run))
            self._epoch_started = monotonic()

    @hookimpl(trylast=True, rank_zero=True)
    def on_epoch_end(self, run: Run) -> None:
        """Print the epoch's line."""
        cut_short = (run.stopping or run.finished) and self._share < 1
        self._row(f"{run.epoch + self._share:.2f}" if cut_short else self._label(run))

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
        if self._display is None:
            self._begin(run)
        if self._training is not None:
            self._training.update(monotonic(), self._training.notes)
        self._pass = Pass(run.stage, run.batches_in_pass, monotonic())
        self._redraw(run)

    @hookimpl(rank_zero=True)
    def on_validation_end(self, run: Run) -> None:
        """Keep the metrics; inside an epoch they get a line of their own."""
        self._redraw(run)
        metrics = evaluated(run.last_metrics, run.stage, self.metrics)
        if self._stage == "train" and run.stage != "valid":
            # A test inside a fit is no part of an epoch's row.
            if metrics:
                self._show.line(f"{_NAMES[run.stage]}: {', '.join(described(metrics))}")
            return
        self._evaluated = metrics
        if self._training is not None:
            self._resume(run, self._training)
        elif self._stage == "train" and "epoch" not in run.open_events:
            self._row(self._label(run))

    def _resume(self, run: Run, training: Pass) -> None:
        training.resume(monotonic())
        self._pass = training
        if training.share < 1:
            self._row(f"{run.epoch + training.share:.2f}")

    on_test_start = on_predict_start = on_validation_start
    on_test_end = on_predict_end = on_validation_end
    on_validation_batch_end = on_test_batch_end = on_predict_batch_end = on_train_batch_end

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
        newest = trained(run.last_metrics, self.metrics)
        return notes + described({name.removeprefix("train/"): newest[name] for name in newest})

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
        if self._deadline is not None:
            ends.append(self._deadline - now)
        return max(0.0, min(ends)) if ends else None

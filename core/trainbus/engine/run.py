"""Run: what every hook and every task receives. Its verbs are those of `Step` and `Loop`."""
# mypy: disable-error-code="empty-body"

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainbus import batches
from trainbus.bus import Bus
from trainbus.checkpoints import weights
from trainbus.checkpoints.foreign_weights import Loaded
from trainbus.devices.accelerator import Accelerator
from trainbus.devices.peers import Peers
from trainbus.engine.accumulation import SharedWindow, Window
from trainbus.engine.agreement import Agreement
from trainbus.engine.interrupts import unbroken
from trainbus.engine.metrics import MetricBuffer, Reduce
from trainbus.engine.settings import Settings
from trainbus.engine.wishes import Wish
from trainbus.errors import UsageError, nearest
from trainbus.events.plugin import Plugin
from trainbus.records.artifacts import ARTIFACT_KINDS, Artifact, ArtifactKind
from trainbus.records.values import read_only
from trainbus.secrets import hide_secrets
from trainbus.storage.run_dir import RunDirectory

if TYPE_CHECKING:
    from trainbus.engine.task import Task

logger = logging.getLogger("trainbus")

Stage = Literal["train", "valid", "test", "predict"]
Status = Literal["running", "completed", "stopped", "interrupted", "failed"]


class Run:
    """The contract: all that a listener or a task may read, change or ask for.

    Changeable in the middle of a run: `batch`, `batch_size`, `loss`, `loss_to_backward`, `output`,
    `accumulate`, `header`, and the attributes of the objects it holds.
    """

    def __init__(
        self,
        trainer: Settings,
        bus: Bus,
        task: Task,
        accelerator: Accelerator,
        loaded: Sequence[Plugin],
        buffer: MetricBuffer,
        directory: RunDirectory,
        peers: Peers | None = None,
    ) -> None:
        #: What the trainer was told.
        self.trainer = trainer
        self.bus = bus
        #: The science, as given; `model` is what `configure_model` made of it.
        self.task = task
        self.model: nn.Module = task
        self.accelerator = accelerator
        #: The plugins of the trainer, with who named them.
        self.loaded = loaded
        self.name = task.run_name
        self.precision = trainer.precision
        #: The processes that train together, and this one among them.
        self.peers = peers = Peers() if peers is None else peers
        self.rank = peers.rank
        self.world_size = peers.world_size
        #: How processes end together; None in a process alone.
        self.agreement = Agreement(peers) if peers.world_size > 1 else None
        self.dry_run = trainer.dry_run is not None
        #: What the run has to say at its start, by topic.
        self.header: dict[str, str] = {}

        #: How the run goes, or went.
        self.status: Status = "running"
        self.stop_reason = ""
        #: The run ends after this batch, and is not validated.
        self.stopping = False
        #: `max_steps` or `max_time` was reached: the run is complete, and is still validated.
        self.finished = False
        #: What a signal asked to raise once the batch is done.
        self.interruption: BaseException | None = None

        self.stage: Stage = "train"
        #: Events that began and have not ended, the innermost last.
        self.open_events: list[str] = []
        #: The index of the epoch at work, and how many are to be made, where that is known.
        self.epoch = 0
        self.epochs_planned: int | None = None
        #: Optimizer steps of the whole run, where that is known before it begins.
        self.total_steps: int | None = None
        #: Training passes that are complete: `epoch`, or one more once the present one is.
        self.epochs_done = 0
        #: Steps made: batches, or windows of accumulated batches, in which an optimizer stepped.
        self.global_step = 0
        self.skipped_steps = 0
        #: What the present pass reads, and its batches, or None when the loader does not tell.
        self.loader: Iterable[Any] = ()
        self.batches_in_pass: int | None = None
        #: The one of several loaders that is evaluated now, by name.
        self.loader_name = ""
        #: Batches of the present training pass that are done; none between passes.
        self.batches_done = 0

        self.batch: Any = None
        self.batch_index = -1
        #: What the step returned.
        self.output: Any = None
        #: What is logged, without a graph; and what is differentiated.
        self.loss: Tensor | None = None
        self.loss_to_backward: Tensor | None = None
        #: Differentiate for these tensors only (set by `run.backward(loss, optimizer)`).
        self.backward_inputs: list[Tensor] | None = None
        self.optimizers: list[Optimizer] = []
        #: The optimizer at hand, in the hooks around its step. None before there are any, which no
        #: listener of these hooks meets.
        self.optimizer: Optimizer = None  # type: ignore[assignment]
        #: An optimizer has stepped in this batch.
        self.stepped = False
        #: Batches whose gradients make one step, and those of the present window.
        self.accumulate = trainer.accumulate
        self.window = Window() if self.agreement is None else SharedWindow(peers)
        #: This batch ends no window: its gradients wait for those of the next.
        self.accumulating = False
        #: The task steps by itself, in this batch; or your own loop makes the steps.
        self.manual = False
        self.by_hand = False

        self._buffer = buffer
        self._directory = directory
        self._first_times: set[str] = set()
        self._claims: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<Run {self.name}: {self.status}, epoch {self.epoch}, step {self.global_step}>"

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a run has no attribute {name!r}", name=name, obj=self)

    # --- what it is and where it writes --------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the model and the batches are."""
        return self.accelerator.device

    @property
    def dir(self) -> Path:
        """The directory of this run, made when it is first asked for."""
        return self._directory.path

    @property
    def has_dir(self) -> bool:
        """Whether the directory was made."""
        return self._directory.is_made

    @property
    def errors(self) -> list[str]:
        """Failures of plugins that did not end the run."""
        return self.bus.errors

    # --- logging -------------------------------------------------------------------------------

    @property
    def metrics(self) -> dict[str, float]:
        """The newest value of each metric; reading it fetches what is pending from the device."""
        self.flush()
        return self._buffer.latest

    @property
    def last_metrics(self) -> dict[str, float]:
        """The newest values that were fetched already; reading it waits for nothing."""
        return self._buffer.latest

    @property
    def batch_size(self) -> int:
        """Samples in `run.batch`: the weight of what is logged. Set it where a guess is wrong."""
        if self._buffer.weight is None:
            self._buffer.weight, sure = batches.samples(self.batch)
            if not sure and self.first_time("batch_size"):
                logger.warning(
                    "how many samples a batch holds is guessed: %d of this one (%s); set "
                    "run.batch_size in the step where that is wrong: means are weighted by it",
                    self._buffer.weight, type(self.batch).__name__,
                )  # fmt: skip
        return self._buffer.weight

    @batch_size.setter
    def batch_size(self, samples: int) -> None:
        self._buffer.weight = samples

    def log(
        self,
        metrics: Mapping[str, Any] | str | None = None,
        value: Any = None,
        /,
        *,
        reduce: Reduce | None = None,
        **more: Any,
    ) -> None:
        """Log numbers: `run.log(loss=loss)`, a mapping, or `run.log("loss", loss)`.

        The device is not waited for.

        A name without `/` gets the stage in front: `train/loss`. In training, the value of each
        step is recorded (thinned by `log_every`) and the mean of the epoch as `train/loss_epoch`;
        in other stages the mean over the pass, weighted by samples. Values are numbers, tensors of
        one element, or objects with `compute` and `reset` (torchmetrics), asked when the pass ends.
        A mapping inside is logged by its names: `run.log(f1={"cat": 0.5})` as `train/f1/cat`. What
        an object computes may be a mapping, too; a vector or a matrix becomes a table, and a
        picture.

        Args:
            metrics: numbers by name; or one name.
            value: the number of that name.
            reduce: what a pass makes of the values of these names, in place of their mean: "max",
                "min", "sum" or "last".
            more: numbers by name.

        Raises:
            UsageError: a value is no number.
        """
        if metrics is not None:
            if isinstance(metrics, str):
                more[metrics] = value
            else:
                more = {**metrics, **more}
        if reduce is not None:
            self._buffer.reduce(reduce, more, self._buffer.prefix)
        # In each step of a training: what can be done later is, and no function is called for what
        # is logged most. In the midst of a step a call costs more than what it does.
        buffer, weight, prefix = self._buffer, 1, self._buffer.prefix
        averaging, step, pending = buffer.averaging, buffer.step, buffer.pending
        if averaging:
            if (size := buffer.weight) is None:
                batch = self.batch
                first = batch[0] if type(batch) in (tuple, list) and batch else batch
                # The first batch of a pass is looked at in full, and so are lists of images.
                usual = self.batch_index and type(first) is Tensor and first.ndim not in (0, 3)
                size = first.shape[0] if usual else self.batch_size
                buffer.weight = size
            weight = size
        if not pending:
            buffer.due_time = monotonic() + buffer.max_seconds
        now = time()
        for name in more:
            value = more[name]
            kind = type(value)
            if kind is Tensor and value.is_cpu and not value.ndim:
                value = value.item()  # it is at hand, and costs less than a copy
            elif kind is not float:
                buffer.add(name, value, prefix, step, weight, averaging, now)
                continue
            pending.append((name, value, False, prefix, step, weight, averaging, now))

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Send the loggers what describes this run: plain values by name, without secrets.

        Raises:
            UsageError: it is no mapping.
        """
        if not isinstance(params, Mapping):
            raise UsageError(f"log_params({params!r:.80}): give a mapping, {{'lr': 0.1}}")
        self.fire("on_params", read_only(hide_secrets(params)))

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Send the loggers labels to find this run by.

        Raises:
            UsageError: it is no mapping.
        """
        if not isinstance(tags, Mapping):
            raise UsageError(f"log_tags({tags!r:.80}): give a mapping, {{'team': 'vision'}}")
        self.fire("on_tags", read_only(hide_secrets(tags)))

    def log_artifact(self, name: str, value: Any, kind: ArtifactKind = "file") -> None:
        """Hand a file, figure, image, text, table or model to the loggers; see `Artifact`."""
        if kind not in ARTIFACT_KINDS:
            raise UsageError(f"kind={kind!r}: an artifact is one of {', '.join(ARTIFACT_KINDS)}")
        if not isinstance(name, str) or not 0 < len(name) <= 1000:
            raise UsageError(
                f"log_artifact({name!r:.80}): a name is a text of 1 to 1,000 characters"
            )
        if kind in ("file", "model"):
            if not isinstance(value, (str, os.PathLike)) or not str(value):
                raise UsageError(f"log_artifact({name!r}, {value!r:.80}): give the path of a file")
            if not Path(value).exists():
                raise UsageError(f"log_artifact({name!r}): there is no file {str(value)!r}")
        self.fire("on_artifact", Artifact(name, kind, value, self._buffer.step, time()))

    def flush(self) -> None:
        """Fetch what was logged and hand it to the loggers now."""

    def fetch_within(self, seconds: float, values: int) -> None:
        """Hand out what is logged after so many seconds, or values, at the latest."""
        self._buffer.max_seconds = min(self._buffer.max_seconds, seconds)
        self._buffer.max_pending = min(self._buffer.max_pending, values)

    def mark_log(self) -> int:
        """Where the log stands, for `retract_log`."""
        return self._buffer.mark()

    def retract_log(self, mark: int) -> None:
        """Take back what was logged since a mark, by a step that is to be made again."""
        self._buffer.retract(mark)

    # --- the course of the run -----------------------------------------------------------------

    def stop(self, reason: str = "") -> None:
        """End the run after the present batch; every `*_end` event still fires."""
        self.stop_reason = self.stop_reason or str(reason)[:10_000] or "asked to"
        if self.status == "running":
            self.status = "stopped"
        if self.agreement is None:
            self.stopping = True
        else:
            self.agreement.ask(Wish.STOP)

    def interrupt(self, error: BaseException) -> None:
        """End the run after the present batch by raising `error` (a signal came)."""
        if self.agreement is not None:
            self.agreement.ask_to_end(error)
            return
        self.interruption = error
        self.stopping = True

    def claim(self, role: str, plugin: str | None = None) -> str | None:
        """Say that `plugin` plays a role that only one can; returns who plays it, or None.

        Raises:
            UsageError: another plugin plays it.
        """
        known = {"precision", "compile", *self._claims}
        if role not in known and (mend := nearest(role, known, 0.8)) != ".":
            raise UsageError(f"run.claim({role!r}): nobody asks for this role{mend}")
        if plugin is None:
            return self._claims.get(role)
        if (other := self._claims.setdefault(role, plugin)) != plugin:
            raise UsageError(f"two plugins claim {role}: {other!r} and {plugin!r}; switch one off")
        return plugin

    def first_time(self, key: str) -> bool:
        """True for the first call with this key in the run (`@hookimpl(once=True)`)."""
        if key in self._first_times:
            return False
        self._first_times.add(key)
        return True

    def fire(self, hook: str, *arguments: Any) -> None:
        """Call a hook, if anybody listens, and do what a listener asks for by raising."""

    # --- checkpoints ---------------------------------------------------------------------------

    def save_checkpoint(self, path: str | Path) -> None:
        """Write model, optimizers, counters and plugins to `path`; nothing in a dry run.

        With `Checkpoint(background=True)` it is there when `on_checkpoint_saved` fires, later.
        """
        with unbroken():
            if not self.dry_run and self.bus.save_checkpoint(self, Path(path)):
                self.fire("on_checkpoint_saved", Path(path))

    def load_checkpoint(self, path: str | Path, keep_place: bool = False) -> None:
        """Put the values of a checkpoint into model, optimizers, counters and plugins.

        Args:
            path: the checkpoint.
            keep_place: stay where the run stands in its data, with what it logged there; only
                model, optimizers, plugins and the number of steps go back.
        """

    def load_weights(self, path: str | Path, **options: Any) -> Loaded:
        """Put the weights of a checkpoint or a file into the model, and leave the rest as it is."""
        return weights.load_weights(self.task, path, **options)

    # --- your own loop -------------------------------------------------------------------------

    def epochs(self, count: int | None = None) -> Iterator[int]:
        """Yield each epoch's index, with the events of an epoch around it.

        Args:
            count: epochs of the run in all; those of the trainer by default.
        """

    def batches(self, loader: Iterable[Any], epochs: int | None = None) -> Iterator[Any]:
        """Yield placed training batches to your own loop, which calls `run.step(loss)`.

        One pass when called inside `for epoch in run.epochs(n)`, else `epochs` passes. The wrappers
        of `training_step` (autocast, for example) are open until `run.step`.
        """

    def evaluation_batches(
        self,
        loader: Iterable[Any],
        stage: Stage = "valid",
        step: Callable[[Any], Any] | None = None,
    ) -> Iterator[Any]:
        """Make a validation, test or prediction pass, with its events.

        The model is in evaluation mode and gradients are off until the pass is over; then modes,
        random states and the position in training are what they were, also after an error.

        Args:
            loader: any iterable of batches.
            stage: "valid", "test" or "predict".
            step: called with the run for each batch; what it returns is yielded. Without it each
                placed batch is yielded, and the body of the loop is the step.
        """

    def step(self, loss: Any = None) -> None:
        """All of a training step that follows the loss: backward, optimizers, events.

        Args:
            loss: what `training_step` returned: a tensor of one element with a graph, a mapping
                with it as `loss`, or None after `run.backward` and `run.optimizer_step`.
        """

    def backward(self, loss: Tensor, optimizer: Optimizer | None = None) -> None:
        """Differentiate a loss inside a `training_step` that steps by itself.

        With `optimizer`, only its parameters receive gradients (the discriminator's loss leaves
        the generator alone, for example).
        """

    def optimizer_step(self, optimizer: Optimizer | None = None) -> None:
        """Step one optimizer (the first), with its events, and clear its gradients."""

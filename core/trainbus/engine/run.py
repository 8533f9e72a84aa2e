"""Run: what every hook receives."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trainbus import batches
from trainbus.checkpoints import weights
from trainbus.engine.loop import Loop
from trainbus.engine.metrics import Records
from trainbus.errors import UsageError
from trainbus.records.artifacts import ARTIFACT_KINDS, Artifact, ArtifactKind

if TYPE_CHECKING:
    from trainbus.devices.accelerator import Accelerator
    from trainbus.engine.task import Task
    from trainbus.engine.trainer import Trainer
    from trainbus.events.plugin import Plugin
    from trainbus.storage.lock import Hold

logger = logging.getLogger("trainbus")


class Run(Loop):
    """What every hook receives: read it, and change what is said to be changeable.

    Changeable in the middle of a run: `batch`, `batch_size`, `loss`, `loss_to_backward`, `output`,
    `accumulate`, `header`, and the attributes of the objects it holds.
    """

    def __init__(self, trainer: Trainer, task: Task, accelerator: Accelerator, why: str) -> None:
        super().__init__(trainer, task, accelerator)
        self.name = task.run_name
        self.precision: str | None = trainer.precision

        #: This process among those of the run.
        self.rank = 0
        self.world_size = 1
        self.dry_run = trainer.dry_run is not None
        #: What the run has to tell at its start, by topic.
        self.header: dict[str, str] = {
            "device": f"{accelerator.device} ({why})",
            "precision": self.precision or "as the model has it",
            "plugins": _listed(trainer.loaded),
        }

        self._records = Records(self)
        self._errors = self.bus.errors
        self._done_once: set[str] = set()
        self._claims: dict[str, str] = {}
        self._held: Hold | None = None
        #: The checkpoint that this run is to begin with.
        self.resume_path: Path | None = None
        #: Sections of a loaded checkpoint whose plugins are not active.
        self.kept_sections: dict[str, Any] = {}

    # --- what a listener reads and says --------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the model and the batches are."""
        return self.accelerator.device

    @property
    def dir(self) -> Path:
        """The directory of this run, made when it is first asked for."""
        if self._held is None:
            self._held = self.trainer.make_run_dir(self)
        return self._held.directory

    @property
    def has_dir(self) -> bool:
        """Whether the directory was made."""
        return self._held is not None

    @property
    def errors(self) -> list[str]:
        """Failures of plugins that did not end the run."""
        return self._errors

    @property
    def metrics(self) -> dict[str, float]:
        """The newest value of each metric; reading it fetches what is pending from the device."""
        self._records.fetch()
        return self._records.latest

    @property
    def last_metrics(self) -> dict[str, float]:
        """The newest values that were fetched already; reading it waits for nothing."""
        return self._records.latest

    @property
    def batch_size(self) -> int:
        """Samples in `run.batch`: the weight of what is logged. Set it where a guess is wrong."""
        if self._batch_size is None:
            self._batch_size = batches.batch_size(self.batch)
        return self._batch_size

    @batch_size.setter
    def batch_size(self, samples: int) -> None:
        self._batch_size = samples

    def log(
        self, metrics: Mapping[str, Any] | str | None = None, value: Any = None, /, **more: Any
    ) -> None:
        """Log numbers: `run.log(loss=loss)`, a mapping, or `run.log("loss", loss)`.

        The device is not waited for.

        A name without `/` gets the stage in front: `train/loss`. In training, the value of each
        step is recorded (thinned by `log_every`) and the mean of the epoch as `train/loss_epoch`;
        in other stages the mean over the pass, weighted by samples. Values are numbers, tensors of
        one element, or objects with `compute` and `reset` (torchmetrics), asked when the pass ends.
        """
        if metrics is not None:
            if isinstance(metrics, str):
                more[metrics] = value
            else:
                more = {**metrics, **more}
        # In each step of a training: what can be done later is, and no function is called for what
        # is logged most. In the midst of a step a call costs more than what it does.
        weight, averaging, stage, step = 1, self._averaging, self.stage, self._log_step
        if averaging:
            if (size := self._batch_size) is None:
                batch = self.batch
                first = batch[0] if type(batch) in (tuple, list) and batch else batch
                usual = type(first) is Tensor and first.ndim
                size = first.size(0) if usual else batches.batch_size(batch)
                self._batch_size = size
            weight = size
        records = self._records
        pending = records.pending
        if not pending:
            records.due_time = monotonic() + records.max_seconds
        now = time()
        for name in more:
            value = more[name]
            kind = type(value)
            if kind is Tensor and value.is_cpu and not value.ndim:
                value = value.item()  # it is at hand, and costs less than a copy
            elif kind is not float:
                records.add(name, value, stage, step, weight, averaging, now)
                continue
            pending.append((name, value, False, stage, step, weight, averaging, now))

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Tell the loggers what describes this run: plain values by name."""
        self.fire("on_params", dict(params))

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Tell the loggers labels to find this run by."""
        self.fire("on_tags", dict(tags))

    def log_artifact(self, name: str, value: Any, kind: ArtifactKind = "file") -> None:
        """Hand a file, figure, image, text, table or model to the loggers; see `Artifact`."""
        if kind not in ARTIFACT_KINDS:
            raise UsageError(f"kind={kind!r}: an artifact is one of {', '.join(ARTIFACT_KINDS)}")
        if kind in ("file", "model") and not Path(value).exists():
            raise UsageError(f"log_artifact({name!r}): there is no file {str(value)!r}")
        self.fire("on_artifact", Artifact(name, kind, value, self._log_step, time()))

    def mark_log(self) -> int:
        """Where the log stands, for `retract_log`."""
        return self._records.mark()

    def retract_log(self, mark: int) -> None:
        """Take back what was logged since a mark, by a step that is to be made again."""
        self._records.retract(mark)

    def interrupt(self, error: BaseException) -> None:
        """End the run after the present batch by raising `error` (a signal came)."""
        self.interruption = error
        self.stopping = True

    def claim(self, role: str, plugin: str) -> None:
        """Say that `plugin` plays a role that only one can; a `UsageError` when it is taken."""
        if (other := self._claims.setdefault(role, plugin)) != plugin:
            raise UsageError(f"two plugins claim {role}: {other!r} and {plugin!r}; switch one off")

    def claimed(self, role: str) -> str | None:
        """The plugin that plays a role, or None."""
        return self._claims.get(role)

    def first_time(self, key: str) -> bool:
        """True for the first call with this key in the run (`@hookimpl(once=True)`)."""
        if key in self._done_once:
            return False
        self._done_once.add(key)
        return True

    def save_checkpoint(self, path: str | Path) -> None:
        """Write model, optimizers, counters and plugins to `path`; nothing in a dry run.

        With `Checkpoint(background=True)` it is there when `on_checkpoint_saved` fires, later.
        """
        if not self.dry_run and self.bus.save_checkpoint(self, Path(path)):
            self.fire("on_checkpoint_saved", Path(path))

    def load_checkpoint(self, path: str | Path) -> None:
        """Put the values of a checkpoint into model, optimizers, counters and plugins."""
        self.bus.load_checkpoint(self, Path(path))
        self.fire("on_checkpoint_loaded", Path(path))

    def load_weights(self, path: str | Path) -> None:
        """Put the weights of a checkpoint or a file into the model, and leave all else as it is."""
        weights.load_weights(self.task, path)

    def continue_in(self, path: Path | None, held: Hold | None) -> None:
        """Begin with a checkpoint, and write to the directory of the run that it belongs to."""
        self.resume_path = path
        self._held = held

    def release(self) -> None:
        """Let other runs have the directory."""
        if self._held is not None:
            self._held.release()

    def fetch_within(self, seconds: float, values: int) -> None:
        """Hand out what is logged after so many seconds, or values, at the latest."""
        self._records.max_seconds = min(self._records.max_seconds, seconds)
        self._records.max_pending = min(self._records.max_pending, values)

    def records_state(self) -> dict[str, Any]:
        """The means of the present pass so far, and the newest values."""
        return self._records.state_dict()

    def load_records_state(self, state: dict[str, Any]) -> None:
        """Go on with what `records_state` gave."""
        self._records.load_state_dict(state)

    def flush(self) -> None:
        """Fetch what was logged and hand it to the loggers now."""
        self._records.fetch()


def _listed(loaded: Iterable[Plugin]) -> str:
    """`journal, manifest (built in); progress 0.1.0 (Trainer)`: the core's own have its version."""
    names: dict[str, list[str]] = {}
    for each in loaded:
        version = "" if each.distribution == "trainbus" else each.version
        names.setdefault(each.why, []).append(f"{each.name} {version}".strip())
    return "; ".join(f"{', '.join(those)} ({why})" for why, those in names.items())

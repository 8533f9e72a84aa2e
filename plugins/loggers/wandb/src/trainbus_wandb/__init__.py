"""Weights & Biases: a run's records as a W&B run, online or in files for `wandb sync`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Any, Literal

from trainbus import PluginError, RecordRejected, hookimpl
from trainbus.arguments import check_number
from trainbus_wandb.convert import files, media, plain
from trainbus_wandb.session import begin, finish

if TYPE_CHECKING:
    from trainbus import Artifact, RunInfo

__all__ = ["Wandb"]

#: The x-axis of all charts. W&B's own `_step` only grows; the steps of a run may go back.
STEP = "trainer/global_step"
#: Seconds after which the client's file has what the client was given.
_WRITE_SECONDS = 0.05
#: The longest tag that W&B takes.
_TAG_LENGTH = 64


class Wandb:
    """Sends what a run logs to Weights & Biases.

    Args:
        project: the W&B project. By default `WANDB_PROJECT`, or what the client makes of the
            script's place.
        entity: the user or team that it belongs to. By default that of the API key.
        name: what the W&B run is called. By default like the run's directory.
        group: runs of one group are shown together.
        job_type: what this run does in its group, "train" for example.
        mode: "online", or "offline" for files that `wandb sync` sends later. By default
            `WANDB_MODE`, or online.
        dir: the directory that gets the client's files. By default the run's own.
        offline_fallback: work offline when the credentials or the server are missing.
        init_timeout: seconds to wait for the server when the run starts.
        finish_timeout: seconds that the uploads may take when the run ends.
        system_metrics: log the load of processor, memory, disk, network and GPU, too.
        console: log what is printed, too.
    """

    observer = True

    def __init__(
        self,
        project: str | None = None,
        entity: str | None = None,
        name: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        mode: Literal["online", "offline"] | None = None,
        dir: str | Path | None = None,
        offline_fallback: bool = False,
        init_timeout: float = 30.0,
        finish_timeout: float = 300.0,
        system_metrics: bool = True,
        console: bool = False,
    ) -> None:
        if mode not in ("online", "offline", None):
            raise PluginError(f"Wandb(mode={mode!r}): give 'online' or 'offline'")
        for option, seconds in {
            "init_timeout": init_timeout, "finish_timeout": finish_timeout
        }.items():  # fmt: skip
            check_number(None, PluginError, "Wandb", above=0, **{option: seconds})
        self.mode = mode
        self.name = name
        self.dir = dir
        self.offline_fallback = offline_fallback
        self._about = {
            "project": project, "entity": entity, "group": group, "job_type": job_type
        }  # fmt: skip
        self._settings = {
            "init_timeout": init_timeout,
            "finish_timeout": finish_timeout,
            "x_disable_stats": not system_metrics,
            "console": "wrap" if console else "off",
            "x_transaction_log_flush_interval": _WRITE_SECONDS,
        }
        self._remote: Any = None
        #: The newest record that is a row of W&B's history.
        self._row = 0

    # --- the life of a run ---------------------------------------------------------------------

    @hookimpl
    def on_log_start(self, run: RunInfo) -> None:
        """Begin the W&B run, or continue the one that `run.state` knows. Raises `PluginError`."""
        own = run.place("wandb", "plugin 'wandb'").parent
        path = Path(self.dir or os.environ.get("WANDB_DIR") or own)
        path.mkdir(parents=True, exist_ok=True)
        # A run that goes on keeps its name, which may have been changed on its page.
        name = self.name or (None if run.state else run.id)
        about = {**self._about, "name": name, "dir": str(path)}
        self._remote = begin(run, self.mode, self.offline_fallback, about, self._settings)
        self._remote.define_metric("*", step_metric=STEP)
        self._row = max(0, self._remote.starting_step - 1)
        if not (self._remote.offline or self._remote.disabled):
            # A process that was killed may have left records that were never uploaded.
            run.record = min(run.record, self._row)

    @hookimpl
    def on_log_flush(self) -> None:
        """Wait until what was handed over is in the client's file, from where it is uploaded."""
        self._remote.status()  # answered behind all that was sent before; raises without client
        if not self._remote.disabled:
            sleep(2 * _WRITE_SECONDS)

    @hookimpl
    def on_log_end(self, status: str) -> None:
        """End the W&B run."""
        finish(self._remote, status)

    # --- records -------------------------------------------------------------------------------

    @hookimpl
    def on_params(self, params: Mapping[str, Any]) -> None:
        """Parameters: the config of the W&B run."""
        self._remote.config.update(plain(params), allow_val_change=True)

    @hookimpl
    def on_tags(self, tags: Mapping[str, str]) -> None:
        """Tags: `key:value`, instead of an older one with this key; and all in the config."""
        remote = self._remote
        known = {**remote.config.get("tags", {}), **tags}
        remote.config.update({"tags": known}, allow_val_change=True)
        others = [tag for tag in remote.tags if tag.partition(":")[0] not in tags]
        labels = [f"{key}:{value}" for key, value in tags.items()]
        remote.tags = (*others, *(label for label in labels if len(label) <= _TAG_LENGTH))

    @hookimpl
    def on_metrics(
        self, run: RunInfo, step: int, metrics: Mapping[str, float], time: float
    ) -> None:
        """Numbers that were logged together: one row of the history."""
        self._log(run, step, metrics, time)

    @hookimpl
    def on_artifact(self, run: RunInfo, artifact: Artifact) -> None:
        """Figure, image, text, table: a row of the history. File, model: a W&B artifact."""
        if artifact.kind in ("file", "model"):
            aliases = ["latest", f"step-{artifact.step}"]
            try:
                self._remote.log_artifact(files(artifact, self._remote.id), aliases=aliases)
            except ValueError as error:  # the server has one of this name and another type
                raise RecordRejected(f"{artifact.kind} {artifact.name!r}: {error}") from error
        else:
            self._log(run, artifact.step, media(artifact), artifact.time)

    def _log(self, run: RunInfo, step: int, values: Mapping[str, Any], time: float) -> None:
        if run.record <= self._row:  # delivered again
            return
        row = {**values, STEP: step, "_timestamp": time}
        self._remote.log(row, step=run.record, commit=True)
        self._row = run.record

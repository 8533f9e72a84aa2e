"""Trackio: a run's records in a project on this machine, with a dashboard and no account."""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainbus import PluginError, RecordRejected, hookimpl
from trainbus.storage.untrusted import fields, mapping, text
from trainbus_trackio.client import WHO, import_trackio, show_command, start_monitors
from trainbus_trackio.store import Row, Store, iso

if TYPE_CHECKING:
    from trainbus import Artifact, RunInfo

__all__ = ["Trackio"]

#: What the journal keeps; the name is that of a directory, too.
_STATE = fields(
    {},
    {
        "dir": text(),
        "project": text(),
        "name": text(1000, r"(?!(.*/)?\.{0,2}(/|$))[^\\\x00]+"),
        "config": mapping(),
    },
)


class Trackio:
    """Writes the records of each run to a project of Trackio. Nothing leaves this machine.

    Args:
        project: what its runs are compared in; by default the name of the task.
        name: the run's name there; by default that of the run's directory.
        group: runs of one group are shown and hidden together.
        dir: where the projects are; by default where Trackio has them: TRACKIO_DIR, or
            `~/.cache/huggingface/trackio`.
        system_metrics: log the load of processor, memory, disk, network and NVIDIA GPUs, too.
    """

    observer = True

    def __init__(
        self,
        project: str | None = None,
        name: str | None = None,
        group: str | None = None,
        dir: str | Path | None = None,
        system_metrics: bool = True,
    ) -> None:
        for option, value in {"project": project, "name": name, "group": group}.items():
            if value is not None and not value.strip():
                raise PluginError(f"Trackio({option}={value!r}): give a text, or leave it out")
        if name is not None and {"", ".", ".."} & set(name.split("/")):
            raise PluginError(f"Trackio(name={name!r}): it names a directory, too; leave '..' out")
        self.project = project
        self.name = name
        self.group = group
        self.dir = None if dir is None else Path(dir).expanduser()
        self.system_metrics = system_metrics
        self._monitors: list[Any] = []

    # --- the life of a run ---------------------------------------------------------------------

    @hookimpl
    def on_log_start(self, run: RunInfo) -> None:
        """Begin a run of the project, or continue the one that is there."""
        # A run stays where it began: a replay does not know the options of its trainer. But a
        # file names no place.
        run.check_state(_STATE, WHO)
        known = run.state
        if self.dir is not None:
            known["dir"] = str(self.dir.absolute())
        elif "dir" in known:
            raise PluginError(
                f"{WHO}: this run is in the projects of {known['dir']!r}; if that is your "
                f"directory, say so: -o trackio.dir={shlex.quote(known['dir'])}"
            )
        place = import_trackio(None if self.dir is None else self.dir.absolute())
        project = known.setdefault("project", self.project or run.name)
        name = known.setdefault("name", self.name or run.id)
        # The same for this run whenever it comes, so that Trackio knows what it has already.
        run_id = uuid.uuid5(uuid.NAMESPACE_URL, f"trainbus:{run.id}:{run.started}").hex
        started = Row("start", 0, run.started, {})
        #: Parameters and tags; it is written as a whole, with a row.
        self._config: dict[str, Any] = known.setdefault("config", {"_Group": self.group})
        self._config |= {"_Created": iso(run.started), "run/status": "running"}
        try:
            self._store = Store(project, name, run_id)
            self._store.write([started], self._config)
        except Exception as error:
            raise PluginError(
                f"{WHO} cannot write project {project!r} in {place}: {error}"
            ) from error
        #: What waits for the next flush: rows, and that the configuration has changed.
        self._rows: list[Row] = []
        self._changed = False
        #: A row that is there already, for a configuration that comes with no other.
        self._started = started
        self._stop_monitors()
        if self.system_metrics and not run.replay:
            self._monitors = start_monitors(self._store)
        run.header["trackio"] = show_command(project)

    @hookimpl
    def on_log_flush(self) -> None:
        """Write what was handed over, in one transaction."""
        rows, self._rows = self._rows, []
        if self._changed:
            self._store.write([self._started, *rows], self._config)
            self._changed = False
        elif rows:
            self._store.write(rows)

    @hookimpl
    def on_log_end(self, status: str) -> None:
        """Say how the run ended."""
        self._stop_monitors()
        self._configure({"run/status": status})
        self.on_log_flush()

    def _stop_monitors(self) -> None:
        while self._monitors:
            self._monitors.pop().stop()

    # --- records -------------------------------------------------------------------------------

    @hookimpl
    def on_params(self, params: Mapping[str, Any]) -> None:
        """Parameters, as they are nested."""
        # Names that begin with an underscore are Trackio's own, and not shown.
        self._configure({f"param/{k}" if k.startswith("_") else k: v for k, v in params.items()})

    @hookimpl
    def on_tags(self, tags: Mapping[str, str]) -> None:
        """Tags, as parameters: Trackio has no tags."""
        self._configure({f"tag/{name}": value for name, value in tags.items()})

    @hookimpl
    def on_metrics(
        self, run: RunInfo, step: int, metrics: Mapping[str, float], time: float
    ) -> None:
        """Numbers: one row for all that belong to a step."""
        self._rows.append(Row(run.record, step, time, metrics))

    @hookimpl
    def on_artifact(self, run: RunInfo, artifact: Artifact) -> None:
        """Figures and images as images, texts as reports, tables; files and models as artifacts."""
        value: Any = artifact.value
        if artifact.kind in ("file", "model"):
            try:
                self._store.artifact(value, artifact.name, artifact.kind, artifact.step)
            except ValueError as error:
                raise RecordRejected(f"{artifact.kind} {artifact.name!r}: {error}") from error
            return
        if artifact.kind in ("figure", "image"):
            value = self._store.image(value, artifact.step, run.record)
        else:
            kind = {"text": "trackio.markdown", "table": "trackio.table"}[artifact.kind]
            value = {"_type": kind, "_value": value}
        self._rows.append(Row(run.record, artifact.step, artifact.time, {artifact.name: value}))

    def _configure(self, values: Mapping[str, Any]) -> None:
        self._config |= values
        self._changed = True

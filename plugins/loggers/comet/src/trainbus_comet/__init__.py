"""Comet: a run's records as an experiment at comet.com, or in an archive to upload later."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4
from zlib import crc32

from trainbus import PluginError, RecordRejected, hookimpl
from trainbus.storage.untrusted import fields, text
from trainbus_comet.client import import_comet, start
from trainbus_comet.offline import Written, rescue

if TYPE_CHECKING:
    from trainbus import Artifact, RunInfo

__all__ = ["Comet"]

logger = logging.getLogger("trainbus")

_WHO = "plugin 'comet'"
#: What the journal keeps: the experiment, and the directory of its files in that for such ones.
_STATE = fields({}, {"key": text(32, "[0-9a-f]{32}"), "open": text()})
#: Comet cuts longer names, and would mix up those that begin alike.
_LONGEST_NAME = 100


class Comet:
    """Sends the records of each run to Comet.

    The API key is `COMET_API_KEY`, or the one that `comet login` keeps.

    Args:
        project: Comet's project; by default that of Comet's configuration.
        workspace: Comet's workspace; by default that of Comet's configuration.
        name: the experiment's name; by default that of the run's directory.
        mode: `online`, or `offline`: into an archive that `comet upload` sends later.
        dir: where archives go; by default the run's directory, under `comet`.
        offline_fallback: without an API key or a connection at its start, a run is offline.
        system_metrics: have Comet record processor, memory, disk, network, graphics cards, and
            the packages that are installed.
    """

    observer = True

    def __init__(
        self,
        project: str | None = None,
        workspace: str | None = None,
        name: str | None = None,
        mode: Literal["online", "offline"] = "online",
        dir: str | Path | None = None,
        offline_fallback: bool = False,
        system_metrics: bool = False,
    ) -> None:
        if mode not in ("online", "offline"):
            raise PluginError(f"Comet(mode={mode!r}): give 'online' or 'offline'")
        self.project = project
        self.workspace = workspace
        self.name = name
        self.mode = mode
        self.dir = dir
        self.offline_fallback = offline_fallback
        self.system_metrics = system_metrics
        self._experiment: Any = None
        #: Offline: what has reached the disk.
        self._written: Written | None = None

    # --- the life of a run ---------------------------------------------------------------------

    @hookimpl
    def on_log_start(self, run: RunInfo) -> None:
        """Begin an experiment, or continue the run's own. Raises `PluginError`."""
        self._experiment = self._written = None
        comet_ml = import_comet()
        run.check_state(_STATE, _WHO)
        directory = Path(self.dir).absolute() if self.dir else run.place("comet", _WHO)
        new = "key" not in run.state
        # Our own key, also at first: without one, Comet joins whatever experiment is alive.
        key = run.state.setdefault("key", uuid4().hex)
        if "open" in run.state:
            rescue(Path(run.state.pop("open")).name, directory, key)
        begin = partial(
            start, comet_ml, project=self.project, workspace=self.workspace, key=key,
            name=(self.name or run.id) if new else None, directory=directory,
            system_metrics=self.system_metrics,
        )  # fmt: skip
        if self.mode == "online":
            try:
                self._experiment = begin(online=True)
            except PluginError as error:
                if not self.offline_fallback:
                    raise
                logger.warning("%s; this run is logged offline, to %s", error, directory)
        if self._experiment is not None:
            run.header["comet"] = self._experiment.url
        else:
            self._experiment = begin(online=False)
            self._written = Written(self._experiment)
            run.state["open"] = Path(self._experiment.tmpdir).name
            if directory.is_relative_to(Path.cwd()):
                directory = directory.relative_to(Path.cwd())
            run.header["comet"] = f"comet upload {quote(str(directory / key))}-*.zip"

    @hookimpl
    def on_log_flush(self, run: RunInfo) -> None:
        """Wait until Comet has all of it: the server, or, offline, the disk."""
        if self._experiment.ended:
            raise RuntimeError(
                "another experiment of this process ended this one; Comet allows one at a time"
            )
        if self._written is not None:
            self._written.wait(run.record)
        elif not self._experiment.flush():
            raise ConnectionError("Comet did not take what was logged")

    @hookimpl
    def on_log_end(self, run: RunInfo, status: str) -> None:
        """Say how the run ended, and close the experiment; offline, pack the archive."""
        self._experiment.log_other("status", status)
        self._experiment.end()
        run.state.pop("open", None)

    # --- records -------------------------------------------------------------------------------

    @hookimpl
    def on_params(self, run: RunInfo, params: Mapping[str, Any]) -> None:
        """Parameters, as hyperparameters; nested ones get names like `optimizer|lr`."""
        self._experiment.log_parameters({_short(name): params[name] for name in params})

    @hookimpl
    def on_tags(self, run: RunInfo, tags: Mapping[str, str]) -> None:
        """Tags, as columns of the table of experiments, and as Comet's tags `name: value`."""
        self._experiment.log_others({_short(name): tags[name] for name in tags})
        self._experiment.add_tags([f"{name}: {value}" for name, value in tags.items()])

    @hookimpl
    def on_metrics(self, run: RunInfo, step: int, metrics: Mapping[str, float]) -> None:
        """Numbers, as metrics at their step."""
        self._experiment.log_metrics({_short(name): metrics[name] for name in metrics}, step=step)

    @hookimpl
    def on_artifact(self, run: RunInfo, artifact: Artifact) -> None:
        """An artifact, as what Comet has for its kind."""
        name, value = artifact.name, artifact.value
        experiment = self._experiment
        experiment.set_step(artifact.step)
        if artifact.kind in ("figure", "image"):
            taken = experiment.log_image(str(value), name)
        elif artifact.kind == "text":
            taken = experiment.log_text(value, metadata={"name": name})
        elif artifact.kind == "table":
            taken = experiment.log_asset_data(_csv(value), f"{name}.csv")
        elif artifact.kind == "model":
            taken = experiment.log_model(name, str(value))
        elif value.is_dir():
            taken = experiment.log_asset_folder(str(value), log_file_name=True, recursive=True)
        else:
            suffix = "" if name.endswith(value.suffix) else value.suffix
            taken = experiment.log_asset(str(value), f"{name}{suffix}")
        if not taken:  # it says why in its own log
            raise RecordRejected(f"Comet does not take {artifact.kind} {name!r}")


def _short(name: str) -> str:
    """The name, or, of one that is too long for Comet, its beginning and a checksum."""
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME - 9]}~{crc32(name.encode()):08x}"


def _csv(rows: list[dict[str, Any]]) -> str:
    """A table whose columns are all keys, in the order they first come in."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()

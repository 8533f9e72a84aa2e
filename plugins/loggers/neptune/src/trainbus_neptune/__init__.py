"""Neptune, whose hosted service closed in March 2026: a run's records in its client's files."""

from __future__ import annotations

import csv
import io
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainbus import PluginError, RecordRejected, hookimpl

if TYPE_CHECKING:
    from trainbus import Artifact, RunInfo

__all__ = ["Neptune"]

#: Modes of the client that need the server.
_CLOSED = ("async", "sync", "read-only")
#: The client replaces larger images by nothing.
_LARGEST_IMAGE = 32 * 1024**2


class Neptune:
    """Writes the records of each run with Neptune's client, to files that no server takes any more.

    Args:
        mode: `offline`, or `debug`, which goes through the client and keeps nothing.
        name: the run's name; by default that of its directory.
        dir: where the client's files go; by default the run's directory, under `neptune`.
        system_metrics: have the client record processor, memory and graphics cards.
    """

    observer = True

    def __init__(
        self,
        mode: str = "offline",
        name: str | None = None,
        dir: str | Path | None = None,
        system_metrics: bool = False,
    ) -> None:
        if mode in _CLOSED:
            raise PluginError(
                f"Neptune(mode={mode!r}): Neptune's hosted service closed in March 2026, there is "
                "no server to talk to. Its client still works with mode='offline' and "
                "mode='debug'; for a service, see the plugins 'mlflow', 'wandb' and 'comet'"
            )
        if mode not in ("offline", "debug"):
            raise PluginError(f"Neptune(mode={mode!r}): give 'offline' or 'debug'")
        self.mode = mode
        self.name = name
        self.dir = dir
        self.system_metrics = system_metrics
        self._run: Any = None

    # --- the life of a run ---------------------------------------------------------------------

    @hookimpl
    def on_log_start(self, run: RunInfo) -> None:
        """Begin a run. One that is resumed gets a second part: only a server can join them."""
        try:
            import neptune
        except ImportError as error:
            raise PluginError(
                f"plugin 'neptune' cannot import its SDK: {error}: pip install 'neptune>=1.14'"
            ) from error
        logging.getLogger("neptune").setLevel(logging.WARNING)
        begin: Any = neptune.init_run
        directory = (
            Path(self.dir).absolute() if self.dir else run.place("neptune", "plugin 'neptune'")
        )
        try:
            with _set("NEPTUNE_DATA_DIRECTORY", str(directory)):
                self._run = begin(
                    mode=self.mode, name=self.name or run.id, source_files=[], git_ref=False,
                    capture_hardware_metrics=self.system_metrics, capture_stdout=False,
                    capture_stderr=False, capture_traceback=False, fail_on_exception=False,
                    monitoring_namespace="monitoring",
                )  # fmt: skip
        except Exception as error:
            raise PluginError(f"plugin 'neptune' cannot begin: {error}") from error
        self._run["trainbus/run"] = run.id
        if directory.is_relative_to(Path.cwd()):
            directory = directory.relative_to(Path.cwd())
        where = f"files in {directory}" if self.mode == "offline" else "debug mode, nothing is kept"
        run.header["neptune"] = f"{where} (the service closed in March 2026)"

    @hookimpl
    def on_log_flush(self, run: RunInfo) -> None:
        """Write what the client still has in memory."""
        self._run.wait(disk_only=True)

    @hookimpl
    def on_log_end(self, run: RunInfo, status: str) -> None:
        """Say how the run ended, and close the client's files."""
        if self._run is None:  # told so before
            return
        self._run["trainbus/status"] = status
        self._run["sys/failed"] = status == "failed"
        self._run.stop()
        self._run = None

    # --- records -------------------------------------------------------------------------------

    @hookimpl
    def on_params(self, run: RunInfo, params: Mapping[str, Any]) -> None:
        """Parameters, as fields under `parameters`; what Neptune has no type for is text."""
        from neptune.utils import stringify_unsupported

        for name in params:
            value = stringify_unsupported({name: params[name]})
            _taken(f"parameter {name!r}", self._run["parameters"].assign, value)

    @hookimpl
    def on_tags(self, run: RunInfo, tags: Mapping[str, str]) -> None:
        """Tags, as fields under `tags`, and as Neptune's tags `name: value`."""
        self._run["sys/tags"].add([f"{name}: {value}" for name, value in tags.items()])
        for name in tags:
            _taken(f"tag {name!r}", self._run[f"tags/{name}"].assign, str(tags[name]))

    @hookimpl
    def on_metrics(
        self, run: RunInfo, step: int, metrics: Mapping[str, float], time: float
    ) -> None:
        """Numbers, as series of their name. The client leaves out what is not finite."""
        left_out = []
        for name, value in metrics.items():
            if not math.isfinite(value):
                left_out.append(f"{name} is {value}, Neptune keeps finite numbers only")
                continue
            try:
                _taken(name, self._run[name].append, value, step=step, timestamp=time)
            except RecordRejected as error:
                left_out.append(str(error))
        if left_out:
            raise RecordRejected(f"step {step}: {'; '.join(left_out)}")

    @hookimpl
    def on_artifact(self, run: RunInfo, artifact: Artifact) -> None:
        """An artifact, as a field `kind/name/step`; figures and images as series `kind/name`."""
        from neptune.types import File

        name, kind, value = f"{artifact.kind}/{artifact.name}", artifact.kind, artifact.value
        field = self._run[name if kind in ("figure", "image") else f"{name}/{artifact.step}"]
        if kind in ("figure", "image"):
            if (size := value.stat().st_size) > _LARGEST_IMAGE:
                raise RecordRejected(f"{name} has {size:,} bytes, Neptune takes {_LARGEST_IMAGE:,}")
            at = {"step": artifact.step, "timestamp": artifact.time}
            _taken(name, field.append, File(str(value)), **at)
        elif kind in ("text", "table"):
            suffix, content = ("md", value) if kind == "text" else ("csv", _csv(value))
            _taken(name, field.upload, File.from_content(content, extension=suffix))
        elif value.is_dir():
            _taken(name, field.upload_files, str(value))
        else:
            _taken(name, field.upload, str(value))


def _taken(what: str, log: Callable[..., None], *arguments: Any, **more: Any) -> None:
    """Log it; a path that holds something else already is no reason to try again."""
    from neptune.common.exceptions import NeptuneException

    try:
        log(*arguments, **more)
    except (NeptuneException, AttributeError, TypeError) as error:
        raise RecordRejected(f"Neptune does not take {what}: {str(error).strip()}") from error


def _csv(rows: list[dict[str, Any]]) -> str:
    """A table whose columns are all keys, in the order they first come in."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@contextmanager
def _set(name: str, value: str) -> Iterator[None]:
    """A variable of the environment, for a while."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before

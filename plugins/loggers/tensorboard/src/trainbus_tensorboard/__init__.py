"""TensorBoard: a run's records as an event file, in the run's directory."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainbus import PluginError, hookimpl
from trainbus_tensorboard.render import render, table
from trainbus_tensorboard.session import plain, session_end, session_start

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from torch.utils.tensorboard import SummaryWriter

    from trainbus import Artifact, Run

__all__ = ["TensorBoard"]

logger = logging.getLogger("trainbus")


class TensorBoard:
    """Writes the records of each run to an event file.

    Args:
        dir: the directory that gets one directory for each run. By default the event file of a
            run is in its own directory, under `tensorboard`.
        flush_secs: seconds after which what was logged is on the disk.
    """

    observer = True

    def __init__(self, dir: str | Path | None = None, flush_secs: int = 10) -> None:
        if flush_secs < 1:
            raise PluginError(f"TensorBoard(flush_secs={flush_secs}): give at least 1 second")
        self.dir = dir
        self.flush_secs = flush_secs
        self._forget()

    def _forget(self) -> None:
        #: The run in progress; its writer, once there is something to write.
        self._run: Run | None = None
        self._writer: SummaryWriter | None = None
        #: What is known of the run, by name, under "params" and "tags".
        self._notes: dict[str, dict[str, Any]] = {"params": {}, "tags": {}}
        self._session_open = False

    # --- the life of a run ---------------------------------------------------------------------

    @hookimpl(rank_zero=True)
    def on_run_start(self, run: Run) -> None:
        """Import the SDK and say how to look at the run. Raises `PluginError` without the SDK."""
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError as error:
            raise PluginError(
                f"plugin 'tensorboard' cannot import its SDK: {error}: "
                "pip install 'tensorboard>=2.17'"
            ) from error
        self._forget()
        self._run = run
        if not run.dry_run:
            parent = run.trainer.run_dir if self.dir is None else self.dir
            run.header["tensorboard"] = f"tensorboard --logdir {shlex.quote(str(parent))}"

    @hookimpl(rank_zero=True)
    def on_fit_start(self, run: Run) -> None:
        """Open the event file, so that a directory that cannot be written stops the run here."""
        if not run.dry_run:
            self._open(run)

    @hookimpl(rank_zero=True)
    def on_exception(self) -> None:
        """Put what was logged on the disk at once."""
        if self._writer is not None:
            self._writer.flush()

    @hookimpl(rank_zero=True)
    def on_run_end(self, status: str) -> None:
        """Say how the run ended, and close the file."""
        writer, self._run, self._writer = self._writer, None, None
        if writer is None:
            return
        try:
            self._open_session(writer)
            if self._session_open:
                _add(writer, session_end(status))
        finally:
            writer.close()

    # --- records -------------------------------------------------------------------------------

    @hookimpl(rank_zero=True)
    def on_params(self, run: Run, params: Mapping[str, Any]) -> None:
        """Parameters: a text at once, and a row of the HParams page with the first metric."""
        self._note(run, "params", plain(params))

    @hookimpl(rank_zero=True)
    def on_tags(self, run: Run, tags: Mapping[str, str]) -> None:
        """Tags, as a text."""
        self._note(run, "tags", tags)

    @hookimpl(rank_zero=True)
    def on_metrics(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        """Numbers, as scalars: one event for all that belong to a step."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        with self._writing(run) as writer:
            if run is self._run:
                self._open_session(writer)
            values = [Summary.Value(tag=name, simple_value=metrics[name]) for name in metrics]
            _add(writer, Summary(value=values), step)

    @hookimpl(rank_zero=True)
    def on_artifact(self, run: Run, artifact: Artifact) -> None:
        """An image (figure, image), or a text (text, table, and what a file or model is)."""
        try:
            content = render(artifact)
        except Exception as error:  # its value is at fault, not this plugin: go on with the next
            report = f"tensorboard: {artifact.kind} {artifact.name!r} is left out: {error}"
            run.errors.append(report)
            logger.warning("%s", report)
            return
        with self._writing(run) as writer:
            if isinstance(content, str):
                writer.add_text(artifact.name, content, artifact.step)
            else:
                writer.add_image(artifact.name, content, artifact.step, dataformats="HWC")

    # --- writing -------------------------------------------------------------------------------

    def _new_writer(self, run: Run) -> SummaryWriter:
        from torch.utils.tensorboard import SummaryWriter

        path = run.dir / "tensorboard" if self.dir is None else Path(self.dir) / run.dir.name
        try:
            # Metrics come in bursts: a long queue, so that training does not wait for the disk.
            return SummaryWriter(str(path), max_queue=1000, flush_secs=self.flush_secs)
        except OSError as error:
            raise PluginError(f"plugin 'tensorboard' cannot write to {path}: {error}") from error

    def _open(self, run: Run) -> SummaryWriter:
        if self._writer is None:
            self._writer = self._new_writer(run)
            for topic, items in self._notes.items():
                _write_notes(self._writer, topic, items, run.global_step)
        return self._writer

    @contextmanager
    def _writing(self, run: Run) -> Iterator[SummaryWriter]:
        """The writer of the run, or, after the run's end, one more for this record."""
        if run is self._run:
            yield self._open(run)
        else:
            with self._new_writer(run) as writer:
                yield writer

    def _note(self, run: Run, topic: str, items: Mapping[str, Any]) -> None:
        """Keep what describes a run. It alone makes no file: a run may log nothing else."""
        if run is self._run:
            self._notes[topic].update(items)
            items = self._notes[topic]
            if self._writer is None:
                return
        with self._writing(run) as writer:
            _write_notes(writer, topic, items, run.global_step)

    def _open_session(self, writer: SummaryWriter) -> None:
        """Begin the run's row of the HParams page. TensorBoard reads its first version only."""
        if self._notes["params"] and not self._session_open:
            _add(writer, session_start(self._notes["params"]))
            self._session_open = True


def _write_notes(writer: SummaryWriter, topic: str, items: Mapping[str, Any], step: int) -> None:
    if items:
        rows = [{"name": name, "value": value} for name, value in items.items()]
        writer.add_text(topic, table(rows), step)
        writer.flush()


def _add(writer: SummaryWriter, summary: Summary, step: int = 0) -> None:
    """Write a summary of several values, which `SummaryWriter` has no method for."""
    file_writer: Any = writer.file_writer
    file_writer.add_summary(summary, step)

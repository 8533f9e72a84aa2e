"""Plugins that note what happens: every event, and every record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trainbus import hookspecs
from trainbus.engine.run import Run
from trainbus.events.markers import hookimpl, spec_options
from trainbus.records.artifacts import Artifact
from trainbus.records.delivery import RunInfo


class Recorder:
    """A plugin that notes the events of its runs.

    `events` holds their names in the order in which they fired, `at` the same with the optimizer
    steps that were made by then.
    """

    def __init__(self) -> None:
        self.events: list[str] = []
        self.at: list[tuple[str, int]] = []
        for name, declaration in hookspecs.declared().items():
            if spec_options(declaration).kind == "event":
                setattr(self, name, hookimpl(self._listener(name)))

    def _listener(self, name: str) -> Callable[[Run], None]:
        def note(run: Run) -> None:
            self.events.append(name)
            self.at.append((name, run.global_step))

        return note


class MemoryLog:
    """A logger that keeps the records of the newest run in lists.

    It gets them as every logger does: from the journal, on a thread of its own. All are there when
    the run has ended.
    """

    observer = True

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.params: dict[str, Any] = {}
        self.tags: dict[str, str] = {}
        #: Step and values, in the order in which they were logged.
        self.metrics: list[tuple[int, dict[str, float]]] = []
        self.artifacts: list[Artifact] = []
        #: How the run ended; None before that.
        self.status: str | None = None

    def values(self, name: str) -> list[float]:
        """The values of one metric, `train/loss` for example."""
        return [metrics[name] for _, metrics in self.metrics if name in metrics]

    @hookimpl
    def on_log_start(self, run: RunInfo) -> None:
        """Forget the run before."""
        self._begin()

    @hookimpl
    def on_params(self, params: Mapping[str, Any]) -> None:
        """Keep them."""
        self.params.update(params)

    @hookimpl
    def on_tags(self, tags: Mapping[str, str]) -> None:
        """Keep them."""
        self.tags.update(tags)

    @hookimpl
    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keep them."""
        self.metrics.append((step, dict(metrics)))

    @hookimpl
    def on_artifact(self, artifact: Artifact) -> None:
        """Keep it."""
        self.artifacts.append(artifact)

    @hookimpl
    def on_log_end(self, status: str) -> None:
        """Note how it ended."""
        self.status = status

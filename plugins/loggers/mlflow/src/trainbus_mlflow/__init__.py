"""MLflow: a run's records as a run of MLflow's."""

from __future__ import annotations

import os
import time as clock
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trainbus import PluginError, hookimpl
from trainbus.storage.untrusted import fields, mapping, text, whole
from trainbus_mlflow import names
from trainbus_mlflow.remote import Remote, Unreachable, check_sdk
from trainbus_mlflow.system import SystemMetrics

if TYPE_CHECKING:
    from mlflow.entities import Metric

    from trainbus import Artifact, RunInfo

__all__ = ["MLflow"]

#: What the journal keeps: the run there, and the places of the artifacts of the newest step.
_STATE = fields(
    {},
    {
        "run_id": text(256, r"[\w-]+"),
        "artifacts": fields({"step": whole(), "first": mapping(whole())}),
    },
)


class MLflow:
    """Sends the records of each run to MLflow, through its client and never its active run.

    Args:
        tracking_uri: the server (`http://HOST:5000`) or database (`sqlite:///mlflow.db`); by
            default what MLflow itself would use: MLFLOW_TRACKING_URI, or its local store.
        experiment: by default MLFLOW_EXPERIMENT_NAME, or the name of the task. It is made if it
            is not there.
        run_name: by default the name of the run's directory.
        tags: what each run gets from its start.
        system_metrics: use of processor, memory, disk, network and GPUs, as MLflow measures it.
        offline_fallback: train also when the server cannot be reached or refuses the credentials;
            the records wait in the run's journal.
    """

    observer = True

    def __init__(
        self,
        tracking_uri: str | None = None,
        experiment: str | None = None,
        run_name: str | None = None,
        tags: dict[str, str] | None = None,
        system_metrics: bool = False,
        offline_fallback: bool = False,
    ) -> None:
        given = {"tracking_uri": tracking_uri, "experiment": experiment, "run_name": run_name}
        for option, value in given.items():
            if value is not None and not value.strip():
                raise PluginError(f"MLflow({option}={value!r}): give a text, or leave it out")
        self.tracking_uri = tracking_uri
        self.experiment = experiment
        self.run_name = run_name
        self.tags = tags
        self.system_metrics = system_metrics
        self.offline_fallback = offline_fallback

    # --- the life of a run ---------------------------------------------------------------------

    @hookimpl
    def on_log_start(self, run: RunInfo) -> None:
        """Begin a run, or continue the one that `run.state` remembers."""
        check_sdk(self.system_metrics)
        run.check_state(_STATE, "plugin 'mlflow'")
        self._remote: Remote | None = None
        self._metrics: list[Metric] = []
        self._newest = (0, run.started)  # step and time
        self._system: SystemMetrics | None = None
        try:
            remote = self._connect(run)
        except Unreachable as error:
            if run.replay or not self.offline_fallback:
                raise
            run.header["mlflow"] = (
                f"offline: {error.reason}; what it does not get until the end, "
                f"`trainbus replay {run.dir} --to mlflow` sends later"
            )
        else:
            run.header["mlflow"] = remote.link
        if self.system_metrics and not run.replay:
            self._system = SystemMetrics()

    @hookimpl
    def on_log_flush(self, run: RunInfo) -> None:
        """Send the metrics."""
        metrics, self._metrics = self._metrics, []
        if self._system is not None:
            system = {f"system/{key}": value for key, value in self._system.sample().items()}
            metrics += _metrics(self._newest[0], system, clock.time())
        if metrics:
            self._connect(run).metrics(metrics)

    @hookimpl
    def on_log_end(self, run: RunInfo, status: str) -> None:
        """End the run: FINISHED, KILLED (interrupted) or FAILED."""
        milliseconds = round(self._newest[1] * 1000) if run.replay else None
        self._connect(run).end(status, milliseconds)
        self._remote = None

    # --- records -------------------------------------------------------------------------------

    @hookimpl
    def on_params(self, run: RunInfo, params: Mapping[str, Any]) -> None:
        """Parameters, as texts."""
        self._connect(run).params(names.params(params))

    @hookimpl
    def on_tags(self, run: RunInfo, tags: Mapping[str, str]) -> None:
        """Tags."""
        self._connect(run).tags(names.tags(tags))

    @hookimpl
    def on_metrics(
        self, run: RunInfo, step: int, metrics: Mapping[str, float], time: float
    ) -> None:
        """Numbers: kept until the next flush, and the same to MLflow when they come again."""
        self._newest = step, time
        self._metrics += _metrics(step, metrics, time)

    @hookimpl
    def on_artifact(self, run: RunInfo, artifact: Artifact) -> None:
        """Upload it to `NAME/step-00000100`, as PNG, Markdown, JSON or what it is."""
        place = f"{names.path(artifact.name)}/step-{artifact.step:08d}"
        # Another one of this name and step gets its number too, also when it comes again.
        kept = run.state.get("artifacts", {})
        if kept.get("step") != artifact.step:
            kept = run.state["artifacts"] = {"step": artifact.step, "first": {}}
        if kept["first"].setdefault(place, run.record) != run.record:
            place += f"-{run.record}"
        self._connect(run).artifact(artifact, place)

    # --- MLflow --------------------------------------------------------------------------------

    def _connect(self, run: RunInfo) -> Remote:
        # A thread that hung when its run ended may come back while the next run is going on.
        if self._remote is None or self._remote.run_id != run.state.get("run_id"):
            from mlflow.tracking.context.registry import resolve_tags

            # Who runs which program, as MLflow's own functions tell; in a replay that is another.
            tags = {} if run.replay else resolve_tags()
            remote = Remote.open(
                self.tracking_uri,
                run.state.get("run_id"),
                self.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or run.name,
                run_name=self.run_name or run.id,
                start_time=round(run.started * 1000),
                tags=tags | {"trainbus.run": run.id} | names.tags(self.tags or {}),
            )
            run.state["run_id"] = remote.run_id
            self._remote = remote
        return self._remote


def _metrics(step: int, values: Mapping[str, float], time: float) -> list[Metric]:
    from mlflow.entities import Metric

    at = round(time * 1000)
    return [Metric(names.name(key), values[key], at, step) for key in values]

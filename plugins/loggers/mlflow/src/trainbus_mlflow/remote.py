"""A run on an MLflow server, or in a database of MLflow's."""

from __future__ import annotations

import json
import shlex
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from trainbus import PluginError, RecordRejected
from trainbus_mlflow import names

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    from trainbus import Artifact

# The first whose client uploads files to where it logs, and not to the global tracking URI.
_OLDEST = "3.7"
#: Seconds without an answer: when a run begins, later, and for a file.
_START, _CALL, _FILE = 10, 30, 120
#: What one call may carry.
_BATCH = {"metrics": 1000, "params": 100, "tags": 100}
_STATUS = {"completed": "FINISHED", "stopped": "FINISHED", "interrupted": "KILLED"}
#: Where MLflow looks up which artifacts are tables, and how long that list may get.
_TABLES, _MAX_TABLES = "mlflow.loggedArtifacts", 5000


class Unreachable(PluginError):
    """There is no server, or it does not let this user in: another time it may.

    Args:
        reason: what is wrong.
        mend: what to do about it.
    """

    def __init__(self, reason: str, mend: str) -> None:
        super().__init__(f"plugin 'mlflow': {reason}: {mend}")
        self.reason = reason


class Remote:
    """One run of MLflow's.

    Args:
        client: of the place that keeps the run.
        uri: that place.
        run_id: the run there, which is active.
        experiment_id: the experiment it belongs to.
    """

    def __init__(self, client: MlflowClient, uri: str, run_id: str, experiment_id: str) -> None:
        self.run_id = run_id
        self._client = client
        self._uri = uri
        self._experiment_id = experiment_id

    @classmethod
    def open(
        cls,
        uri: str | None,
        run_id: str | None,
        experiment: str,
        **about: Any,
    ) -> Remote:
        """Continue a run, or begin one.

        Args:
            uri: the tracking URI; by default what MLflow itself would use.
            run_id: the run to continue, if there is one.
            experiment: the name of the experiment of a new run, made if it is not there.
            about: what else `create_run` takes.

        Raises:
            Unreachable: no server answers there, or it refuses the credentials.
            PluginError: there will never be a run like this.
        """
        from mlflow import MlflowClient
        from mlflow.tracking import get_tracking_uri

        uri = uri or get_tracking_uri()
        _check_database(uri)
        with limited(_START), _explained(uri):
            client = MlflowClient(tracking_uri=uri)
            if run_id is None:
                run = client.create_run(_experiment(client, experiment), **about)
            else:
                run = client.get_run(run_id)
                _check_active(run.info.lifecycle_stage, "run", run_id)
                client.update_run(run_id, status="RUNNING")
        return cls(client, uri, run.info.run_id, run.info.experiment_id)

    @property
    def link(self) -> str:
        """The page of the run, or the command that shows it."""
        uri = public(self._uri)
        if uri.startswith("databricks"):
            return f"run {self.run_id} of experiment {self._experiment_id} on {uri}"
        if uri.startswith("http"):
            page = f"#/experiments/{self._experiment_id}/runs/{self.run_id}"
            return f"{uri.rstrip('/')}/{page}"
        return f"mlflow ui --backend-store-uri {shlex.quote(uri)}"

    def metrics(self, metrics: Sequence[Metric]) -> None:
        """Log numbers. What is there already, with the same time, is not there twice."""
        self._log("metrics", metrics)

    def params(self, params: Mapping[str, str]) -> None:
        """Log parameters. Raises `RecordRejected` for those that have another value already."""
        from mlflow.entities import Param

        with limited(_CALL):
            known = self._client.get_run(self.run_id).data.params
        self._log("params", [Param(key, params[key]) for key in params if key not in known])
        changed = [key for key in params if known.get(key, params[key]) != params[key]]
        if changed:
            key = changed[0]
            others = f" (and {len(changed) - 1} more)" if changed[1:] else ""
            raise RecordRejected(
                f"parameter {key!r}{others}: MLflow keeps the first value of a run, "
                f"{known[key][:50]!r}, and not {params[key][:50]!r}"
            )

    def tags(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        from mlflow.entities import RunTag

        self._log("tags", [RunTag(key, value) for key, value in tags.items()])

    def artifact(self, artifact: Artifact, place: str) -> None:
        """Upload an artifact to `place`, a path without a suffix."""
        client, run_id, value = self._client, self.run_id, artifact.value
        try:
            with limited(_FILE):
                if artifact.kind == "text":
                    client.log_text(run_id, value, f"{place}.md")
                elif artifact.kind == "table":
                    client.log_dict(run_id, names.table(value), f"{place}.json")
                    self._list_table(f"{place}.json")
                elif artifact.kind in ("figure", "image"):
                    folder, _, file = place.rpartition("/")
                    with TemporaryDirectory() as scratch:  # MLflow keeps the name of the file
                        shutil.copyfile(value, Path(scratch, f"{file}.png"))
                        client.log_artifact(run_id, str(Path(scratch, f"{file}.png")), folder)
                elif value.is_dir():
                    client.log_artifacts(run_id, str(value), place)
                else:
                    client.log_artifact(run_id, str(value), place)
        except Exception as error:
            if not _is_refusal(error):
                raise
            raise RecordRejected(f"{artifact.kind} {artifact.name!r}: {_reason(error)}") from error

    def end(self, status: str, milliseconds: int | None) -> None:
        """Say how the run ended, and when; by default now."""
        with limited(_CALL):
            self._client.set_terminated(self.run_id, _STATUS.get(status, "FAILED"), milliseconds)

    def _list_table(self, place: str) -> None:
        """Have the table shown on MLflow's page of tables, and found by `load_table`."""
        tags = self._client.get_run(self.run_id).data.tags
        entry = {"path": place, "type": "table"}
        tables = [each for each in json.loads(tags.get(_TABLES, "[]")) if each != entry] + [entry]
        if len(text := json.dumps(tables)) <= _MAX_TABLES:
            self._client.set_tag(self.run_id, _TABLES, text)

    def _log(self, kind: Literal["metrics", "params", "tags"], items: Sequence[Any]) -> None:
        """Log all, also when some are refused: those are named in a `RecordRejected` at the end."""
        refused: dict[str, str] = {}
        with limited(_CALL):
            for start in range(0, len(items), _BATCH[kind]):
                self._log_batch(kind, items[start : start + _BATCH[kind]], refused)
        if refused:
            listing = ", ".join(map(repr, refused))
            raise RecordRejected(f"{kind} {listing}: {next(iter(refused.values()))}")

    def _log_batch(self, kind: str, items: Sequence[Any], refused: dict[str, str]) -> None:
        try:
            call: Any = self._client.log_batch
            call(self.run_id, **{kind: items})
        except Exception as error:
            if not _is_refusal(error):
                raise
            if len(items) > 1:  # one bad one spoils the batch: look for it
                middle = len(items) // 2
                self._log_batch(kind, items[:middle], refused)
                self._log_batch(kind, items[middle:], refused)
                return
            stage = self._client.get_run(self.run_id).info.lifecycle_stage
            _check_active(stage, "run", self.run_id)  # else it is not the item's fault
            refused[items[0].key] = _reason(error)


def check_sdk(system_metrics: bool) -> None:
    """Raise `PluginError` where MLflow, or what it measures with, is missing or too old."""
    if system_metrics and find_spec("psutil") is None:
        raise PluginError(
            "plugin 'mlflow' (trainbus-mlflow): system_metrics=True needs psutil: "
            "pip install 'trainbus-mlflow[system]'"
        )
    try:
        import mlflow
        from packaging.version import Version

        found = mlflow.__version__
        if Version(found) >= Version(_OLDEST):
            return
        what = f"needs mlflow-skinny {_OLDEST} or newer and found {found}"
    except ImportError as error:
        what = f"cannot import its SDK: {error}"
    raise PluginError(
        f"plugin 'mlflow' (trainbus-mlflow) {what}: pip install 'mlflow-skinny>={_OLDEST}'"
    )


def public(uri: str) -> str:
    """The URI without a user and a password."""
    place = urlsplit(uri).netloc
    return uri.replace(place, place.rpartition("@")[2], 1) if "@" in place else uri


_LOCK = threading.Lock()
_LIMITS: list[int] = []
_DEFAULTS: list[Any] = []


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """MLflow's requests in this block are made once, wait for `seconds` at most, and print nothing.

    By itself MLflow tries 8 times, for minutes; here the core is what tries again. These are
    MLflow's defaults for the whole process, so they are changed while a block is open and no
    longer. What the environment says (MLFLOW_HTTP_REQUEST_TIMEOUT, ...) goes before them.
    """
    from mlflow import environment_variables as settings

    retries = settings.MLFLOW_HTTP_REQUEST_MAX_RETRIES
    timeout = settings.MLFLOW_HTTP_REQUEST_TIMEOUT
    silent = settings.MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT
    with _LOCK:
        if not _LIMITS:
            _DEFAULTS[:] = retries.default, timeout.default, silent.default
        _LIMITS.append(seconds)
        retries.default, timeout.default, silent.default = 0, seconds, True
    try:
        yield
    finally:
        with _LOCK:
            _LIMITS.remove(seconds)
            if _LIMITS:  # of another run in this process
                timeout.default = _LIMITS[-1]
            else:
                retries.default, timeout.default, silent.default = _DEFAULTS


def _experiment(client: MlflowClient, name: str) -> str:
    """The id of the experiment of this name, made if it is not there."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = client.get_experiment_by_name(name)  # another run was faster
        assert found is not None
    _check_active(found.lifecycle_stage, "experiment", found.experiment_id)
    return str(found.experiment_id)


def _check_active(stage: str, what: Literal["run", "experiment"], id: str) -> None:
    if stage != "active":
        option = "--run-id" if what == "run" else "--experiment-id"
        raise PluginError(
            f"plugin 'mlflow': {what} {id} was deleted in MLflow: "
            f"`mlflow {what}s restore {option} {id}` brings it back"
        )


def _check_database(uri: str) -> None:
    """Say what is missing for a database before MLflow fails with something else."""
    scheme = urlsplit(uri).scheme.partition("+")[0]
    missing = [each for each in ("sqlalchemy", "alembic") if find_spec(each) is None]
    if scheme in ("sqlite", "mysql", "postgresql", "mssql") and missing:
        raise PluginError(
            f"plugin 'mlflow' cannot use {public(uri)}: mlflow-skinny comes without "
            f"{' and '.join(missing)}. Name a server, with MLflow(tracking_uri='http://HOST:5000') "
            "or MLFLOW_TRACKING_URI, or install what a database needs: "
            "pip install 'trainbus-mlflow[sqlite]'"
        )


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Say what is wrong when a run cannot begin, and what to do."""
    try:
        yield
    except PluginError:
        raise
    except Exception as error:
        status, place = _status(error), public(uri)
        if status in (401, 403):
            raise Unreachable(
                f"{place} refuses these credentials ({status})",
                "export MLFLOW_TRACKING_USERNAME=... MLFLOW_TRACKING_PASSWORD=... "
                "or MLFLOW_TRACKING_TOKEN=..., or ask for the right to write there",
            ) from error
        if uri.startswith("http") and status >= 500:
            raise Unreachable(
                f"{place} cannot be reached ({_reason(error)})",
                "start the server or mend the address (tracking_uri, MLFLOW_TRACKING_URI); "
                "with MLflow(offline_fallback=True) the training goes without it",
            ) from error
        if getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST":
            raise PluginError(
                f"plugin 'mlflow': {place} does not have what this run began there: "
                f"{_reason(error)}. Give the tracking_uri that it began with "
                "(-o mlflow.tracking_uri=...), or begin a new run"
            ) from error
        raise PluginError(
            f"plugin 'mlflow' cannot begin a run on {place}: {_reason(error)}"
        ) from error


def _status(error: BaseException) -> int:
    """The HTTP status of what MLflow raised; 500 where no answer came."""
    if (response := getattr(error, "response", None)) is not None:
        return int(response.status_code)
    code = getattr(error, "get_http_status_code", None)
    return int(code()) if code else 0


def _is_refusal(error: BaseException) -> bool:
    """Whether the content is at fault: it will never be taken."""
    return _status(error) in (400, 413, 415, 422)


def _reason(error: BaseException) -> str:
    """The first cause, in one line."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if len(lines[0]) <= 300 else f"{lines[0][:300]}..."

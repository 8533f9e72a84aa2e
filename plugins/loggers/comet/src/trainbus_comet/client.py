"""Comet's client with everything automatic switched off."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainbus import PluginError


def import_comet() -> Any:
    """The module `comet_ml`. Raises `PluginError` when it is missing or too old."""
    try:
        # Imported as it is, comet_ml replaces functions of MLflow, Keras and others by its own:
        # `mlflow.start_run()` then ends the experiment at hand and begins one for MLflow.
        with _set("COMET_DISABLE_AUTO_LOGGING", "1"):
            import comet_ml
    except ImportError as error:
        raise PluginError(
            f"plugin 'comet' cannot import its SDK: {error}: pip install 'comet-ml>=3.49'"
        ) from error
    if not hasattr(comet_ml, "start"):
        raise PluginError(
            f"plugin 'comet' needs comet-ml 3.49 or newer, this is {comet_ml.__version__}: "
            "pip install 'comet-ml>=3.49'"
        )
    if "COMET_LOGGING_CONSOLE" not in os.environ and "COMET_LOGGING_FILE" not in os.environ:
        logging.getLogger("comet_ml").setLevel(logging.WARNING)  # the header has the link
    return comet_ml


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


def start(
    comet_ml: Any,
    *,
    online: bool,
    project: str | None,
    workspace: str | None,
    key: str,
    name: str | None,
    directory: Path,
    system_metrics: bool,
) -> Any:
    """Begin an experiment, or continue the one of that key. Raises `PluginError`.

    Args:
        comet_ml: Comet's client.
        online: at the server, or else in an archive.
        project: Comet's project.
        workspace: Comet's workspace.
        key: the experiment's key, new or not.
        name: the experiment's name; None leaves it as it is.
        directory: where archives go.
        system_metrics: whether Comet records the machine, and the packages that are installed.
    """
    if online and not comet_ml.get_api_key(None, comet_ml.get_config()):
        raise PluginError(
            "plugin 'comet' has no API key: run `comet login` or set COMET_API_KEY, or log offline "
            "with Comet(mode='offline')"
        )
    config = comet_ml.ExperimentConfig(
        name=name, offline_directory=str(directory), display_summary_level=0,
        log_env_details=system_metrics, log_env_host=False, log_code=False, log_graph=False,
        log_git_metadata=False, log_git_patch=False, parse_args=False, auto_output_logging=False,
        auto_param_logging=False, auto_metric_logging=False, auto_log_co2=False,
    )  # fmt: skip
    heard = _Heard(logging.ERROR)
    client_logger = logging.getLogger("comet_ml")
    client_logger.addHandler(heard)
    try:
        if not online:
            directory.mkdir(parents=True, exist_ok=True)
        experiment = comet_ml.start(
            project_name=project, workspace=workspace, experiment_key=key, mode="get_or_create",
            online=online, experiment_config=config,
        )  # fmt: skip
    except Exception as error:
        raise PluginError(f"plugin 'comet' cannot begin: {error}") from error
    finally:
        client_logger.removeHandler(heard)
    if not experiment.alive:  # it reports some failures by its log alone
        raise PluginError(f"plugin 'comet' cannot begin: {' '.join(heard.messages) or 'no reason'}")
    # If the user's own program imported comet_ml first, its replacements leave this one alone.
    experiment.disable_mp()
    return experiment


class _Heard(logging.Handler):
    """Keeps what a logger says."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message."""
        self.messages.append(record.getMessage())

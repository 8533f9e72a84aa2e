"""The beginning and the end of a W&B run."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainbus import PluginError
from trainbus.storage.untrusted import fields, text

if TYPE_CHECKING:
    from wandb import Run

    from trainbus import RunInfo

logger = logging.getLogger("trainbus")

#: The first version that can be told how often to write its file.
_OLDEST = "0.31"
_MEND = (
    "Log in with `wandb login` or WANDB_API_KEY; or work offline: with `-o wandb.mode=offline` or "
    "WANDB_MODE=offline always, with `-o wandb.offline_fallback=true` when it must be"
)
#: W&B shows 0 as finished, 255 as killed, and any other as failed.
_EXIT_CODES = {"completed": 0, "stopped": 0, "interrupted": 255}


def begin(
    run: RunInfo,
    mode: str | None,
    offline_fallback: bool,
    about: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> Run:
    """Begin a W&B run, or continue that of `run.state`, and add its link to the header.

    Args:
        run: the run that is logged.
        mode: how to work; None is what the client was told otherwise.
        offline_fallback: whether to work offline when it does not work online.
        about: arguments of `wandb.init`.
        settings: arguments of `wandb.Settings`.

    Raises:
        PluginError: it cannot be; with the line that mends it.
    """
    wandb = _import_sdk()
    defaults = wandb.setup().settings
    mode = mode or defaults.mode
    if mode == "shared":
        raise PluginError("plugin 'wandb' cannot share its run with others: WANDB_MODE is 'shared'")

    run.check_state(fields({}, {"id": text(128, r"[\w.-]+")}), "plugin 'wandb'")
    known = run.state.get("id")

    def init(mode: str) -> Run:
        remote: Run = wandb.init(
            **about, mode=mode, id=known, resume="allow" if known else None,
            reinit="create_new",  # other runs of this process, and `wandb.run`, stay as they are
            settings=wandb.Settings(**settings, silent=True, finish_timeout_raises=True),
        )  # fmt: skip
        return remote

    problem = ""
    try:
        if mode == "online" and not _has_credentials(wandb, defaults):
            raise wandb.errors.AuthenticationError("no API key is configured")
        remote = init(mode)
    except wandb.errors.CommError as error:
        problem = f"plugin 'wandb' cannot begin a run at {defaults.base_url}: {_reason(error)}"
        if not offline_fallback:
            raise PluginError(f"{problem}. {_MEND}") from error
        remote = init("offline")
        logger.warning("%s. It works offline; later: %s", problem, _sync_offline(remote))
    except wandb.Error as error:
        raise PluginError(f"plugin 'wandb' cannot begin a run: {_reason(error)}") from error
    if remote.disabled:
        run.header["wandb"] = "disabled by WANDB_MODE"
    else:
        _tell(run, remote, problem)
    return remote


def _tell(run: RunInfo, remote: Run, problem: str) -> None:
    """Say where the run can be seen, and remember what finds it again."""
    if remote.offline:
        why = "it could not begin online; " if problem else ""
        run.header["wandb"] = f"offline; {why}later: {_sync_offline(remote)}"
    else:
        run.header["wandb"] = str(remote.url)
    run.state["id"] = remote.id


def finish(remote: Run, status: str) -> None:
    """Upload what is left, and tell W&B how the run ended."""
    try:
        remote.finish(exit_code=_EXIT_CODES.get(status, 1))
    except TimeoutError:
        logger.warning(
            "plugin 'wandb' could not upload all in %.0f s; send the rest with: %s",
            remote.settings.finish_timeout, _sync(remote.settings.sync_dir),
        )  # fmt: skip


def _import_sdk() -> Any:
    mend = f"pip install 'wandb>={_OLDEST}' 'pillow>=10.1'"
    try:
        from packaging.version import Version

        found = version("wandb")  # an import is no proof: any directory `wandb` can be imported
        import PIL.Image  # noqa: F401
        import wandb
    except (ImportError, PackageNotFoundError) as error:
        raise PluginError(f"plugin 'wandb' cannot import its SDK: {error}: {mend}") from error
    if Version(found) < Version(_OLDEST):
        raise PluginError(f"plugin 'wandb' needs wandb {_OLDEST} or newer, not {found}: {mend}")
    return wandb


def _has_credentials(wandb: Any, defaults: Any) -> bool:
    """Look for an API key. Without one, `wandb.init` would ask the terminal, and wait."""
    if wandb.run is not None or defaults.mode != "online":
        return True  # `login` answers in neither case; `init` will
    return bool(wandb.login(prompt=False, verify=False))


def _sync(directory: str) -> str:
    """The command that sends what is in the client's files."""
    return f"wandb sync --include-online {shlex.quote(directory)}"


def _sync_offline(remote: Run) -> str:
    """The command that sends an offline run: all parts of it, if it was resumed."""
    parent = Path(remote.settings.sync_dir).parent
    return f"wandb sync {shlex.quote(str(parent))}/offline-run-*-{remote.id}"


def _reason(error: Exception) -> str:
    """What the client says, in one line and without its advice, which is for its own callers."""
    return " ".join(str(error).partition("\nConsider ")[0].split())

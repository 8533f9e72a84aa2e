"""Trackio's client: its import, where it has its projects, its monitors of the machine."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainbus import PluginError

if TYPE_CHECKING:
    from trainbus_trackio.store import Store

#: This plugin, in messages.
WHO = "plugin 'trackio' (trainbus-trackio)"
_OLDEST = "0.39"
#: Seconds between two looks at the machine, as Trackio's own.
_SYSTEM_SECONDS = 10.0
#: What makes Trackio talk to other machines.
_REMOTE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_BUCKET_ID")


def import_trackio(dir: Path | None) -> Path:
    """Import the SDK with its projects in `dir`; returns where they are."""
    mend = f"pip install 'trackio>={_OLDEST}'"
    if remote := [name for name in _REMOTE if os.environ.get(name)]:
        raise PluginError(
            f"{WHO} writes to this machine alone, and {remote[0]} is set: unset it, and send the "
            "project later with `trackio sync`"
        )
    before = os.environ.get("TRACKIO_DIR")
    try:
        if dir is not None:  # Trackio reads it when it is imported, and only then
            os.environ["TRACKIO_DIR"] = str(dir.absolute())
        import trackio
        from packaging.version import Version
        from trackio.utils import TRACKIO_DIR
    except ImportError as error:
        raise PluginError(f"{WHO} cannot import its SDK: {error}: {mend}") from error
    finally:
        os.environ.pop("TRACKIO_DIR", None)
        if before is not None:
            os.environ["TRACKIO_DIR"] = before
    if Version(trackio.__version__) < Version(_OLDEST):
        raise PluginError(f"{WHO} finds trackio {trackio.__version__}: {mend}")
    place = Path(TRACKIO_DIR)
    if dir is not None and place.absolute() != dir.absolute():
        raise PluginError(
            f"{WHO} cannot use dir={str(dir)!r}: trackio was imported before, with {place}. Set "
            f"the environment variable TRACKIO_DIR={shlex.quote(str(dir))} instead"
        )
    return place


def start_monitors(store: Store) -> list[Any]:
    """Trackio's own, which hand what they measure to `store.log_system`."""
    from trackio.cpu import CpuMonitor
    from trackio.gpu import GpuMonitor, gpu_available

    kinds: list[Any] = [CpuMonitor, GpuMonitor] if gpu_available() else [CpuMonitor]
    monitors = [kind(store, _SYSTEM_SECONDS) for kind in kinds]
    for monitor in monitors:
        monitor.start()
    return monitors


def show_command(project: str) -> str:
    """What shows the project, typed here."""
    from huggingface_hub.constants import HF_HOME
    from trackio.utils import TRACKIO_DIR

    place, command = Path(TRACKIO_DIR), f"trackio show --project {shlex.quote(project)}"
    if place == Path(HF_HOME) / "trackio":
        return command
    if place.is_relative_to(Path.cwd()):
        place = place.relative_to(Path.cwd())
    return f"TRACKIO_DIR={shlex.quote(str(place))} {command}"

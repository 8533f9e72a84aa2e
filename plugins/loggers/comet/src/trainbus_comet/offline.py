"""Comet's offline data: a directory of temporary files that becomes an archive at the end."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from zipfile import ZipFile, is_zipfile

from trainbus.storage.untrusted import Unfit, choice, fields, inside, read_json

logger = logging.getLogger("trainbus")

_MESSAGES = "messages.json"
_MARK = "trainbus/record"


class Written:
    """Waits for the thread that writes an offline experiment; the client's `flush` does not.

    Args:
        experiment: an offline experiment that has just begun.
    """

    def __init__(self, experiment: Any) -> None:
        self._experiment = experiment
        data = Path(experiment.tmpdir)
        self._path = data / _MESSAGES
        self._read = 0
        # The thread notices its end after so many seconds, and the run waits for it.
        experiment.streamer.queue_timeout = 0.1
        # The client writes this at the end. Killed before, its data is complete for `rescue`.
        about = {
            "offline_id": experiment.id, "project_name": experiment.project_name,
            "workspace": experiment.workspace, "tags": [], "start_time": experiment.start_time,
            "stop_time": experiment.start_time, "resume_strategy": "get_or_create",
            "user_provided_experiment_key": True, "comet_start_sourced": True,
        }  # fmt: skip
        (data / "experiment.json").write_text(json.dumps(about), "utf-8")

    def wait(self, record: int, seconds: float = 60.0) -> None:
        """Log a mark with the number of the newest record, and wait until it comes out."""
        self._experiment.log_other(_MARK, record)
        mark = (f'"key":"{_MARK}"'.encode(), f'"value":{record}}}'.encode())
        end = monotonic() + seconds
        with self._path.open("rb") as file:
            while True:
                file.seek(self._read)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._read += len(line)
                    if mark[0] in line and mark[1] in line:
                        return
                if monotonic() > end:
                    raise TimeoutError(f"Comet did not write to {self._path} in {seconds:.0f} s")
                sleep(0.005)


def _is_of(key: str, temporary: str) -> bool:
    """Whether such a directory is that of an experiment, as `Written` noted in it."""
    try:
        data = inside(Path(tempfile.gettempdir()), temporary)
        about = read_json(inside(data, "experiment.json"))
        fields({"offline_id": choice(key)})(about, "experiment.json")
        return inside(data, _MESSAGES).is_file()
    except (OSError, Unfit):
        return False


def rescue(temporary: str, directory: Path, key: str) -> None:
    """Make the archive that a process was killed before.

    Args:
        temporary: the name of a directory of Comet's in the one for temporary files.
        directory: where archives go.
        key: the experiment's key.
    """
    data = Path(tempfile.gettempdir(), temporary)
    name = directory / f"{key}-{temporary}"
    messages = data / _MESSAGES
    if _is_of(key, temporary):
        for archive in directory.glob(f"{key}-*.zip"):
            if not is_zipfile(archive) or not ZipFile(archive).namelist():
                archive.unlink()  # it held the place
        lines = messages.read_bytes()
        messages.write_bytes(lines[: lines.rfind(b"\n") + 1])  # the last may be half a line
        directory.mkdir(parents=True, exist_ok=True)
        shutil.make_archive(str(name), "zip", data)
        shutil.rmtree(data)
    elif not Path(f"{name}.zip").exists():
        logger.warning(
            "plugin 'comet': the run was killed, and what it had logged offline until then is "
            "gone with %s", data,
        )  # fmt: skip

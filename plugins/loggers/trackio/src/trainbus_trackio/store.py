"""A run in a project of Trackio: rows that are written once, however often they are sent.

Trackio's own `init` and `log` write when they like, give each row a random number and the time of
the writing, turn a failure into a warning, and ask the Hub who is logged in. So what is below
them is used: the storage, which takes the number and the time of a row, and says when it fails.
"""

from __future__ import annotations

import re
import shutil
import time as clock
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple


class Row(NamedTuple):
    """Values of one step."""

    #: What no other row of the run has; a row whose key is there already is left out.
    key: int | str
    step: int
    #: Seconds since the epoch.
    time: float
    values: Mapping[str, Any]


class Store:
    """One run of a project.

    Args:
        project: the project's name.
        name: the run's name.
        run_id: what tells it from others of its name.

    Raises:
        ValueError: no project can have this name.
    """

    def __init__(self, project: str, name: str, run_id: str) -> None:
        from trackio import fragments, utils
        from trackio.sqlite_storage import SQLiteStorage

        SQLiteStorage.validate_project_name(project)
        self.project = project
        self._run: dict[str, Any] = {"project": project, "run": name, "run_id": run_id}
        self._reserved = frozenset(utils.RESERVED_KEYS)
        self._keys: dict[str, str] = {}
        #: In use where the projects are on a network file system, as Trackio itself decides. The
        #: dashboard takes the writers' files in the order of their names.
        self._inbox: Any = None
        if utils.get_storage_mode() == "jsonl":
            self._inbox = fragments.FragmentWriter(f"{clock.time_ns():020d}-{run_id}")

    def write(self, rows: Sequence[Row], config: Mapping[str, Any] | None = None) -> None:
        """Write rows, one at least, and the run's configuration. Raises what goes wrong."""
        from trackio import fragments
        from trackio.sqlite_storage import SQLiteStorage

        values = [{self._key(name): plain(v) for name, v in row.values.items()} for row in rows]
        keys = [f"{self._run['run_id']}-{row.key}" for row in rows]
        config = None if config is None else plain(config)
        if self._inbox is None:
            SQLiteStorage.bulk_log(
                **self._run, metrics_list=values, steps=[row.step for row in rows],
                timestamps=[iso(row.time) for row in rows], log_ids=keys, config=config,
            )  # fmt: skip
            return
        entries = [
            self._run
            | {"metrics": each, "step": row.step, "timestamp": iso(row.time), "log_id": key}
            for row, each, key in zip(rows, values, keys, strict=True)
        ]
        entries[0]["config"] = config
        self._inbox.write_local([fragments.metric_record(entry) for entry in entries])

    def _key(self, name: str) -> str:
        """The name of a value; what a row needs for itself gets the prefix that Trackio gives."""
        if name not in self._keys:
            key = plain(name)
            own = key in self._reserved or key.startswith("__")
            self._keys[name] = f"__{key}" if own else key
        return self._keys[name]

    def log_system(self, metrics: Mapping[str, Any]) -> None:
        """Write what Trackio's monitors measured; they call this on their own threads."""
        from trackio import fragments
        from trackio.sqlite_storage import SQLiteStorage

        now = iso(clock.time())
        if self._inbox is None:
            SQLiteStorage.bulk_log_system(
                **self._run, metrics_list=[dict(metrics)], timestamps=[now]
            )
        else:
            entry = self._run | {"metrics": metrics, "timestamp": now}
            self._inbox.write_local([fragments.system_metric_record(entry)])

    def image(self, path: Path, step: int, key: int) -> dict[str, Any]:
        """Copy an image to where the dashboard finds it; returns the value that names it."""
        from trackio import Image
        from trackio.media import get_project_media_path
        from trackio.utils import MEDIA_DIR

        directory = get_project_media_path(self.project, run=self._run["run"], step=step)
        copy = Path(shutil.copyfile(path, directory / f"{key}{path.suffix}"))
        return {
            "_type": Image.TYPE, "file_path": str(copy.relative_to(MEDIA_DIR)), "caption": None
        }  # fmt: skip

    def artifact(self, path: Path, name: str, kind: str, step: int) -> None:
        """Keep a file, or all files of a directory, as a version of an artifact.

        What is there already makes no second version.

        Raises:
            ValueError: Trackio cannot take it, as it is.
        """
        from trackio import Artifact
        from trackio.sqlite_storage import SQLiteStorage

        artifact = Artifact(artifact_name(name), kind)
        (artifact.add_dir if path.is_dir() else artifact.add_file)(path)
        SQLiteStorage.commit_artifact_version(
            project=self.project, name=artifact.name, type=kind,
            description=name if name != artifact.name else None,
            manifest=artifact._build_manifest(self.project), metadata={"step": step}, aliases=None,
            run_name=self._run["run"], run_id=self._run["run_id"],
        )  # fmt: skip


def artifact_name(name: str) -> str:
    """A name of letters, digits, dots, dashes and underscores, and different for each name."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name)
    return plain if plain == name else f"{plain}-{zlib.crc32(name.encode(errors='replace')):08x}"


def plain(value: Any) -> Any:
    """A value that Trackio's JSON can hold: whole numbers of 64 bits, text without surrogates."""
    if isinstance(value, float):
        return value
    if isinstance(value, dict):
        return {plain(key): plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)
    return value


def iso(time: float) -> str:
    """Seconds since the epoch as Trackio keeps them."""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="microseconds")

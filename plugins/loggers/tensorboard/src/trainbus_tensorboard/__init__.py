"""TensorBoard: a run's records as an event file, in the run's directory."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainbus import PluginError, hookimpl
from trainbus.storage.files import make_directory
from trainbus.storage.untrusted import Unfit, fields, inside, mapping, one_of, text, whole
from trainbus_tensorboard import values
from trainbus_tensorboard.event_file import FORM, EventFile, cut

if TYPE_CHECKING:
    from trainbus import Artifact, RunInfo

__all__ = ["TensorBoard"]

_OLDEST = "2.17"
_WHO = "plugin 'tensorboard'"
#: What the journal keeps.
_STATE = fields(
    {},
    {
        "dir": text(),
        "file": text(255, FORM),
        "size": whole(),
        "begun": one_of(bool),
        "params": mapping(),
    },
)


class TensorBoard:
    """Writes the records of each run to an event file.

    Args:
        dir: the directory that gets one directory for each run. By default the event file of a
            run is in its own directory, under `tensorboard`.
    """

    observer = True

    def __init__(self, dir: str | Path | None = None) -> None:
        self.dir = None if dir is None else Path(dir).expanduser()

    # --- the life of a run ---------------------------------------------------------------------

    @hookimpl
    def on_log_start(self, run: RunInfo) -> None:
        """Check the SDK and the directory, and say how to look at the run."""
        _check_sdk()
        run.check_state(_STATE, _WHO)
        # A replay does not know the options of the run's trainer, and a file names no place.
        if self.dir is not None:
            run.state["dir"] = str(self.dir.absolute())
        elif "dir" in run.state:
            raise PluginError(
                f"{_WHO}: the events of this run went to {run.state['dir']!r}; if that is your "
                f"directory, say so: -o tensorboard.dir={shlex.quote(run.state['dir'])}"
            )
        elsewhere = None if self.dir is None else self.dir.absolute()
        directory = run.place("tensorboard", _WHO) if elsewhere is None else elsewhere / run.id
        try:
            make_directory(directory)
            with tempfile.TemporaryFile(dir=directory):  # an event file comes with the first event
                pass
            # What came behind the last flush that counts is delivered again: take it back.
            if "file" in run.state:
                cut(inside(directory, run.state["file"], form=FORM), run.state["size"])
        except (OSError, Unfit) as error:
            raise PluginError(f"plugin 'tensorboard' cannot write to {directory}: {error}") from (
                error
            )
        # A new file, since a server may have read more of the old one than is left of it.
        self._file = EventFile(directory)
        self._moment = run.started
        self._step = 0
        #: What the row of the HParams page begins with, and whether it has begun.
        self._params: dict[str, Any] = run.state.get("params", {})
        self._begun: bool = run.state.get("begun", False)
        self._remember(run)
        parent = elsewhere or run.dir.parent
        run.header["tensorboard"] = f"tensorboard --logdir {shlex.quote(_shown(parent))}"

    @hookimpl
    def on_log_flush(self, run: RunInfo) -> None:
        """Put what was handed over on the disk."""
        try:
            self._file.flush()
        except BaseException:
            self._begun = run.state["begun"]
            raise
        self._remember(run)

    @hookimpl
    def on_log_end(self, run: RunInfo, status: str) -> None:
        """Say how the run ended."""
        self._begin_row(run)
        self.on_log_flush(run)
        if self._begun:
            # Behind what is remembered: if the run goes on, it ends another time, in another way.
            self._file.add([values.row_ends(status, self._moment)], 0, self._moment)
            self._file.flush()

    def _remember(self, run: RunInfo) -> None:
        run.state |= {"file": self._file.path.name, "size": self._file.size, "begun": self._begun}
        run.state["params"] = {} if self._begun else self._params

    # --- records -------------------------------------------------------------------------------

    @hookimpl
    def on_params(self, run: RunInfo, params: Mapping[str, Any]) -> None:
        """Parameters: a text, and a row of the HParams page with the first metric."""
        params = values.plain(params)
        self._params |= params
        self._note("params", params)

    @hookimpl
    def on_tags(self, run: RunInfo, tags: Mapping[str, str]) -> None:
        """Tags, as a text."""
        self._note("tags", tags)

    @hookimpl
    def on_metrics(
        self, run: RunInfo, step: int, metrics: Mapping[str, float], time: float
    ) -> None:
        """Numbers, as scalars: one event for all that belong to a step."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._begin_row(run)
        self._step, self._moment = step, time
        self._file.add(
            [Summary.Value(tag=name, simple_value=metrics[name]) for name in metrics], step, time
        )

    @hookimpl
    def on_log_return(self, run: RunInfo, step: int) -> None:
        """Have TensorBoard drop the steps that the run makes in another way now."""
        self._file.restart(step)

    @hookimpl
    def on_artifact(self, run: RunInfo, artifact: Artifact) -> None:
        """Figures and images as images; everything else as a text."""
        self._step, self._moment = artifact.step, artifact.time
        self._file.add([values.of_artifact(artifact)], artifact.step, artifact.time)

    def _note(self, topic: str, items: Mapping[str, Any]) -> None:
        rows = [{"name": name, "value": value} for name, value in items.items()]
        self._file.add([values.text(topic, values.table(rows))], self._step, self._moment)

    def _begin_row(self, run: RunInfo) -> None:
        """Begin the run's row, with all parameters. TensorBoard reads its first version only."""
        if self._params and not self._begun:
            self._file.add([values.row_begins(self._params, run.started)], 0, run.started)
            self._begun = True


def _check_sdk() -> None:
    who, mend = (
        "plugin 'tensorboard' (trainbus-tensorboard)",
        f"pip install 'tensorboard>={_OLDEST}'",
    )
    try:
        import tensorboard
        from packaging.version import Version
        from tensorboard.compat.proto import event_pb2  # noqa: F401
    except ImportError as error:
        raise PluginError(f"{who} cannot import its SDK: {error}: {mend}") from error
    if Version(tensorboard.__version__) < Version(_OLDEST):
        raise PluginError(f"{who} finds tensorboard {tensorboard.__version__}: {mend}")


def _shown(path: Path) -> str:
    """A path as one would type it here."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path.absolute())

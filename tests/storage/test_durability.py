"""What is written is on the disk before it takes its place; every writer of the repository."""

import ast
import errno
import functools
import os
import stat
from pathlib import Path

import pytest
import torch
from torch import nn

from trainbus import CheckpointError, JournalFile, Task, Trainer, save_weights
from trainbus.builtin import Checkpoint
from trainbus.checkpoints import archive, states
from trainbus.storage.files import make_directory, present, remove_leftovers, replacing

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted([*(ROOT / "core").rglob("*.py"), *ROOT.glob("plugins/*/*/src/**/*.py")])


class Disk:
    """Watches `os`: what was flushed, and whether all was when something took its place."""

    def __init__(self, monkeypatch):
        #: Inodes that were flushed, with size and time of the last change when they were.
        self.flushed = {}
        self.events = []
        self.faults = []
        for name in ("fsync", "rename", "replace", "mkdir"):
            real = getattr(os, name)
            monkeypatch.setattr(os, name, functools.partial(getattr(self, name), real))

    def fsync(self, real, handle):
        real(handle)
        status = os.fstat(handle)
        self.flushed[status.st_ino] = (status.st_size, status.st_mtime_ns)
        self.events.append(("fsync", status.st_ino))

    def mkdir(self, real, path, *mode, **options):
        real(path, *mode, **options)
        self.events.append(("made", Path(path).parent.stat().st_ino))

    def rename(self, real, source, target, **options):
        source, target = Path(source), Path(target)
        if source.name.endswith(".part") and not source.is_symlink():
            self._all_flushed(source)
        real(source, target, **options)
        self.events.append(("moved", target.parent.stat().st_ino))
        self.events.append(("to", target))

    replace = rename

    def _all_flushed(self, path):
        status = path.lstat()
        kind = status.st_mode
        if stat.S_ISDIR(kind):
            for each in path.iterdir():
                self._all_flushed(each)
            if status.st_ino not in self.flushed:
                self.faults.append(f"{path} took its place without being flushed")
        elif stat.S_ISREG(kind) and self.flushed.get(status.st_ino) != (
            status.st_size,
            status.st_mtime_ns,
        ):
            self.faults.append(f"{path} took its place without being flushed")

    def check(self, *targets):
        """All that took a place was flushed before, and each directory that changed after it."""
        assert not self.faults
        for index, (what, where) in enumerate(self.events):
            if what in ("made", "moved"):
                assert ("fsync", where) in self.events[index:], f"a directory was not: {what}"
        moved = {where for what, where in self.events if what == "to"}
        assert {*targets} <= moved


@pytest.fixture
def disk(monkeypatch):
    """A disk that is watched."""
    return Disk(monkeypatch)


# --- every writer --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with a best state, a journal and metrics."""
    data = [(torch.randn(4, 3), torch.zeros(4, dtype=torch.long))] * 2
    keep = Checkpoint(monitor="valid/loss")
    trainer = Trainer(run_dir=tmp_path_factory.mktemp("runs"), plugins=[keep])
    return trainer.fit(Task.supervised(nn.Linear(3, 2)), data, data)


def write_archive(path, run):
    archive.write(path / "runs" / "state", {"model": {"w": torch.ones(2)}}, {"run": "x"})
    return [path / "runs" / "state"]


def point_at_a_state(path, run):
    states.point(path / "best", "step-00000001")
    return [path / "best"]


def write_weights(path, run):
    names = [path / "a" / "w.pt", path / "b" / "w.safetensors"]
    for each in names:
        save_weights(nn.Linear(2, 2), each)
    return names


def fit(path, run):
    data = [(torch.randn(4, 3), torch.zeros(4, dtype=torch.long))] * 2
    trainer = Trainer(run_dir=path / "new" / "runs", plugins=["-journal"])
    run = trainer.fit(Task.supervised(nn.Linear(3, 2)), data)
    return [run.dir / "run.json"]


def write_config(path, run):
    from trainbus.fit.command import write
    from trainbus.fit.config import Config

    (path / "config.toml").write_text("of = 'before'\n")
    (path / "fit.toml").write_text('task = {class = "a:B"}\ndata = {class = "a:C"}\n')
    write(path / "config.toml", Config(path / "fit.toml"), [])
    return [path / "config.toml", path / "config-1.toml"]


def keep_artifact(path, run):
    from trainbus.records.artifacts import Artifact, capture, keep

    body, _ = keep(capture(Artifact("notes", "text", "some", 1)), path)
    return [path / body["path"]]


def copy_journal(path, run):
    with JournalFile.open(run.dir / "journal.db") as journal:
        journal.backup(path / "copy.db")
    return [path / "copy.db"]


def back_up(path, run):
    from trainbus.runs.backup import backup

    backup(run.dir, path / "backups" / run.dir.name)
    return [path / "backups" / run.dir.name]


def export_metrics(path, run):
    from trainbus.runs.export import write
    from trainbus.runs.stored_run import opened

    with opened([str(run.dir)], run.dir.parent) as runs:
        write(runs, path / "metrics.csv", [])
    return [path / "metrics.csv"]


def plot_metrics(path, run):
    from trainbus.runs.plot import write
    from trainbus.runs.stored_run import opened

    with opened([str(run.dir)], run.dir.parent) as runs:
        write(runs, path / "runs.html", [], by_time=False, logarithmic=False)
    return [path / "runs.html"]


def make_plugin(path, run):
    from trainbus.cli.new_plugin import write

    write("durable", "logger", path / "new")
    return [path / "new" / "trainbus-durable"]


def profile(path, run):
    data = [(torch.randn(4, 3), torch.zeros(4, dtype=torch.long))] * 12
    from trainbus_profiler import Profiler

    keep = Profiler(show=False)
    trainer = Trainer(epochs=2, run_dir=path / "runs", plugins=[keep, "-journal"])
    run = trainer.fit(Task.supervised(nn.Linear(3, 2)), data)
    names = ("profile.txt", "profile.json", "profile/trace.json.gz")
    return [run.dir / name for name in names]


def make_learner(path):
    from trainbus_learner import Learner

    data = torch.utils.data.TensorDataset(torch.randn(8, 3), torch.zeros(8, dtype=torch.long))
    loader = torch.utils.data.DataLoader(data, 4)
    return Learner(
        (loader, loader), nn.Linear(3, 2), loss=nn.functional.cross_entropy,
        run_dir=path / "runs", plugins=["-progress"],
    )  # fmt: skip


def list_to_clean(path, run):
    make_learner(path).interpret().to_clean(path / "clean.csv")
    return [path / "clean.csv"]


def write_predictions(path, run):
    from trainbus_learner.table_files import Writer

    with Writer(path / "out.jsonl") as writer:
        writer.write([{"label": "a"}])
    return [path / "out.jsonl"]


def export_model(path, run):
    learner = make_learner(path)
    learner.export(path / "here" / "model", format="weights")
    learner.export(path / "here" / "model", format="torch.export", overwrite=True)
    return [path / "here" / "model"]


def keep_tokens(path, run):
    from trainbus_text import text_file

    (path / "text.txt").write_text("a text of words " * 40)
    text_file(path / "text.txt", context=16, cache=path / "tokens")
    return sorted((path / "tokens").iterdir())


#: Each function that gives something its place, and what makes it write.
WRITERS = {
    "core/trainbus/builtin/manifest.py: Manifest._write": fit,
    "core/trainbus/checkpoints/archive.py: write": write_archive,
    "core/trainbus/checkpoints/states.py: point": point_at_a_state,
    "core/trainbus/checkpoints/weights.py: save_weights": write_weights,
    "core/trainbus/cli/new_plugin.py: write": make_plugin,
    "core/trainbus/fit/command.py: write": write_config,
    "core/trainbus/records/artifacts.py: keep": keep_artifact,
    "core/trainbus/records/database.py: copy": copy_journal,
    "core/trainbus/runs/backup.py: backup": back_up,
    "core/trainbus/runs/export.py: write": export_metrics,
    "core/trainbus/runs/plot.py: write": plot_metrics,
    "plugins/applications/text/src/trainbus_text/files.py: encoded": keep_tokens,
    "plugins/observers/profiler/src/trainbus_profiler/plugin.py: Profiler._finish": profile,
    "plugins/observers/profiler/src/trainbus_profiler/tracing.py: Trace.write": profile,
    "plugins/training/learner/src/trainbus_learner/export.py: write": export_model,
    "plugins/training/learner/src/trainbus_learner/table_files.py: Writer.__enter__": (
        write_predictions
    ),
    "plugins/training/learner/src/trainbus_learner/interpretation.py: Interpretation.to_clean": (
        list_to_clean
    ),
}
#: Those that train for long before they write; they use the same way.
DEMOS = {
    "core/trainbus/cli/demo.py: train",
    "plugins/applications/vision/src/trainbus_vision/demo.py: train",
    "plugins/applications/vision/src/trainbus_vision/demo_detection.py: train",
    "plugins/applications/tabular/src/trainbus_tabular/demo.py: train",
    "plugins/applications/text/src/trainbus_text/demo.py: train",
}
#: What writes without taking a place by itself, and why it may.
OTHERS = {
    "core/trainbus/checkpoints/archive.py: save": "beside its place",
    "core/trainbus/checkpoints/archive.py: _save": "beside its place",
    "core/trainbus/checkpoints/archive.py: _write_part": "beside its place",
    "core/trainbus/checkpoints/weights.py: _write_safetensors": "beside its place",
    "core/trainbus/records/database.py: to_write": "an empty file, which is its owner's only",
    "core/trainbus/records/database.py: set_aside": "another name for what is there",
    "core/trainbus/runs/backup.py: _copy_states": "beside its place",
    "core/trainbus/runs/backup.py: _copy": "beside its place",
    "core/trainbus/runs/export.py: _csv_file": "beside its place",
    "core/trainbus/runs/plot.py: _write_png": "beside its place",
    "core/trainbus/storage/files.py: _exchange": "the way itself",
    "core/trainbus/testing/odd_records.py: log_odd_things": "a test",
    "plugins/training/learner/src/trainbus_learner/table_files.py: _json_to": "beside its place",
    "plugins/training/learner/src/trainbus_learner/table_files.py: csv_to": "beside its place",
    "plugins/training/learner/src/trainbus_learner/table_files.py: Writer.__exit__": "empty",
    "plugins/loggers/comet/src/trainbus_comet/offline.py: Written.__init__": "Comet's own files",
    "plugins/loggers/comet/src/trainbus_comet/offline.py: rescue": "Comet's own files",
    "plugins/loggers/mlflow/src/trainbus_mlflow/remote.py: Remote.artifact": "a temporary file",
    "plugins/loggers/tensorboard/src/trainbus_tensorboard/event_file.py: EventFile.flush":
        "grows, and is flushed: see the tests of trainbus-tensorboard",
    "plugins/loggers/trackio/src/trainbus_trackio/store.py: Store.image": "Trackio's own files",
    "plugins/training/learner/src/trainbus_learner/export.py: _program": "beside its place",
    "plugins/accelerators/distributed/src/trainbus_distributed/failures.py: Failures.begin":
        "for a launcher that lives no longer",
    "plugins/accelerators/distributed/src/trainbus_distributed/failures.py: Failures.publish":
        "for a launcher that lives no longer",
    "plugins/accelerators/distributed/src/trainbus_distributed/failures.py: _tell_torchrun":
        "torchrun's own file",
    "plugins/accelerators/distributed/src/trainbus_distributed/peers.py: _packed": "in memory",
}  # fmt: skip
WRITES = {
    "write_text", "write_bytes", "save_file", "save_model", "savefig", "copyfile", "copy2",
    "copytree", "symlink_to", "rename", "export_chrome_trace", "make_archive", "touch",
}  # fmt: skip


def functions(tree, prefix=""):
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield f"{prefix}{node.name}", node


def called(call):
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def writes(call):
    if called(call) in ("open", "fdopen"):
        given = [*call.args, *(keyword.value for keyword in call.keywords)]
        modes = [each.value for each in given if isinstance(each, ast.Constant)]
        return any(isinstance(m, str) and len(m) <= 3 and {*m} & {*"wax+"} for m in modes)
    saves = called(call) == "save" and ast.unparse(call.func).startswith("torch.")
    # Those of a formatter of help texts write nothing to a disk.
    return saves or (called(call) in WRITES and "formatter" not in ast.unparse(call.func))


def found():
    """All functions that give something its place, and the others that write."""
    placing, others = set(), set()
    for path in SOURCES:
        for name, function in functions(ast.parse(path.read_text("utf-8"))):
            calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
            known = f"{path.relative_to(ROOT)}: {name}"
            if any(called(each) == "replacing" for each in calls):
                placing.add(known)
            elif any(map(writes, calls)):
                others.add(known)
    return placing, others


def test_every_writer_goes_the_one_way():
    placing, others = found()
    assert placing == {*WRITERS} | DEMOS, "a new writer is put into the table of this test"
    assert others == {*OTHERS}, "write with `storage.files.replacing`"


@pytest.mark.parametrize("writer", sorted({*WRITERS.values()}, key=lambda each: each.__name__))
def test_what_is_written_is_flushed_before_it_takes_its_place(writer, disk, tmp_path, trained):
    disk.check(*writer(tmp_path, trained))


def test_a_name_in_place_of_a_link_is_flushed_too(disk, tmp_path, monkeypatch):
    def none(*_args, **_options):
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(Path, "symlink_to", none)
    disk.check(*point_at_a_state(tmp_path, None))
    assert (tmp_path / "best").read_text() == "step-00000001"


# --- what fails ----------------------------------------------------------------------------------


def replace_file(path):
    with replacing(path) as beside:
        beside.write_text("new")


def replace_directory(path):
    with replacing(path) as beside:
        make_directory(beside)
        (beside / "part").write_text("new")


def content(path):
    return (path / "part" if path.is_dir() else path).read_text()


@pytest.fixture(params=["file", "directory"])
def place(request, tmp_path):
    """A place with what was there before, and what replaces it."""
    path, replace = tmp_path / "place", replace_file
    if request.param == "directory":
        path.mkdir()
        (path / "part").write_text("old")
        replace = replace_directory
    else:
        path.write_text("old")
    return path, replace


def failing(real, at, error):
    """A function of `os` that fails in some of its calls."""
    calls = []

    def call(*arguments, **options):
        calls.append(arguments)
        if at(len(calls)):
            raise OSError(error, os.strerror(error))
        return real(*arguments, **options)

    return call


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EINVAL])
def test_a_file_that_cannot_be_flushed_leaves_the_one_of_before(place, monkeypatch, error):
    path, replace = place
    real = os.fsync

    def fsync(handle):
        if stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(error, os.strerror(error))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError) as raised:
        replace(path)
    assert raised.value.errno == error
    assert content(path) == "old"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", ["rename", "replace"])
@pytest.mark.parametrize("number", [1, 2])
def test_a_rename_that_fails_leaves_what_was_there_before(place, monkeypatch, name, number):
    path, replace = place
    failures = failing(getattr(os, name), lambda call: call == number, errno.EIO)
    monkeypatch.setattr(os, name, failures)
    try:
        replace(path)
    except OSError:
        assert content(path) == "old"
    else:
        assert content(path) == "new"
    assert list(path.parent.iterdir()) == [path]


def test_where_nothing_can_be_put_back_it_is_told_where_the_old_one_is(tmp_path, monkeypatch):
    path = tmp_path / "place"
    replace_directory(path)
    monkeypatch.setattr(os, "rename", failing(os.rename, lambda call: call > 1, errno.EIO))
    with pytest.raises(OSError, match=r"what was there before is .*\.place\.old now"):
        replace_directory(path)
    assert content(present(path)) == "new"


@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOTSUP, errno.EACCES])
def test_a_file_system_that_cannot_flush_directories_is_no_fault(place, monkeypatch, error):
    path, replace = place
    real = os.fsync

    def fsync(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(error, os.strerror(error))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    replace(path)
    assert content(path) == "new"


def test_a_disk_that_fails_to_flush_the_exchange_of_directories_is_told(tmp_path, monkeypatch):
    path = tmp_path / "place"
    replace_directory(path)
    (path / "part").write_text("old")
    real = os.fsync
    above = tmp_path.stat().st_ino

    def fsync(handle):
        if os.fstat(handle).st_ino == above and not (path / "part").read_text() == "old":
            raise OSError(errno.EIO, "Input/output error")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError):
        replace_directory(path)
    assert content(path) == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_that_cannot_be_flushed_leave_the_file_of_before(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"weights{suffix}"
    save_weights(nn.Linear(3, 2), path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", failing(os.fsync, lambda call: True, errno.EIO))
    with pytest.raises(CheckpointError, match="Input/output error"):
        save_weights(nn.Linear(3, 2), path)
    assert path.read_bytes() == before


def test_a_directory_of_a_process_killed_between_two_renames_is_found(tmp_path):
    path = tmp_path / "state"
    archive.write(path, {"model": {"w": torch.ones(2)}}, {})
    path.rename(tmp_path / ".state.old")
    assert archive.read(path)["model"]["w"].sum() == 2
    archive.write(path, {"model": {"w": torch.zeros(2)}}, {})
    assert archive.read(path)["model"]["w"].sum() == 0
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "日" * 85])
def test_the_longest_names_are_written(tmp_path, name):
    for replace in (replace_file, replace_directory, replace_directory):
        path = tmp_path / replace.__name__ / name
        make_directory(path.parent)
        replace(path)
        assert content(path) == "new"

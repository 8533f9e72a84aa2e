"""Each reader of a file, with files made of valid ones by mutation: no raw error, no effect."""

import copy
import hashlib
import json
import shutil
import sqlite3
from contextlib import redirect_stderr, redirect_stdout
from contextvars import copy_context
from io import StringIO

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from torch import nn
from torch.nn import functional

from trainbus import JournalFile, Task, TrainbusError, Trainer, load_weights, save_weights
from trainbus.builtin import EMA, Checkpoint
from trainbus.checkpoints import archive
from trainbus.cli import main
from trainbus.fit.config import Config
from trainbus.plugins.project import find_project

EXAMPLES = [50, pytest.param(2000, marks=pytest.mark.slow)]
each_size = pytest.mark.parametrize("examples", EXAMPLES)

ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.just(2**70), st.floats(), st.text(max_size=20),
    st.sampled_from(["../../x", "/etc/passwd", "\x1b[2J", "[" * 3000, "__import__('antigravity')"]),
    st.builds(list), st.builds(dict), st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)  # fmt: skip


def fuzz(strategy, examples, check):
    """Call `check` with so many examples: the same each time, if they are few."""

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=examples < 100,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy)
    def run(value):
        check(value)

    run()


@st.composite
def bytes_of(draw, valid):
    """Valid bytes with some of them changed, left out, doubled or put in."""
    content = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        until = at + draw(st.integers(0, 40))
        kind = draw(st.sampled_from(["flip", "cut", "end", "double", "insert"]))
        if kind == "flip" and content:
            content[at] ^= draw(st.integers(1, 255))
        elif kind == "cut":
            del content[at:until]
        elif kind == "end":
            del content[at:]
        else:
            more = content[at:until] if kind == "double" else draw(st.binary(max_size=20))
            content[at:at] = more
    return bytes(content)


def places(value, path=()):
    """Where values stand in nested dictionaries and lists."""
    items = value.items() if isinstance(value, dict) else ()
    if isinstance(value, (list, tuple)):
        items = enumerate(value[:20])
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


@st.composite
def values_of(draw, valid):
    """Valid values with some of them replaced, or left out."""
    value = copy.deepcopy(valid)
    paths = list(places(valid))
    for _ in range(draw(st.integers(1, 3))):
        *outer, last = draw(st.sampled_from(paths))
        inner = value
        try:
            for key in outer:
                inner = inner[key]
            if draw(st.booleans()) or not isinstance(inner, dict):
                inner[last] = draw(ODD)
            else:
                del inner[last]
        except (KeyError, IndexError, TypeError):
            continue  # something above it was replaced, or is a tuple
    return value


def as_json(value):
    return json.dumps(value, default=str).encode()


def reads(read, *kinds):
    """Read; an error that is explained is one of these kinds."""
    try:
        read()
    except (TrainbusError, *kinds) as error:
        assert str(error)


def task():
    return Task.supervised(nn.Linear(3, 2))


DATA = [(torch.randn(4, 3), torch.zeros(4, dtype=torch.long))] * 2


def resume(path):
    plugins = [Checkpoint(), EMA(), "-nonfinite"]
    Trainer(epochs=2, plugins=plugins, run_dir="mine").fit(task(), DATA, resume=path)


@pytest.fixture
def checkpoint(tmp_path):
    run = Trainer(plugins=[Checkpoint(), EMA()], run_dir=tmp_path / "theirs").fit(task(), DATA)
    shutil.copytree(run.dir / "checkpoints" / "step-00000002", tmp_path / "x")
    resume(tmp_path / "x")  # so that all is imported
    return tmp_path / "x"


@each_size
def test_the_manifest_of_a_checkpoint(checkpoint, tmp_path, watched, examples):
    valid = json.loads((checkpoint / "manifest.json").read_text())

    def check(content):
        (checkpoint / "manifest.json").write_bytes(content)
        with watched(tmp_path, 200):
            reads(lambda: archive.check_state(checkpoint))
            reads(lambda: archive.newest_valid(tmp_path))

    either = st.one_of(bytes_of(as_json(valid)), values_of(valid).map(as_json))
    fuzz(either, examples, check)


@each_size
@pytest.mark.parametrize("part", ["model", "loop", "plugins", "optimizers"])
def test_the_bytes_of_a_part_of_a_checkpoint(checkpoint, tmp_path, part, watched, examples):
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    file = checkpoint / f"{part}.pt"

    def check(content):
        file.write_bytes(content)
        manifest["parts"][part]["sha256"] = hashlib.sha256(content).hexdigest()
        (checkpoint / "manifest.json").write_text(json.dumps(manifest))
        with watched(tmp_path, 200):
            reads(lambda: archive.check_state(checkpoint))
            reads(lambda: load_weights(nn.Linear(3, 2), file))

    fuzz(bytes_of(file.read_bytes()), examples, check)


@each_size
def test_the_values_of_a_checkpoint(checkpoint, tmp_path, watched, examples):
    valid, about = archive.read(checkpoint), archive.about(checkpoint)

    def check(parts):
        try:
            archive.write(checkpoint, parts, about)
        except (TrainbusError, AttributeError, TypeError):
            return  # no such checkpoint can be written
        with watched(tmp_path, 200):
            reads(lambda: resume(checkpoint))

    fuzz(values_of(valid), examples, check)


@each_size
@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_a_file_of_weights(tmp_path, name, watched, examples):
    file = tmp_path / name
    save_weights(nn.Linear(3, 2), file)
    load_weights(nn.Linear(3, 2), file)

    def check(content):
        file.write_bytes(content)
        with watched(tmp_path, 200):
            reads(lambda: load_weights(nn.Linear(3, 2), file))

    fuzz(bytes_of(file.read_bytes()), examples, check)


@pytest.fixture
def journal(tmp_path, monkeypatch):
    directory = tmp_path / "runs" / "2026-01-01_00-00-00_A"
    directory.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with JournalFile.create(directory / "journal.db") as file:
        file.tell(started=1.0, name="A", header={"a": "b"}, host="h", pid=1, id=directory.name)
        table = {"name": "t", "kind": "table", "path": "artifacts/t.json", "bytes": 2, "sha256": ""}
        metrics = [("metrics", 1.0 + i, i, {"train/loss": 1.0 * i}) for i in range(5)]
        start = ("event", 0.0, 0, {"event": "start"})
        params, artifact = ("params", 0.1, 0, {"lr": {"a": 1}}), ("artifact", 9.0, 5, table)
        end = ("event", 10.0, 5, {"event": "end", "status": "completed", "reason": None})
        file.append([start, params, *metrics, artifact, end])
    return directory / "journal.db"


def listed(path):
    """What the command does with a journal, which may say that it is damaged, and not more."""
    run = str(path.parent)
    for arguments in (["runs"], ["runs", "show", run], ["runs", "export", run]):
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            try:
                copy_context().run(main, arguments)
            except SystemExit as ended:
                assert ended.code in (None, 0, 1, 2)


@each_size
def test_the_bytes_of_a_journal(journal, tmp_path, watched, examples):
    listed(journal)

    def check(content):
        journal.write_bytes(content)
        with watched(tmp_path, 200):
            listed(journal)

    fuzz(bytes_of(journal.read_bytes()), examples, check)


CELLS = [
    ("about", "value"), ("records", "body"), ("records", "time"), ("records", "step"),
    ("records", "kind"), ("names", "text"), ("metrics", "steps"), ("metrics", "times"),
    ("metrics", "numbers"), ("metrics", "records"), ("metrics", "last"), ("metrics", "first"),
]  # fmt: skip
CONTENT = st.one_of(
    st.binary(max_size=40), st.floats(), st.integers(-(2**63), 2**63 - 1), st.text(max_size=20),
    ODD.map(lambda value: json.dumps(value)), st.just("[" * 5000),
)  # fmt: skip


@each_size
def test_the_values_of_a_journal(journal, tmp_path, watched, examples):
    valid = journal.read_bytes()
    listed(journal)

    def check(change):
        (table, column), content = change
        journal.write_bytes(valid)
        try:
            with sqlite3.connect(journal) as db:
                db.execute(f"UPDATE {table} SET {column} = ?", (content,))
        except (sqlite3.Error, UnicodeEncodeError):
            return
        finally:
            db.close()
        with watched(tmp_path, 200):
            listed(journal)

    fuzz(st.tuples(st.sampled_from(CELLS), CONTENT), examples, check)


PROJECT = b'plugins = ["checkpoint"]\n[options.checkpoint]\nkeep_last = 3\nmonitor = "a"\n'
CONFIG = b'task = "a:b"\n[trainer]\nepochs = 3\n[data]\ntrain = "c:d"\n'


@each_size
def test_a_project_file(tmp_path, watched, examples):
    def check(content):
        (tmp_path / "trainbus.toml").write_bytes(content)
        (tmp_path / "config.toml").write_bytes(content)
        with watched(tmp_path, 200):
            reads(lambda: find_project(tmp_path))
            reads(lambda: Config(tmp_path / "config.toml").check())

    import pydantic  # noqa: F401 - and the plugin, which the options are compared with

    check(PROJECT)
    deep = st.integers(0, 5000).map(lambda count: b"a = " + b"[" * count)
    any_of = st.one_of(bytes_of(PROJECT), bytes_of(CONFIG), st.binary(max_size=60), deep)
    fuzz(any_of, examples, check)


@pytest.fixture
def export(tmp_path):
    """`export(format)`: the directory of an export."""
    learner = pytest.importorskip("trainbus_learner")

    def make(format):
        data = [(torch.randn(8, 4), torch.zeros(8, dtype=torch.long))] * 2
        made = learner.Learner(
            (data, data),
            nn.Linear(4, 2),
            loss=functional.cross_entropy,
            run_dir=tmp_path / "r",
            plugins=["-progress"],
        )
        made.fit(1)
        return made.export(tmp_path / "out", format=format)

    return make


def predict(path, model=None):
    import trainbus_learner

    trainbus_learner.load(path, model=model).predict(torch.zeros(4))


@each_size
def test_the_description_of_an_export(export, tmp_path, watched, examples):
    path = export("weights")
    predict(path, nn.Linear(4, 2))
    valid = json.loads((path / "description.json").read_text())

    def check(content):
        (path / "description.json").write_bytes(content)
        with watched(tmp_path, 200):
            reads(lambda: predict(path, nn.Linear(4, 2)))

    fuzz(st.one_of(bytes_of(as_json(valid)), values_of(valid).map(as_json)), examples, check)


def described(path):
    about = json.loads((path / "description.json").read_text())
    about["files"] = {
        n: hashlib.sha256((path / n).read_bytes()).hexdigest() for n in about["files"]
    }
    (path / "description.json").write_text(json.dumps(about))


@each_size
def test_the_bytes_of_an_archive(export, tmp_path, watched, examples):
    path = export("torch.export")
    predict(path)

    def check(content):
        (path / "model.pt2").write_bytes(content)
        described(path)
        with watched(tmp_path, 300):
            reads(lambda: predict(path))

    fuzz(bytes_of((path / "model.pt2").read_bytes()), examples, check)


@each_size
def test_the_program_of_an_archive(export, tmp_path, watched, examples):
    import zipfile

    path = export("torch.export")
    predict(path)
    with zipfile.ZipFile(path / "model.pt2") as source:
        contents = {each.filename: source.read(each) for each in source.infolist()}
    (name,) = (each for each in contents if each.endswith("models/model.json"))

    def check(program):
        with zipfile.ZipFile(path / "model.pt2", "w") as made:
            for each, content in contents.items():
                made.writestr(each, as_json(program) if each == name else content)
        described(path)
        with watched(tmp_path, 300):
            reads(lambda: predict(path))

    fuzz(values_of(json.loads(contents[name])), examples, check)


CSV = b'name,label,value\n"a,b",cat,1.5\nc,dog,2\n"d ""e""",cat,\n'


@each_size
@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv"])
def test_a_table(tmp_path, name, watched, examples):
    sources = pytest.importorskip("trainbus_data.sources")
    content = CSV if name.endswith("csv") else CSV.replace(b",", b"\t")

    def check(changed):
        (tmp_path / name).write_bytes(changed)
        with watched(tmp_path, 200):
            reads(lambda: sources.read_rows(tmp_path / name))

    check(content)
    fuzz(st.one_of(bytes_of(content), st.binary(max_size=60)), examples, check)


@each_size
@pytest.mark.parametrize("ending", ["png", "jpg", "gif", "bmp", "webp", "tiff"])
def test_an_image(tmp_path, ending, watched, examples):
    pillow = pytest.importorskip("PIL.Image")
    vision = pytest.importorskip("trainbus_vision")
    data = pytest.importorskip("trainbus_data")
    file = tmp_path / f"image.{ending}"
    pillow.linear_gradient("L").resize((32, 24)).convert("RGB").save(file)
    recipe = data.Recipe((vision.Image(), data.Category(["a"])))
    recipe.encode_input(file)

    def check(content):
        file.write_bytes(content)
        with watched(tmp_path, 1100):  # of the largest that Pillow takes
            reads(lambda: recipe.encode_input(file))

    fuzz(bytes_of(file.read_bytes()), examples, check)

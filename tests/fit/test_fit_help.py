"""`trainbus fit --help`: everything that a file can set, without importing torch."""

import pytest

from trainbus import Trainer
from trainbus.fit.signatures import inspected
from trainbus.fit.static import Sources
from trainbus.plugins.discovery import Installed


def section(text, title):
    lines = text.splitlines()
    start = lines.index(f"{title}:") + 1
    ends = [i for i, line in enumerate(lines) if i > start and line and not line.startswith(" ")]
    return "\n".join(lines[start : min([*ends, len(lines)])])


def test_it_lists_each_argument_of_the_trainer(trainbus):
    text = section(trainbus("fit", "--help").stdout, "[trainer]")
    for name in set(inspected(Trainer).parameters) - {"plugins"}:
        assert f"\n  {name}: " in text
    assert "epochs: int " in text
    assert "accumulate: int = 1 " in text
    assert "batches whose gradients make one optimizer step." in text


def test_it_lists_the_options_of_each_installed_plugin(trainbus):
    text = trainbus("fit", "--help").stdout
    for name in Installed().plugins:
        assert f"\n[options.{name}]:\n" in text
    assert 'mode: "min" | "max" = "min"' in section(text, "[options.checkpoint]")


def test_it_fits_in_80_columns(trainbus, config):
    for arguments in ([], [str(config)]):
        text = trainbus("fit", "--help", *arguments).stdout
        assert [line for line in text.splitlines() if len(line) > 80] == []


def test_with_a_file_it_lists_the_arguments_of_task_and_data(trainbus, config):
    text = trainbus("fit", str(config), "--help").stdout
    task = section(text, "[task] digits:Digits")
    assert "Four numbers to one of two." in task
    assert "hidden: int  (needed)  the width." in task
    assert "lr: float = 0.1" in task
    assert "batch_size: int = 4" in section(text, "[data.train] digits:loader")


def test_what_cannot_be_read_is_named(trainbus, config):
    text = trainbus("fit", str(config), "--set", "task.class=digits:Digts", "-h").stdout
    assert "cannot be read" in section(text, "[task] digits:Digts")
    assert "[trainer]:" in text


@pytest.mark.parametrize("with_file", [False, True])
def test_it_imports_no_torch(config, python, with_file):
    script = (
        "import sys; from trainbus.cli import main\n"
        "main(['fit', '-h', *sys.argv[1:]]); sys.exit('torch' in sys.modules)"
    )
    files = [str(config)] if with_file else []
    python("-c", script, *files)


# --- signatures from source ----------------------------------------------------------------------

MODULE = """
import functools
from dataclasses import dataclass, field
from typing import ClassVar, Literal
from elsewhere import Other as Renamed

SIZE = 3

@dataclass
class Base:
    a: int
    count: ClassVar[int] = 0
    made: list = field(init=False)

@dataclass
class Fields(Base):
    mode: Literal["x", "y"] = "x"
    items: list[int] = field(default_factory=list)

class Plain:
    def __init__(self, size: int = SIZE, /, *layers: int, name: str | None = None, **more): ...
    @classmethod
    def make(cls, b: "int | None" = None): ...
    @staticmethod
    def build(c): ...

class Inherits(Plain): ...

class Counts(dict): ...

@functools.cache
def decorated(a): ...

if SIZE > 2:
    def twice(a): ...
else:
    def twice(b): ...
"""


@pytest.fixture
def read(tmp_path):
    (tmp_path / "module_a.py").write_text(MODULE)
    (tmp_path / "elsewhere.py").write_text("class Other:\n    def __init__(self, z): ...\n")
    return lambda name: Sources([str(tmp_path)]).read(f"module_a:{name}")


@pytest.mark.parametrize(
    ("name", "signature"),
    [
        ("Fields", {"a": "int", "mode": 'Literal["x", "y"]', "items": "list[int]"}),
        ("Plain", {"size": "int", "layers": "int", "name": "str | None", "more": None}),
        ("Plain.make", {"b": "int | None"}),
        ("Plain.build", {"c": None}),
        ("Inherits", {"size": "int", "layers": "int", "name": "str | None", "more": None}),
        ("Renamed", {"z": None}),
    ],
)
def test_the_source_tells_the_arguments(read, name, signature):
    found = read(name)
    types = {name: found.types.get(name) for name in found.parameters}
    shown = {n: t.replace("'", '"').removeprefix('"').removesuffix('"') if t else t
             for n, t in types.items()}  # fmt: skip
    assert shown == signature


def test_the_source_tells_what_is_required_and_the_constants_of_defaults(read):
    assert read("Fields").required == ["a"]
    assert read("Plain").required == []
    assert read("Plain").parameters["size"].default == 3


@pytest.mark.parametrize("name", ["Counts", "decorated", "twice"])
def test_what_the_source_does_not_tell_is_left_open(read, name):
    assert read(name) is None


def test_the_trainer_read_is_the_trainer_imported():
    from_source, imported = Sources().read("trainbus.engine.trainer:Trainer"), inspected(Trainer)
    assert list(from_source.parameters) == list(imported.parameters)
    assert from_source.docs == imported.docs
    assert [p.default for p in from_source.parameters.values()] == [
        p.default for p in imported.parameters.values()
    ]

"""The core stays small, and nobody reaches into the private parts of another file."""

import ast
import inspect
import io
import re
import tokenize
from pathlib import Path

import pytest

from trainbus import Bus
from trainbus.engine.run import Run

ROOT = Path(__file__).parent.parent
CORE = ROOT / "core" / "trainbus"
SOURCES = sorted([*CORE.rglob("*.py"), *ROOT.glob("plugins/*/*/src/**/*.py")])
#: Lines of code: without comments, docstrings and blank lines.
BUDGETS = {"events": 890, "plugins": 890, "engine": 2660}
NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENDMARKER,
}  # fmt: skip

each_source = pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))


def docstrings(tree):
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, owners) and ast.get_docstring(node, clean=False) is not None:
            yield from range(node.body[0].lineno, node.body[0].end_lineno + 1)


def code_lines(path):
    source = path.read_text("utf-8")
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines - set(docstrings(ast.parse(source)))


def total(paths):
    return sum(len(code_lines(path)) for path in paths)


@pytest.mark.parametrize("room", BUDGETS)
def test_a_room_stays_within_its_budget(room):
    assert total((CORE / room).rglob("*.py")) <= BUDGETS[room]


def test_the_core_stays_within_its_budget():
    assert total(CORE.rglob("*.py")) <= 14_750


@each_source
def test_a_file_is_read_in_one_sitting(path):
    assert len(code_lines(path)) <= 320


@each_source
def test_a_function_fits_a_screen(path):
    lines = code_lines(path)
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = len(lines & set(range(node.lineno, node.end_lineno + 1)))
            assert length <= 60, f"{node.name} has {length} lines"


@each_source
def test_no_file_touches_private_attributes_of_another(path):
    """`x._name` is for the file that gives it, or for what another library leaves no way around."""
    tree = ast.parse(path.read_text("utf-8"))
    own = {node.name for node in ast.walk(tree) if hasattr(node, "name")}
    own |= {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    own |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    own |= {
        text for node in ast.walk(tree) if isinstance(node, ast.Constant)
        for text in [node.value] if isinstance(text, str)
    }  # fmt: skip
    ours = {
        name for other in SOURCES if other != path for name in re.findall(
            r"(?:self\.|def |class )(_[a-z]\w*)", other.read_text("utf-8")
        )
    }  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ours - own:
            raise AssertionError(f"line {node.lineno}: {node.attr} belongs to another file")


# --- the contract of a run -----------------------------------------------------------------------


def public_names():
    """The attributes that `Run.__init__` sets, and the methods and properties of the class."""
    source = inspect.getsource(Run.__init__)
    given = set(re.findall(r"^ {8}self\.([a-z]\w*)\b[^=\n]*=", source, re.MULTILINE))
    return given | {name for name in vars(Run) if not name.startswith("_")}


def test_a_run_has_at_most_seventy_public_names():
    names = public_names()
    assert len(names) <= 70, f"{len(names)}: {sorted(names)}"


@pytest.mark.parametrize("name", Bus().hooks)
def test_every_hook_is_tested_by_its_name(name):
    event = name.removeprefix("on_")
    for path in [*ROOT.glob("tests/**/*.py"), *ROOT.glob("plugins/**/tests/*.py")]:
        if path != Path(__file__) and re.search(rf"\b(on_)?{event}\b", path.read_text("utf-8")):
            return
    raise AssertionError(f"no test names {name}")

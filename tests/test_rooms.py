"""The core stays small, and nobody reaches into the private parts of another file."""

import ast
import inspect
import io
import re
import tokenize
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from trainbus import Bus
from trainbus.engine.run import Run

HERE = Path(__file__)
ROOT = HERE.parent.parent
CORE = ROOT / "core" / "trainbus"
SOURCES = sorted([*CORE.rglob("*.py"), *ROOT.glob("plugins/*/*/src/**/*.py")])
#: Lines of code: without comments, docstrings and blank lines.
BUDGETS = {"events": 890, "plugins": 1050, "engine": 3800}
NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENDMARKER,
}  # fmt: skip


@cache
def text_of(path):
    return path.read_text("utf-8")


@cache
def tree_of(path):
    return ast.parse(text_of(path))


@cache
def private_names(path):
    return set(re.findall(r"(?:self\.|def |class )(_[a-z]\w*)", text_of(path)))


def docstrings(tree):
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, owners) and ast.get_docstring(node, clean=False) is not None:
            yield from range(node.body[0].lineno, node.body[0].end_lineno + 1)


@cache
def code_lines(path):
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text_of(path)).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines - set(docstrings(tree_of(path)))


def total(paths):
    return sum(len(code_lines(path)) for path in paths)


@pytest.mark.parametrize("room", BUDGETS)
def test_a_room_stays_within_its_budget(room):
    assert total((CORE / room).rglob("*.py")) <= BUDGETS[room]


def test_the_core_stays_within_its_budget():
    assert total(CORE.rglob("*.py")) <= 17_300


def test_a_file_is_read_in_one_sitting():
    lengths = {str(path): len(code_lines(path)) for path in SOURCES}
    assert {path: length for path, length in lengths.items() if length > 320} == {}


def functions(path):
    """The functions of a file, with their lines of code."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = code_lines(path) & set(range(node.lineno, node.end_lineno + 1))
            yield f"{path}: {node.name}", len(lines)


def test_a_function_fits_a_screen():
    lengths = dict(each for path in SOURCES for each in functions(path))
    assert {name: length for name, length in lengths.items() if length > 60} == {}


def names_of_its_own(path):
    """What a file gives, or names in any way."""
    for node in ast.walk(tree_of(path)):
        if hasattr(node, "name"):
            yield node.name
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        if isinstance(node, ast.Name):
            yield node.id
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_no_file_touches_private_attributes_of_another():
    """`x._name` is for the file that gives it, or for what another library leaves no way around."""
    ours = Counter(name for path in SOURCES for name in private_names(path))
    touched = [
        f"{path}:{node.lineno}: {node.attr}"
        for path in SOURCES
        for own in [set(names_of_its_own(path))]
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Attribute)
        and node.attr not in own
        and ours[node.attr] > (node.attr in private_names(path))
    ]
    assert touched == []


# --- the contract of a run -----------------------------------------------------------------------


def public_names():
    """The attributes that `Run.__init__` sets, and the methods and properties of the class."""
    source = inspect.getsource(Run.__init__)
    given = set(re.findall(r"^ {8}self\.([a-z]\w*)\b[^=\n]*=", source, re.MULTILINE))
    return given | {name for name in vars(Run) if not name.startswith("_")}


def test_a_run_has_at_most_seventy_four_public_names():
    names = public_names()
    assert len(names) <= 74, f"{len(names)}: {sorted(names)}"


def test_every_hook_is_tested_by_its_name():
    tests = [*ROOT.glob("tests/**/*.py"), *ROOT.glob("plugins/**/tests/*.py")]
    words = set().union(*(re.findall(r"\w+", text_of(path)) for path in tests if path != HERE))
    assert [n for n in Bus().hooks if not {n, n.removeprefix("on_")} & words] == []

"""The README and the guides are run as they stand: what they show works.

A page is read from top to bottom in an empty directory. ```python blocks share one namespace;
```console blocks are run by a shell; a ```python or ```toml block that begins with a comment of
nothing but a path (`# hooks.py`) is written to that file.
"""

import ast
import inspect
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

import pytest

from trainbus import Accelerator, Bus, Run, Trainer, hookspecs
from trainbus.cli import reference
from trainbus.engine.loop import Loop
from trainbus.engine.step import Step
from trainbus.plugins.discovery import known_distributions
from trainbus.plugins.project import find_project

ROOT = Path(__file__).parents[2]
CORE = ROOT / "core" / "trainbus"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
CARDS = [
    path
    for group in ("loggers", "accelerators", "observers")
    for path in sorted(ROOT.glob(f"plugins/{group}/*/README.md"))
]
#: Languages whose blocks are shown, not run.
SHOWN = {"text", "sh", "py"}
FENCED = re.compile(r"^( *)```([^\n]*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str
    #: The line of the page on which the text begins.
    line: int

    @property
    def file(self) -> str | None:
        """The path that the first line names, if it names one."""
        named = re.match(r"# ([\w./-]+\.(?:py|toml))\n", self.text)
        return named[1] if named else None


def blocks_of(page):
    text = page.read_text("utf-8")
    return [
        Block(fence[2], dedent(fence[3]), text.count("\n", 0, fence.start(3)) + 1)
        for fence in FENCED.finditer(text)
    ]


def name_of(page):
    return str(page.relative_to(ROOT))


class Reader:
    """Does what a page says, in the working directory."""

    def __init__(self, page, site, monkeypatch):
        self.page = page
        self.site = site
        self.monkeypatch = monkeypatch
        self.namespace = {"__name__": "__main__"}

    def do(self, block):
        if block.file is not None:
            self.write(block)
        if block.language == "python":
            self.run_python(block)
        elif block.language == "toml":
            self.check_toml(block)
        elif block.language == "console":
            self.run_commands(block)
        else:
            assert block.language in SHOWN, f"{self.where(block)}: {block.language!r} is not known"

    def where(self, block):
        return f"{name_of(self.page)}, line {block.line}"

    def write(self, block):
        path = Path(block.file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, "utf-8")

    def run_python(self, block):
        # The empty lines make the line numbers of a traceback those of the page.
        code = compile("\n" * (block.line - 1) + block.text, str(self.page), "exec")
        exec(code, {"__name__": Path(block.file).stem} if block.file else self.namespace)

    def check_toml(self, block):
        table = tomllib.loads(block.text)
        assert block.file, f"{self.where(block)}: say in a comment which file this is"
        if Path(block.file).name == "trainbus.toml" or "trainbus" in table.get("tool", {}):
            assert find_project(Path(block.file).parent).path == Path(block.file).resolve()

    def run_commands(self, block):
        commands = [
            line.removeprefix("$ ") for line in block.text.splitlines() if line.startswith("$ ")
        ]
        assert commands, f"{self.where(block)}: no line begins with `$ `"
        for command in commands:
            if folder := re.fullmatch(r"pip install (\./\S+)", command):
                self.install(folder[1])
            else:
                self.shell(command, f"{self.where(block)}: {command}")

    def shell(self, command, where):
        here = str(Path(sys.executable).parent)
        environment = {
            **os.environ,
            "PATH": here + os.pathsep + os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join([str(self.site), os.environ.get("PYTHONPATH", "")]).strip(
                os.pathsep
            ),
        }
        done = subprocess.run(
            command, shell=True, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{where}\n{done.stdout}{done.stderr}"

    def install(self, folder):
        """Build and install a package with pip, to a directory that is on the path of this test."""
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check",
             "--no-build-isolation", "--no-deps", "--no-index", "--target", self.site, folder],
            check=True, timeout=600,
        )  # fmt: skip
        self.monkeypatch.syspath_prepend(str(self.site))


#: Pages that start many processes, or train for long.
LONG = ("builtin.md", "devices.md", "files.md", "optimizers.md", "testing.md", "text.md")


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.slow if page.name in LONG else ()) for page in PAGES],
    ids=name_of,
)
def test_page_runs_as_it_stands(page, tmp_path_factory, monkeypatch):
    modules = set(sys.modules)
    reader = Reader(page, tmp_path_factory.mktemp("site"), monkeypatch)
    blocks = blocks_of(page)
    fences = re.findall(r"^ *```", page.read_text("utf-8"), re.MULTILINE)
    assert len(fences) == 2 * len(blocks), "a fence is not closed"
    try:
        for block in blocks:
            reader.do(block)
    finally:
        for name in set(sys.modules) - modules:
            if str(reader.site) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    text = FENCED.sub("", page.read_text("utf-8"))
    for path, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", text):
        target = page.parent / path if path else page
        assert target.exists(), path
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings]


def test_every_hook_is_in_the_reference():
    """`make docs` writes the page again."""
    page = (ROOT / "docs" / "hooks.md").read_text("utf-8")
    assert re.findall(r"^## (\w+)$", page, re.MULTILINE) == list(hookspecs.declared())
    assert page == reference.as_markdown() + "\n"


def test_every_event_is_in_the_diagram_in_firing_order():
    diagram = next(block for block in blocks_of(ROOT / "docs" / "events.md"))
    shown = re.findall(r"^ *(on_\w+)", diagram.text, re.MULTILINE)
    apart = {"on_params", "on_metrics", "on_artifact", "on_tags", "on_exception"}
    apart |= {"on_checkpoint_loaded", "on_checkpoint_saved"}
    apart |= {"on_log_start", "on_log_return", "on_log_flush", "on_log_end"}
    # One moment comes several times; the first is where it is declared.
    shown = list(dict.fromkeys(shown))
    events = [name for name in hookspecs.declared() if name.startswith("on_")]
    assert shown == [name for name in events if name not in apart]


def every_plugin():
    """Name and distribution of the plugins of this project, those of the core too."""
    built_in = {
        entry.name: "trainbus"
        for entry in metadata.entry_points(group="trainbus.plugins")
        if entry.dist is not None and entry.dist.name == "trainbus"
    }
    return {**known_distributions(), **built_in}


def test_the_readme_names_every_plugin_of_this_project():
    table = re.findall(r"^\|[^|]+\|([^|]+)\|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    named = [name for row in table for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(every_plugin())


def test_the_page_on_plugins_lists_every_plugin_with_its_distribution():
    text = (ROOT / "docs" / "plugins.md").read_text("utf-8")
    table = re.findall(r"^\| \[?`(\w+)`[^|]* \| `?([\w-]+)", text, re.MULTILINE)
    assert dict(table) == every_plugin()


def test_every_make_target_shown_exists():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for page in PAGES:
        for block in blocks_of(page):
            if block.language == "sh":
                for target in re.findall(r"^make (\w+)", block.text, re.MULTILINE):
                    assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_architecture_page_names_functions_that_exist():
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    owners = {kind.__name__: kind for kind in (Trainer, Run, Step, Loop, Accelerator, Bus)}
    named = re.findall(rf"\b({'|'.join(owners)})\.(\w+)", text)
    assert len(named) > 10
    assert [f"{kind}.{name}" for kind, name in named if not hasattr(owners[kind], name)] == []


def test_the_architecture_page_describes_every_room_and_every_file_of_the_engine():
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+(?:\.py|/))` \|", text, re.MULTILINE)
    assert len(rows) == len(set(rows))
    rooms = {path.name for path in CORE.glob("[!_]*.py")}
    rooms |= {f"{path.parent.name}/" for path in CORE.glob("*/__init__.py")}
    engine = {path.name for path in (CORE / "engine").glob("[!_]*.py")}
    assert (rooms | engine) - set(rows) == set()


def test_no_room_imports_what_stands_below_it_on_the_architecture_page():
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    table = text.partition("## Rooms")[2].partition("## ")[0]
    rooms = re.findall(r"^\| `(\w+)(?:\.py|/)` \|", table, re.MULTILINE)
    for room in rooms:
        files = [CORE / f"{room}.py", *(CORE / room).rglob("*.py")]
        imported = set().union(*(imports_of(path) for path in files if path.exists()))
        below = rooms[rooms.index(room) + 1 :]
        assert imported & set(below) == set(), room


def imports_of(path):
    """The rooms that a module imports at top level, for more than type checkers."""
    found = set()
    for statement in ast.parse(path.read_text("utf-8")).body:
        if isinstance(statement, ast.ImportFrom) and statement.module == "trainbus":
            found |= {alias.name for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom) and statement.module.startswith("trainbus."):
            found.add(statement.module.split(".")[1])
    return found


def public_names_of_a_run():
    """Its methods and properties, and what it sets when it is made."""
    made = set(re.findall(r"self\.([a-z]\w*)(?::[^=\n]+)? =", inspect.getsource(Run.__init__)))
    return made | {name for name in vars(Run) if not name.startswith("_")}


def test_the_public_names_of_a_run_are_in_the_tables_of_the_event_model():
    text = (ROOT / "docs" / "events.md").read_text("utf-8")
    section = text.partition("## The run\n")[2].partition("What a listener may change")[0]
    names = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert sorted(names) == sorted(public_names_of_a_run())


@pytest.mark.parametrize("page", [*PAGES, *CARDS, ROOT / "CHANGELOG.md"], ids=name_of)
def test_no_line_is_longer_than_120_characters(page):
    if page.name != "hooks.md":  # written by a command, from docstrings
        lines = enumerate(page.read_text("utf-8").splitlines(), 1)
        assert [number for number, line in lines if len(line) > 120] == []


@pytest.mark.slow
def test_the_plugin_on_the_page_of_hooks_is_typed(tmp_path):
    text = (ROOT / "docs" / "writing-hooks.md").read_text("utf-8")
    begin = text.index("# trainbus-gradnorm/src")
    (tmp_path / "gradnorm.py").write_text(text[begin : text.index("```", begin)])
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "gradnorm.py"],
        cwd=tmp_path, env={**os.environ, "MYPYPATH": str(ROOT / "core")},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout

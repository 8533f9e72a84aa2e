"""What holds for the whole repository: names that agree, borders that are kept, pages in step."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from trainbus import hookspecs
from trainbus.cli.reference import as_markdown
from trainbus.plugins.discovery import known_distributions

ROOT = Path(__file__).parent.parent
CORE = ROOT / "core" / "trainbus"
PLUGINS = sorted(
    path for path in ROOT.glob("plugins/*/*") if path.is_dir() and path.name != "__pycache__"
)
CARD = ("Install", "Switch on", "Options", "Events used", "What it costs", "Limits")

each_plugin = pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)


def project(folder):
    return tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]


def requirements(folder):
    return [Requirement(text) for text in project(folder)["dependencies"]]


# --- plugins -------------------------------------------------------------------------------------


def test_the_known_plugins_are_those_of_the_repository():
    assert known_distributions() == {path.name: f"trainbus-{path.name}" for path in PLUGINS}


@each_plugin
def test_the_names_of_a_plugin_agree(folder):
    name = folder.name
    about = project(folder)
    (target,) = about["entry-points"]["trainbus.plugins"].items()
    assert about["name"] == f"trainbus-{name}" == known_distributions()[name]
    assert target[0] == name
    assert target[1].partition(":")[0] == f"trainbus_{name}"
    assert [path.name for path in (folder / "src").iterdir()] == [f"trainbus_{name}"]
    assert (folder / "src" / f"trainbus_{name}" / "py.typed").is_file()


@each_plugin
def test_a_plugin_says_which_core_it_works_with(folder):
    (core,) = (each for each in requirements(folder) if each.name == "trainbus")
    assert core.specifier.contains(metadata.version("trainbus"))
    assert {each.operator for each in core.specifier} == {">=", "<"}
    assert project(folder)["requires-python"] == project(ROOT)["requires-python"]
    assert project(folder)["license"] == project(ROOT)["license"]


@each_plugin
def test_the_card_of_a_plugin_has_its_headings(folder):
    text = (folder / "README.md").read_text("utf-8")
    headings = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    assert [heading for heading in headings if heading in CARD] == list(CARD)


IMPORT = """
import importlib, sys
import trainbus
from trainbus import PluginError, hookimpl, hookspec
before = set(sys.modules)
importlib.import_module(sys.argv[1])
print(*{name.partition(".")[0] for name in set(sys.modules) - before})
"""


@each_plugin
def test_importing_a_plugin_imports_no_third_party(folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(folder / "src"))
    module = f"trainbus_{folder.name}"
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, module], capture_output=True, text=True, check=True
    )
    imported = set(done.stdout.split())
    assert module in imported
    assert imported - {module, "trainbus"} <= sys.stdlib_module_names


@each_plugin
def test_a_plugin_imports_only_the_plugins_that_it_declares(folder):
    declared = {each.name.replace("-", "_") for each in requirements(folder)}
    for path in (folder / "src").rglob("*.py"):
        others = {name for name in imports(path) if name.startswith("trainbus_")}
        assert others - {f"trainbus_{folder.name}"} <= declared, path


def test_plugins_depend_on_each_other_in_one_direction_only():
    """Applications on training, training on the core; the others on the core alone."""
    groups = {f"trainbus-{path.name}": path.parent.name for path in PLUGINS}
    allowed = {"applications": {"training"}, "training": {"training"}}
    for path in PLUGINS:
        for each in requirements(path):
            if each.name in groups:
                assert groups[each.name] in allowed.get(path.parent.name, set()), path


# --- the core ------------------------------------------------------------------------------------


def imports(path):
    """The top-level names that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module).partition(".")[0]


def test_the_core_imports_no_plugin_and_names_none_of_their_modules():
    modules = [f"trainbus_{path.name}" for path in PLUGINS]
    for path in CORE.rglob("*.py"):
        assert not [name for name in imports(path) if name.startswith("trainbus_")], path
        text = path.read_text("utf-8")
        assert not [name for name in modules if re.search(rf"\b{name}\b", text)], path


def test_the_core_needs_little_and_no_sdk():
    needed = {each.name for each in requirements(ROOT)}
    assert {"torch", "pluggy"} <= needed
    assert len(needed) <= 7
    sdks = {each.name for folder in PLUGINS for each in requirements(folder)} - {"trainbus"}
    assert not needed & (sdks - {"torch"})
    assert "torchvision" not in needed


def test_the_core_imports_only_what_it_declares():
    declared = {each.name.replace("-", "_") for each in requirements(ROOT)} | {"trainbus"}
    # What is not installed with it is used only where it is there.
    optional = {"numpy", "sklearn", "matplotlib", "safetensors", "pytest"}
    for path in CORE.rglob("*.py"):
        assert set(imports(path)) <= declared | optional | sys.stdlib_module_names, path


def test_the_extras_of_the_core_name_plugins_of_the_repository():
    extras = project(ROOT)["optional-dependencies"]
    for path in PLUGINS:
        (requirement,) = (Requirement(text) for text in extras[path.name])
        assert requirement.name == f"trainbus-{path.name}"
        assert requirement.specifier.contains(project(path)["version"])


# --- hooks and their pages -----------------------------------------------------------------------


@pytest.mark.parametrize("name", hookspecs.declared())
def test_every_hook_is_described(name):
    assert hookspecs.declared()[name].__doc__


def test_the_hook_reference_is_up_to_date():
    page = (ROOT / "docs" / "hooks.md").read_text("utf-8")
    assert page == as_markdown() + "\n", "write it anew with `make docs`"


# --- every file ----------------------------------------------------------------------------------


def files():
    """The files that git tracks, or would."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [ROOT / line for line in listing.stdout.splitlines() if (ROOT / line).is_file()]


@pytest.mark.parametrize(
    "pattern",
    [
        r"pypi\.(python\.)?org|pythonhosted\.org|https?://\S+/simple\b",
        r"index[-_]url\s*[= ]\s*\S*://",
        "|".join(
            # Those of others by their form, one's own as they are here.
            [r"/(home|Users)/[a-z]\w+", r"[A-Z]:\\Users"]
            + [re.escape(f"{folder}/") for folder in (ROOT.parent, Path.home())]
        ),
    ],
    ids=["index host", "index option", "developer's path"],
)
def test_no_file_names_a_package_index_or_a_developer_s_machine(pattern):
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in files()
        if path != Path(__file__)
        and (match := re.search(pattern, path.read_text("utf-8", errors="replace")))
    ]
    assert found == []

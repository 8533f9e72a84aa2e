"""`trainbus new-plugin`: write a package that installs, is found, and passes its own tests."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path

from trainbus import terminal
from trainbus.errors import UsageError
from trainbus.plugins.discovery import Installed, known_distributions
from trainbus.storage.files import make_directory, replacing
from trainbus.version import __version__

#: Each kind with what its template does, as the package's description.
KINDS = {
    "logger": "Write what a run of trainbus logs to a file of JSON lines.",
    "callback": "Log how many samples a run of trainbus was trained on.",
    "accelerator": "Train with trainbus on the device {name}.",
}
#: Names that mean something else to a trainer or a command line.
_TAKEN = ("auto", "conformance", "core", "cpu", "cuda", "task", "testing", "trainbus")
#: What the templates themselves call something.
_CLASSES = ("Accelerator", "Any", "Artifact", "Mapping", "Run")


def write(name: str, kind: str, directory: Path) -> None:
    """Write the package `trainbus-NAME` and tell what to do with it. Raises `UsageError`."""
    check_name(name)
    root = directory / f"trainbus-{name}"
    if root.exists():
        raise UsageError(f"{root} exists already; choose another name, or another --dir")
    values = {
        "name": name,
        "class": class_name(name),
        "range": compatible(__version__),
        "summary": KINDS[kind].format(name=name),
    }
    templates = resources.files("trainbus.cli") / "templates"
    make_directory(root.parent)
    with replacing(root) as beside:
        for part in ("common", kind):
            for path, template in _files(templates / part):
                target = beside / path.removesuffix(".template").replace("NAME", name)
                target.parent.mkdir(parents=True, exist_ok=True)
                text = template.read_text("utf-8")
                filled = re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], text)
                target.write_text(filled, "utf-8", newline="\n")
    terminal.say(f"wrote {root}: begin with src/trainbus_{name}/__init__.py")
    terminal.say("next:")
    terminal.say(f'  pip install -e "{_shown(root)}[test]"')
    terminal.say(f"  trainbus plugins --hooks -p {name}")
    terminal.say(f'  python -m pytest "{root}"')


def check_name(name: str) -> None:
    """Raise `UsageError` for what cannot be the name of a new plugin."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name, re.ASCII) or name.endswith("_"):
        words = re.findall(r"[a-z][a-z0-9]*", _snake(name).removeprefix("trainbus"))
        better = "_".join(words)
        hint = f"; did you mean {better!r}?" if better else ""
        raise UsageError(
            f"{name!r} cannot be the name of a plugin: give small letters, digits and _, with a "
            f"letter first, as it is to be named in plugins=[...]{hint}"
        )
    if name.startswith("trainbus_"):
        short = name.removeprefix("trainbus_")
        raise UsageError(f"the name is without trainbus: {short!r} makes trainbus-{short}")
    installed = Installed().every
    if name in installed:
        raise UsageError(
            f"a plugin {name!r} is installed ({installed[name].origin}); choose another name"
        )
    if name in (known := known_distributions()):
        raise UsageError(f"there is a plugin {name!r}: pip install {known[name]}")
    if name in _TAKEN or keyword.iskeyword(class_name(name)) or class_name(name) in _CLASSES:
        raise UsageError(f"the name {name!r} means something else already; choose another")
    if find_spec(f"trainbus_{name}") is not None:
        raise UsageError(f"a module trainbus_{name} is installed already; choose another name")


def class_name(name: str) -> str:
    """The class of a plugin, from its name: `grad_norm` has `GradNorm`."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def compatible(version: str) -> str:
    """The range of versions that work like this one: `>=0.1,<0.2`, and from 1.0 on `>=1.2,<2`."""
    major, minor = map(int, version.split(".")[:2])
    return f">={major}.{minor},<{major + 1 if major else f'0.{minor + 1}'}"


def _files(folder: Traversable, path: str = "") -> Iterator[tuple[str, Traversable]]:
    """All files in a folder, with their paths in it."""
    for each in folder.iterdir():
        if each.is_dir():
            yield from _files(each, f"{path}{each.name}/")
        else:
            yield f"{path}{each.name}", each


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _shown(path: Path) -> str:
    """A path that pip does not take for a name."""
    return str(path) if path.is_absolute() else f"./{path.as_posix()}"

"""What a plugin is called, as it is given: by name, file, import path or as an object."""

from __future__ import annotations

import ast
import re
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from trainbus.plugins.discovery import AUTOLOAD_GROUP, Found, Installed


def is_name(item: str | object) -> bool:
    """Whether a wish is the name of an installed plugin, and no file, import path or object."""
    if not isinstance(item, str) or item.endswith(".py"):
        return False
    return ":" not in item or item.startswith(f"{AUTOLOAD_GROUP}:")


def name_of(item: str | object, installed: Installed | None = None) -> str:
    """The name of a plugin, given as a name, a file, an import path or an object."""
    if isinstance(item, str):
        if item.endswith(".py"):
            return Path(item).stem
        if is_name(item):
            return item.removeprefix(f"{AUTOLOAD_GROUP}:")
        return _of_path(item, installed or Installed())
    if isinstance(item, ModuleType):
        return item.__name__.rpartition(".")[2]
    if isinstance(name := getattr(item, "plugin_name", None), str):
        return name
    return kind_of(item, installed or Installed())


def kind_of(item: str | object, installed: Installed) -> str:
    """The name of the plugin that something is one of, whatever its own is."""
    if isinstance(item, (str, ModuleType)):
        return name_of(item, installed)
    kind = item if isinstance(item, type) else type(item)
    if isinstance(name := getattr(kind, "plugin_name", None), str):
        return name
    found = found_of(kind, installed)
    return found.name if found else _snake_case(kind.__name__)


def found_of(kind: type, installed: Installed) -> Found | None:
    """The installed plugin whose class this is, or which a function of its package makes."""
    package, maker = kind.__module__.partition(".")[0], None
    for found in installed.plugins.values():
        module, _, attribute = found.target.partition(":")
        if module.partition(".")[0] != package:
            continue
        if attribute == kind.__qualname__:
            return found
        if found.name == _snake_case(kind.__name__):
            maker = found
    return maker


def _of_path(path: str, installed: Installed) -> str:
    """What `module:attribute` is called, as metadata or its source tell; nothing is imported."""
    for found in installed.plugins.values():
        if found.target == path:
            return found.name
    module, _, attribute = path.partition(":")
    if module in sys.modules:
        target = getattr(sys.modules[module], attribute, None)
        name = getattr(target, "plugin_name", None)
    else:
        name = _said_in_source(module, attribute)
    return name if isinstance(name, str) else _snake_case(attribute.rpartition(".")[2])


def _said_in_source(module: str, name: str) -> Any:
    """What a class, or the class of its file that it inherits from, has as `plugin_name`."""
    places, spec = None, None
    parts = module.split(".")
    for number in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:number]), places)
        if spec is None:
            return None
        places = spec.submodule_search_locations
    if spec is None or not str(spec.origin).endswith(".py"):
        return None
    try:
        tree = ast.parse(Path(str(spec.origin)).read_bytes())
    except (SyntaxError, ValueError):  # told when it is imported
        return None
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    seen: set[str] = set()
    while name in classes and name not in seen:
        seen.add(name)
        for node in classes[name].body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", 0)]
            named = any(getattr(target, "id", "") == "plugin_name" for target in targets)
            if named and isinstance(value := getattr(node, "value", None), ast.Constant):
                return value.value
        name = next((base.id for base in classes[name].bases if isinstance(base, ast.Name)), "")
    return None


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()

"""The public names of a package, each imported when it is first used."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from typing import Any


def face(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package that imports only what is used.

    The stub beside its `__init__.py`, `__init__.pyi`, says what is public, for this function as for
    type checkers: `from package.module import Name as Name`, a line for each module.
    """
    module = sys.modules[package]
    loader: Any = module.__spec__ and module.__spec__.loader
    stub = loader.get_data(f"{str(module.__file__).removesuffix('.py')}.pyi").decode()
    lines = re.sub(r"\(([^)]*)\)", lambda found: found[1].replace("\n", " "), stub)
    places = {
        name: place
        for place, names in re.findall(r"^from (\S+) import (.*)$", lines, re.MULTILINE)
        for name in re.findall(r"\bas (\w+)", names)
    }

    def __getattr__(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if places[name] == package:  # one of its modules
            value = importlib.import_module(f"{package}.{name}")
        else:
            value = getattr(importlib.import_module(places[name]), name)
        setattr(module, name, value)
        return value

    public = sorted(name for name, place in places.items() if place != package)
    return __getattr__, lambda: public, public

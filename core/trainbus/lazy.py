"""The face of a package: its public names, each imported when it is first used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def face(
    package: str, names: Mapping[str, str], modules: str = ""
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package that imports what is used alone.

    Args:
        package: its `__name__`.
        names: the public names, separated by spaces, by the module inside the package that has
            them.
        modules: modules of the package that are to be found as its attributes, too.
    """
    places = {name: module for module, those in names.items() for name in those.split()}

    def __getattr__(name: str) -> Any:
        if name in places:
            value = getattr(importlib.import_module(f"{package}.{places[name]}"), name)
        elif name in modules.split():
            value = importlib.import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)
        return value

    public = sorted(places)
    return __getattr__, lambda: public, public

"""Data blocks for trainbus: from files, tables, lists and tensors to batches, and back.

Importing it imports neither torch nor anything else: names are looked up when they are first used.
What other distributions offer to recipes (`Image` of trainbus-vision) is found here by its name.
"""

from importlib.metadata import entry_points as _entry_points
from typing import Any as _Any

from trainbus.lazy import face

_of_this_package, __dir__, __all__ = face(__name__)


def __getattr__(name: str) -> _Any:
    try:
        return _of_this_package(name)
    except AttributeError:
        if name.startswith("_"):
            raise
        for point in _entry_points(group="trainbus.recipes", name=name):
            return point.load()
        raise

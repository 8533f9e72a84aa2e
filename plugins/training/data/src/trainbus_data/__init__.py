"""Data blocks for trainbus: from files, tables, lists and tensors to batches, and back.

Importing it imports neither torch nor anything else: names are looked up when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainbus_data import splits
    from trainbus_data.blocks import Block, block_from_state
    from trainbus_data.data import Data
    from trainbus_data.datablock import DataBlock
    from trainbus_data.errors import DataError
    from trainbus_data.geometry import Boxes, Points
    from trainbus_data.images import Image, Mask
    from trainbus_data.labels import Categories, Category, Labels, Number
    from trainbus_data.loaders import ItemLoader, MemoryLoader
    from trainbus_data.metrics import F1, MeanIoU, PixelAccuracy, PointDistance
    from trainbus_data.plugin import DataPlugin
    from trainbus_data.recipe import Recipe
    from trainbus_data.sources import find_files, parent_folder
    from trainbus_data.transforms import (
        CenterCrop,
        ItemTransform,
        RandomCrop,
        RandomFlip,
        RandomResizedCrop,
        Resize,
    )

_LAZY = {
    "Block": "blocks",
    "Boxes": "geometry",
    "Categories": "labels",
    "Category": "labels",
    "CenterCrop": "transforms",
    "Data": "data",
    "DataBlock": "datablock",
    "DataError": "errors",
    "DataPlugin": "plugin",
    "F1": "metrics",
    "Image": "images",
    "ItemLoader": "loaders",
    "ItemTransform": "transforms",
    "Labels": "labels",
    "Mask": "images",
    "MeanIoU": "metrics",
    "MemoryLoader": "loaders",
    "Number": "labels",
    "PixelAccuracy": "metrics",
    "PointDistance": "metrics",
    "Points": "geometry",
    "RandomCrop": "transforms",
    "RandomFlip": "transforms",
    "RandomResizedCrop": "transforms",
    "Recipe": "recipe",
    "Resize": "transforms",
    "block_from_state": "blocks",
    "find_files": "sources",
    "parent_folder": "sources",
    "splits": "splits",
}

__all__ = [
    "F1",
    "Block",
    "Boxes",
    "Categories",
    "Category",
    "CenterCrop",
    "Data",
    "DataBlock",
    "DataError",
    "DataPlugin",
    "Image",
    "ItemLoader",
    "ItemTransform",
    "Labels",
    "Mask",
    "MeanIoU",
    "MemoryLoader",
    "Number",
    "PixelAccuracy",
    "PointDistance",
    "Points",
    "RandomCrop",
    "RandomFlip",
    "RandomResizedCrop",
    "Recipe",
    "Resize",
    "block_from_state",
    "find_files",
    "parent_folder",
    "splits",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'trainbus_data' has no attribute {name!r}")
    module = importlib.import_module(f"trainbus_data.{_LAZY[name]}")
    value = module if name == _LAZY[name] else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__

"""Data blocks for trainbus: from files, tables, lists and tensors to batches, and back.

Importing it imports neither torch nor anything else: names are looked up when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainbus.lazy import face

if TYPE_CHECKING:
    from trainbus_data import splits as splits
    from trainbus_data.blocks import Block as Block
    from trainbus_data.data import Data as Data
    from trainbus_data.datablock import DataBlock as DataBlock
    from trainbus_data.errors import DataError as DataError
    from trainbus_data.labels import Categories as Categories
    from trainbus_data.labels import Category as Category
    from trainbus_data.labels import Labels as Labels
    from trainbus_data.labels import Number as Number
    from trainbus_data.loaders import ItemLoader as ItemLoader
    from trainbus_data.loaders import MemoryLoader as MemoryLoader
    from trainbus_data.metrics import F1 as F1
    from trainbus_data.plugin import DataPlugin as DataPlugin
    from trainbus_data.recipe import Recipe as Recipe
    from trainbus_data.recipe import block_from_state as block_from_state
    from trainbus_data.sources import find_files as find_files
    from trainbus_data.sources import parent_folder as parent_folder
    from trainbus_data.transforms import ItemTransform as ItemTransform

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "blocks": "Block",
        "data": "Data",
        "datablock": "DataBlock",
        "errors": "DataError",
        "labels": "Categories Category Labels Number",
        "loaders": "ItemLoader MemoryLoader",
        "metrics": "F1",
        "plugin": "DataPlugin",
        "recipe": "Recipe block_from_state",
        "sources": "find_files parent_folder",
        "transforms": "ItemTransform",
    },
    modules="splits",
)

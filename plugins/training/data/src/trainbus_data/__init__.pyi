from trainbus_data import splits as splits
from trainbus_data.blocks import Block as Block
from trainbus_data.data import Data as Data
from trainbus_data.datablock import DataBlock as DataBlock
from trainbus_data.errors import DataError as DataError
from trainbus_data.item_loader import ItemLoader as ItemLoader
from trainbus_data.labels import (
    Categories as Categories,
    Category as Category,
    Labels as Labels,
    Number as Number,
)
from trainbus_data.memory_loader import MemoryLoader as MemoryLoader
from trainbus_data.metrics import F1 as F1
from trainbus_data.plugin import DataPlugin as DataPlugin
from trainbus_data.ranges import BucketLoader as BucketLoader, WindowLoader as WindowLoader
from trainbus_data.recipe import Recipe as Recipe, block_from_state as block_from_state
from trainbus_data.sources import find_files as find_files, parent_folder as parent_folder
from trainbus_data.step_kit import check_step as check_step
from trainbus_data.steps import Step as Step
from trainbus_data.tables.columns import Column as Column, Table as Table
from trainbus_data.tables.reader import read_table as read_table
from trainbus_data.transforms import ItemTransform as ItemTransform
from trainbus_data.whole_metrics import (
    AUC as AUC,
    R2 as R2,
    AveragePrecision as AveragePrecision,
    Brier as Brier,
    LogLoss as LogLoss,
    MeanAbsolute as MeanAbsolute,
    Pinball as Pinball,
    QuadraticKappa as QuadraticKappa,
)

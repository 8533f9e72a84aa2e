from trainbus import (
    batches as batches,
    builtin as builtin,
    errors as errors,
    events as events,
    testing as testing,
)
from trainbus.bus import Bus as Bus
from trainbus.checkpoints.weights import load_weights as load_weights, save_weights as save_weights
from trainbus.devices.accelerator import Accelerator as Accelerator
from trainbus.devices.peers import Peers as Peers
from trainbus.devices.random_state import seed_everything as seed_everything
from trainbus.engine.loader import Loader as Loader
from trainbus.engine.optimizers import (
    make_optimizer as make_optimizer,
    optimizer_named as optimizer_named,
)
from trainbus.engine.run import Run as Run
from trainbus.engine.scheduled import Scheduled as Scheduled
from trainbus.engine.task import Task as Task
from trainbus.engine.trainer import Trainer as Trainer
from trainbus.errors import (
    CheckpointError as CheckpointError,
    JournalError as JournalError,
    PluginError as PluginError,
    RecordRejected as RecordRejected,
    SkipBatch as SkipBatch,
    SkipStep as SkipStep,
    StopEpoch as StopEpoch,
    StopRun as StopRun,
    TrainbusError as TrainbusError,
    UsageError as UsageError,
)
from trainbus.events.markers import hookimpl as hookimpl, hookspec as hookspec
from trainbus.loaders import Loaders as Loaders
from trainbus.records.artifacts import Artifact as Artifact
from trainbus.records.delivery import RunInfo as RunInfo
from trainbus.records.journal import JournalFile as JournalFile
from trainbus.version import __version__ as __version__

"""The verbs of training: fit, fine-tune, find a learning rate, predict, interpret, export.

Importing it imports neither torch nor any other third party: names are looked up when they are
first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainbus.lazy import face

if TYPE_CHECKING:
    from trainbus_learner.batch_size import BatchSizes as BatchSizes
    from trainbus_learner.errors import ExportError as ExportError
    from trainbus_learner.interpretation import Interpretation as Interpretation
    from trainbus_learner.learner import Learner as Learner
    from trainbus_learner.loading import load as load
    from trainbus_learner.lr_finder import LearningRates as LearningRates
    from trainbus_learner.plugin import LearnerPlugin as LearnerPlugin
    from trainbus_learner.predictor import Prediction as Prediction
    from trainbus_learner.predictor import Predictor as Predictor

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "batch_size": "BatchSizes",
        "errors": "ExportError",
        "interpretation": "Interpretation",
        "learner": "Learner",
        "loading": "load",
        "lr_finder": "LearningRates",
        "plugin": "LearnerPlugin",
        "predictor": "Prediction Predictor",
    },
)

"""The verbs of training: fit, fine-tune, find a learning rate, predict, interpret, export.

Importing it imports neither torch nor any other third party: names are looked up when they are
first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainbus_learner.batch_size import BatchSizes
    from trainbus_learner.errors import ExportError
    from trainbus_learner.interpretation import Interpretation
    from trainbus_learner.learner import Learner
    from trainbus_learner.loading import load
    from trainbus_learner.lr_finder import LearningRates
    from trainbus_learner.plugin import LearnerPlugin
    from trainbus_learner.predictor import Prediction, Predictor

_LAZY = {
    "BatchSizes": "batch_size",
    "ExportError": "errors",
    "Interpretation": "interpretation",
    "Learner": "learner",
    "LearnerPlugin": "plugin",
    "LearningRates": "lr_finder",
    "Prediction": "predictor",
    "Predictor": "predictor",
    "load": "loading",
}

__all__ = [
    "BatchSizes",
    "ExportError",
    "Interpretation",
    "Learner",
    "LearnerPlugin",
    "LearningRates",
    "Prediction",
    "Predictor",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'trainbus_learner' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"trainbus_learner.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__

from trainbus_learner.baselines import (
    Comparison as Comparison,
    Problem as Problem,
    Unsuited as Unsuited,
)
from trainbus_learner.batch_size import BatchSizes as BatchSizes
from trainbus_learner.ensembles import Ensemble as Ensemble
from trainbus_learner.errors import ExportError as ExportError
from trainbus_learner.finders import find_batch_size as find_batch_size, find_lr as find_lr
from trainbus_learner.interpretation import Interpretation as Interpretation
from trainbus_learner.learner import Learner as Learner
from trainbus_learner.loading import load as load
from trainbus_learner.lr_finder import LearningRates as LearningRates
from trainbus_learner.plugin import LearnerPlugin as LearnerPlugin
from trainbus_learner.predictor import Prediction as Prediction, Predictor as Predictor
from trainbus_learner.weights import Taken as Taken

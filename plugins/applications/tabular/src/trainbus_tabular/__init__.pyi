from trainbus_tabular.bins import quantile_bins as quantile_bins, target_bins as target_bins
from trainbus_tabular.calibration import Calibration as Calibration
from trainbus_tabular.data import TableData as TableData
from trainbus_tabular.layout import TableLayout as TableLayout
from trainbus_tabular.learner import TabularLearner as TabularLearner
from trainbus_tabular.model import ARCHS as ARCHS, TableModel as TableModel
from trainbus_tabular.plugin import TabularPlugin as TabularPlugin
from trainbus_tabular.predictor import (
    Predicted as Predicted,
    RowPrediction as RowPrediction,
    TablePredictor as TablePredictor,
)
from trainbus_tabular.recipe import TableRecipe as TableRecipe
from trainbus_tabular.table import table as table
from trainbus_tabular.targets import TableTarget as TableTarget

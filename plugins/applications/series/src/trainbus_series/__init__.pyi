from trainbus_series.classify import SERIES_ARCHS as SERIES_ARCHS, SeriesModel as SeriesModel
from trainbus_series.data import ForecastData as ForecastData
from trainbus_series.forecast import Forecast as Forecast, ForecastPredictor as ForecastPredictor
from trainbus_series.labelled import (
    SeriesData as SeriesData,
    series_arrays as series_arrays,
    series_files as series_files,
)
from trainbus_series.labels import SeriesPredictor as SeriesPredictor
from trainbus_series.learner import ForecastLearner as ForecastLearner
from trainbus_series.models import ARCHS as ARCHS, ForecastModel as ForecastModel
from trainbus_series.plugin import SeriesPlugin as SeriesPlugin
from trainbus_series.recipe import SeriesRecipe as SeriesRecipe
from trainbus_series.rocket import MiniRocket as MiniRocket
from trainbus_series.series_learner import SeriesLearner as SeriesLearner
from trainbus_series.table import series_table as series_table

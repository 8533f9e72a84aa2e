from trainbus_collab.data import (
    CollabData as CollabData,
    CollabLoaders as CollabLoaders,
    CollabRecipe as CollabRecipe,
)
from trainbus_collab.learner import CollabLearner as CollabLearner
from trainbus_collab.models import (
    RANKING_ARCHS as RANKING_ARCHS,
    RATING_ARCHS as RATING_ARCHS,
    RankingModel as RankingModel,
    RatingModel as RatingModel,
)
from trainbus_collab.plugin import CollabPlugin as CollabPlugin
from trainbus_collab.predictor import (
    CollabPredictor as CollabPredictor,
    Recommendations as Recommendations,
)
from trainbus_collab.reading import interactions as interactions

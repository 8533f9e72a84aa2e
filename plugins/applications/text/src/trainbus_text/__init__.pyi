from trainbus_text.corpus import LanguageData as LanguageData, text_file as text_file
from trainbus_text.counting import kneser_ney as kneser_ney
from trainbus_text.data import TextData as TextData
from trainbus_text.generator import LanguagePredictor as LanguagePredictor
from trainbus_text.gpt import GPT as GPT
from trainbus_text.language import (
    LANGUAGE_ARCHS as LANGUAGE_ARCHS,
    LanguageLearner as LanguageLearner,
)
from trainbus_text.learner import TextLearner as TextLearner
from trainbus_text.models import ARCHS as ARCHS, TextModel as TextModel
from trainbus_text.ngrams import NGrams as NGrams
from trainbus_text.plugin import TextPlugin as TextPlugin
from trainbus_text.predictor import (
    TextPrediction as TextPrediction,
    TextPredictor as TextPredictor,
)
from trainbus_text.recipe import TextRecipe as TextRecipe
from trainbus_text.table import text_table as text_table
from trainbus_text.targets import ScaledNumber as ScaledNumber
from trainbus_text.tokens import Bytes as Bytes, Characters as Characters, Subwords as Subwords

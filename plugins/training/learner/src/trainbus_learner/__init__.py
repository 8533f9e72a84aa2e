"""The verbs of training: fit, fine-tune, find a learning rate, predict, interpret, export.

Importing it imports neither torch nor any other third party: names are looked up when they are
first used.
"""

from trainbus.lazy import face

__getattr__, __dir__, __all__ = face(__name__)

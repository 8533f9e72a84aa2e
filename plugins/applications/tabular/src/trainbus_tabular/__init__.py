"""Tables for trainbus: from a frame or a file to a model that is shown beside the classical answer.

Importing it imports neither torch nor any other third party: names are looked up when they are
first used.
"""

from trainbus.lazy import face

__getattr__, __dir__, __all__ = face(__name__)

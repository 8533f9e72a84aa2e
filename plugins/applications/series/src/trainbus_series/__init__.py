"""Series for trainbus: what comes next in a series, and what a series is.

Importing it imports neither torch nor any other third party: names are looked up when they are
first used.
"""

from trainbus.lazy import face

__getattr__, __dir__, __all__ = face(__name__)

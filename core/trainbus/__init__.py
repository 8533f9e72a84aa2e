"""trainbus: a plugin-based trainer for PyTorch with an event bus.

Importing it imports neither torch nor a plugin: names are looked up when they are first used.
"""

from trainbus.lazy import face

__getattr__, __dir__, __all__ = face(__name__)

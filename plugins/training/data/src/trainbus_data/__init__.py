"""Data blocks for trainbus: from files, tables, lists and tensors to batches, and back.

Importing it imports neither torch nor anything else: names are looked up when they are first used.
"""

from trainbus.lazy import face

__getattr__, __dir__, __all__ = face(__name__)

"""Random augmentation of whole batches of images, on the device they are on.

Importing it imports no torch: names are looked up when they are first used.
"""

from trainbus.lazy import face

__getattr__, __dir__, __all__ = face(__name__)

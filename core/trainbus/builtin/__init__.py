"""The plugins that the core ships, written on the same hooks that everyone has."""

from trainbus.lazy import face

__getattr__, __dir__, __all__ = face(__name__)

"""Texts for trainbus: what a text is, and models of language that write it on.

Importing it imports neither torch nor any other third party: names are looked up when they are
first used.
"""

from trainbus.lazy import face

__getattr__, __dir__, __all__ = face(__name__)

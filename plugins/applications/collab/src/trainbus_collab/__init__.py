"""Recommendations for trainbus: what a user gives an item, and which item comes next.

Importing it imports neither torch nor any other third party: names are looked up when they are
first used.
"""

from trainbus.lazy import face

__getattr__, __dir__, __all__ = face(__name__)

"""Tables for trainbus: what a row is, or how much, learned from columns of any kind.

Importing it imports neither torch nor any other third party: names are looked up when they are
first used.
"""

from trainbus.lazy import face

__getattr__, __dir__, __all__ = face(__name__)

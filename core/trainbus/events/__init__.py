"""The mechanism: who listens to which hook, in which order, and one fast function for each.

It knows no hook of trainbus and nothing of training; see `EventBus`.
"""

from trainbus.lazy import face

__getattr__, __dir__, __all__ = face(__name__)

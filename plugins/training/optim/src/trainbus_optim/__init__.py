"""Optimizers from blocks: torch's bits, the speed of its fused kernels, mixed freely.

Importing it imports no torch: names are looked up when they are first used.
"""

from trainbus.lazy import face

__getattr__, __dir__, __all__ = face(__name__)

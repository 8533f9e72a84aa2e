"""Many processes for trainbus: DDP and FSDP2, exact in data, metrics and resume."""

from trainbus.lazy import face

__getattr__, __dir__, __all__ = face(__name__)

"""The bus of trainbus: an event bus with the hooks of a training."""

from trainbus.events.event_bus import Bus

__all__ = ["Bus"]

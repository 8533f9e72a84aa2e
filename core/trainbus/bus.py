"""The bus of trainbus: an event bus with the hooks of a training."""

from __future__ import annotations

from trainbus import hookspecs
from trainbus.events.event_bus import EventBus


class Bus(EventBus):
    """An `EventBus` with every hook of `trainbus.hookspecs`."""

    delivery_hook = "on_log_start"

    def __init__(self) -> None:
        super().__init__()
        self.declare(hookspecs)

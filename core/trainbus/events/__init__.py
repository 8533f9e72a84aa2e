"""The mechanism: who listens to which hook, in which order, and one fast function for each.

It knows no hook of trainbus and nothing of training; see `EventBus`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainbus.lazy import face

if TYPE_CHECKING:
    from trainbus.events.event_bus import EventBus as EventBus
    from trainbus.events.markers import hookimpl as hookimpl
    from trainbus.events.markers import hookspec as hookspec
    from trainbus.events.plugin import Plugin as Plugin

__getattr__, __dir__, __all__ = face(
    __name__,
    {"event_bus": "EventBus", "markers": "hookimpl hookspec", "plugin": "Plugin"},
)

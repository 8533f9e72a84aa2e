"""The mechanism: who listens to which hook, in which order, and one fast function for each.

It knows no hook of trainbus and nothing of training; see `EventBus`.
"""

from trainbus.events.event_bus import EventBus
from trainbus.events.markers import hookimpl, hookspec
from trainbus.events.plugin import Plugin

__all__ = ["EventBus", "Plugin", "hookimpl", "hookspec"]

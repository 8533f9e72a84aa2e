from trainbus.events.event_bus import EventBus as EventBus
from trainbus.events.markers import hookimpl as hookimpl, hookspec as hookspec
from trainbus.events.plugin import Plugin as Plugin

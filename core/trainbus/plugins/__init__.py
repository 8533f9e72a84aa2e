"""From a name to a plugin: what is installed, what is switched on, with which options."""

from trainbus.plugins.loading import bus_of, load, register, unknown

__all__ = ["bus_of", "load", "register", "unknown"]

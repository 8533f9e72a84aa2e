"""A plugin for another version of the core, in which it cannot even be imported."""

from trainbus.not_yet import Better  # noqa: F401

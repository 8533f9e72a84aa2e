"""A plugin that listens to a hook that does not exist."""

from trainbus import hookimpl


class Misspelt:
    @hookimpl
    def on_fit_strat(self, run): ...

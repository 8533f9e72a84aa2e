"""A company's plugin that listens to a hook that does not exist."""

from trainbus import hookimpl


class Typo:
    @hookimpl
    def on_fit_strat(self, run): ...

"""Two plugins of a distribution that is named like neither."""

from trainbus import hookimpl


class Costs:
    @hookimpl
    def on_fit_start(self, run): ...


class Energy:
    @hookimpl
    def on_fit_start(self, run): ...

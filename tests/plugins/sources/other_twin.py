"""One of two distributions that claim the name `twin`."""

from trainbus import hookimpl


class Twin:
    @hookimpl
    def on_fit_start(self, run): ...

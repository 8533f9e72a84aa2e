"""A plugin as it should be."""

from trainbus import hookimpl


class Good:
    @hookimpl
    def on_fit_start(self, run):
        run.header["good"] = "was here"

"""A company's plugin, active wherever it is installed."""

from trainbus import hookimpl


class Office:
    def __init__(self, team: str = "nobody"):
        self.team = team

    @hookimpl
    def on_fit_start(self, run): ...

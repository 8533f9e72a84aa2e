"""A plugin whose SDK is missing; the module itself imports well."""

from trainbus import hookimpl


class Needy:
    @hookimpl
    def on_fit_start(self, run): ...

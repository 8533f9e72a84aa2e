"""A plugin with a secret, which it refuses to take when it is short."""

from trainbus import hookimpl


class Vault:
    def __init__(self, api_key: str = "none", size: int = 1):
        if len(api_key) < 4:
            raise ValueError("the key is too short")
        self.api_key = api_key
        self.size = size

    @hookimpl
    def on_fit_start(self, run): ...

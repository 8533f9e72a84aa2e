"""What all training runs at Acme have in common: tags for costs, a message on failure."""

from __future__ import annotations

import getpass
import json
import urllib.request
from typing import TYPE_CHECKING

from trainbus import hookimpl

if TYPE_CHECKING:
    from trainbus import Run


class Acme:
    """Tag each run, and report failed ones.

    Args:
        team: who pays.
        cost_center: the account it is booked to.
        webhook: the URL that gets a JSON message when a run fails; none if empty.
    """

    observer = True

    def __init__(self, team: str, cost_center: str = "research", webhook: str = "") -> None:
        self.tags = {"team": team, "cost_center": cost_center, "user": getpass.getuser()}
        self.webhook = webhook
        self.error: BaseException | None = None

    @hookimpl
    def on_run_start(self, run: Run) -> None:
        """Begin without the error of an earlier run, and show who pays."""
        self.error = None
        run.header["acme"] = f"{self.tags['team']}, booked to {self.tags['cost_center']}"

    @hookimpl
    def on_fit_start(self, run: Run) -> None:
        """Send the tags to the loggers."""
        run.log_tags(self.tags)

    @hookimpl
    def on_exception(self, error: BaseException) -> None:
        """Keep the error for the message."""
        self.error = error

    @hookimpl
    def on_run_end(self, run: Run, status: str) -> None:
        """Post the message; if that fails, the run has one more warning."""
        if status == "failed" and self.webhook and not run.dry_run:
            where = f"{run.name} of {self.tags['team']} failed at step {run.global_step}"
            body = json.dumps({"text": f"{where}: {self.error}"}).encode()
            kind = {"Content-Type": "application/json"}
            request = urllib.request.Request(self.webhook, body, kind)
            urllib.request.urlopen(request, timeout=10).close()

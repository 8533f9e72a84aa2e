"""How processes that train together end at the same batch, whoever of them wants to."""

from __future__ import annotations

import signal
from time import monotonic
from typing import Any

from trainbus.devices.peers import Peers
from trainbus.engine.wishes import Wish

_SIGNALS = {
    getattr(signal, wish.name): wish
    for wish in (Wish.SIGINT, Wish.SIGTERM, Wish.SIGHUP)
    if wish.name and hasattr(signal, wish.name)
}
#: Processes meet so often, and after so many windows of batches at the latest.
_SECONDS = 0.5
_MOST = 64


class Agreement:
    """The wishes of this process, and those that all agreed on.

    They meet at the ends of passes, and in between after a number of windows that makes about half
    a second: counted, since clocks differ.
    """

    def __init__(self, peers: Peers) -> None:
        self.peers = peers
        self.asked = Wish(0)
        #: What was agreed on at the newest meeting, until the next window is done.
        self.agreed = Wish(0)
        self._error: BaseException | None = None
        self._every, self._since, self._met_at = 1, 0, monotonic()

    def ask(self, wish: Wish) -> None:
        """Want something, from the next meeting on."""
        self.asked |= wish

    def ask_to_end(self, error: BaseException) -> None:
        """Want what a signal wants: its exception, once all are there."""
        self._error = error
        number = signal.SIGINT
        if isinstance(error, SystemExit) and isinstance(error.code, int) and error.code > 128:
            number = signal.Signals(error.code - 128)
        self.asked |= _SIGNALS.get(number, Wish.SIGTERM)

    def after_window(self, run: Any) -> None:
        """Meet, if so many windows were made since the last time."""
        self.agreed = Wish(0)
        self._since += 1
        if self._since >= self._every:
            self.meet(run)

    def meet(self, run: Any) -> None:
        """Hear what the others want, and do what anybody wants.

        Raises:
            TrainbusError: the processes have not made the same number of steps.
        """
        proposed = 0
        if self._since and run.rank == 0:
            pace = (monotonic() - self._met_at) / self._since
            proposed = max(1, min(_MOST, 2 * self._every, int(_SECONDS / max(pace, 1e-6))))
        flags, proposed = self.peers.agree(int(self.asked), proposed, run.global_step)
        self._every = proposed or self._every
        self._since, self._met_at = 0, monotonic()
        self.asked, self.agreed = Wish(0), Wish(flags)
        if flags:
            self._obey(run)

    def _obey(self, run: Any) -> None:
        if self.agreed & Wish.STOP:
            run.stop_reason = run.stop_reason or "another process asked to"
            if run.status == "running":
                run.status = "stopped"
            run.stopping = True
        for number, wish in _SIGNALS.items():
            if self.agreed & wish:
                other = KeyboardInterrupt() if wish is Wish.SIGINT else SystemExit(128 + number)
                run.interruption = run.interruption or self._error or other
                run.stopping = True
        if self.agreed & Wish.FINISH:
            run.finished = True
        if self.agreed & Wish.END_PASS:
            run.ends_pass = True

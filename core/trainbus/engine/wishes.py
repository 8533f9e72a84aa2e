"""What a process may want of all that train together; without torch, for plugins that ask."""

from __future__ import annotations

from enum import IntFlag


class Wish(IntFlag):
    """What one process may want, and all do once they met."""

    STOP = 1
    FINISH = 2
    END_PASS = 4
    SAVE = 8
    SIGINT = 16
    SIGTERM = 32
    SIGHUP = 64
    VALIDATE = 128

"""A progress display for trainbus: live bars in a terminal or a notebook, plain lines elsewhere."""

from __future__ import annotations

from trainbus_progress.plugin import Progress

__all__ = ["Progress"]

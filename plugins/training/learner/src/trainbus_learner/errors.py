"""What can be wrong with an exported model."""

from __future__ import annotations

from trainbus.errors import TrainbusError


class ExportError(TrainbusError):
    """An exported model cannot be written, or read: damaged, foreign, too new, or incomplete."""

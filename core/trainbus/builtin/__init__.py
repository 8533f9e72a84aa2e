"""The plugins that the core ships, written on the same hooks that everyone has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainbus.lazy import face

if TYPE_CHECKING:
    from trainbus.builtin.accumulate import Accumulate as Accumulate
    from trainbus.builtin.checkpoint import Checkpoint as Checkpoint
    from trainbus.builtin.clip import Clip as Clip
    from trainbus.builtin.early_stopping import EarlyStopping as EarlyStopping
    from trainbus.builtin.ema import EMA as EMA
    from trainbus.builtin.finetune import Finetune as Finetune
    from trainbus.builtin.journal import Journal as Journal
    from trainbus.builtin.manifest import Manifest as Manifest
    from trainbus.builtin.nonfinite import Nonfinite as Nonfinite
    from trainbus.builtin.oom import OOM as OOM
    from trainbus.builtin.schedule import Schedule as Schedule
    from trainbus.builtin.summary import Summary as Summary

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "accumulate": "Accumulate",
        "checkpoint": "Checkpoint",
        "clip": "Clip",
        "early_stopping": "EarlyStopping",
        "ema": "EMA",
        "finetune": "Finetune",
        "journal": "Journal",
        "manifest": "Manifest",
        "nonfinite": "Nonfinite",
        "oom": "OOM",
        "schedule": "Schedule",
        "summary": "Summary",
    },
)

"""The plugins that the core ships, written on the same hooks that everyone has."""

from __future__ import annotations

from trainbus.builtin.accumulate import Accumulate
from trainbus.builtin.checkpoint import Checkpoint
from trainbus.builtin.clip import Clip
from trainbus.builtin.early_stopping import EarlyStopping
from trainbus.builtin.ema import EMA
from trainbus.builtin.finetune import Finetune
from trainbus.builtin.journal import Journal
from trainbus.builtin.manifest import Manifest
from trainbus.builtin.nonfinite import Nonfinite
from trainbus.builtin.oom import OOM
from trainbus.builtin.schedule import Schedule
from trainbus.builtin.summary import Summary

__all__ = [
    "EMA",
    "OOM",
    "Accumulate",
    "Checkpoint",
    "Clip",
    "EarlyStopping",
    "Finetune",
    "Journal",
    "Manifest",
    "Nonfinite",
    "Schedule",
    "Summary",
]

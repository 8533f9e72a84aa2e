"""The plugins that the core ships, written on the same hooks that everyone has."""

from __future__ import annotations

from trainbus.builtin.checkpoint import Checkpoint
from trainbus.builtin.clip import Clip
from trainbus.builtin.manifest import Manifest
from trainbus.builtin.nonfinite import Nonfinite

__all__ = ["Checkpoint", "Clip", "Manifest", "Nonfinite"]

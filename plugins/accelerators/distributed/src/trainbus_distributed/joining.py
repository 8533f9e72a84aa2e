"""The process group of this process: joined once, for all of its runs."""

from __future__ import annotations

import atexit
import sys
from contextlib import suppress

import torch.distributed as dist

from trainbus_distributed.launch import recognised
from trainbus_distributed.peers import TorchPeers

_joined: list[TorchPeers] = []


def joined(timeout: float) -> TorchPeers | None:
    """The processes that this one was started with, or None: it is alone.

    A process group that is there already, of the script or of Ray, is used, and left as it is.
    """
    if _joined and dist.is_initialized():
        return _joined[0]
    if dist.is_initialized():
        if dist.get_world_size() == 1:
            return None
        peers = TorchPeers(recognised(), timeout)
    else:
        launch = recognised()
        if launch is None:
            return None
        peers = TorchPeers(launch, timeout)
        atexit.register(_leave)
    _joined[:] = [peers]
    return peers


def _leave() -> None:
    """End the group with the interpreter; not after a failure, when others may be gone."""
    if dist.is_initialized() and not hasattr(sys, "last_exc"):
        with suppress(Exception):
            dist.destroy_process_group()

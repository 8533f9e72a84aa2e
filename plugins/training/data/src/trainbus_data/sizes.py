"""How large a batch is, and how many processes read, where nobody says it."""

from __future__ import annotations

import os

#: What a batch size that nobody named is between, and how many steps an epoch is to have.
SMALLEST_BATCH, LARGEST_BATCH, STEPS_OF_EPOCH = 8, 64, 20


def default_workers(items: int, batch_size: int) -> int:
    """Worker processes for items that are read: one for each core, at most 8, none for few."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, 8, items // max(batch_size, LARGEST_BATCH))


def usual_batch_size(items: int) -> int:
    """A power of two, from 8 to 64, with which an epoch has 20 steps, if it can have them.

    Smaller batches would be too few for batch normalization, and larger ones are no faster on most
    devices.
    """
    size = LARGEST_BATCH
    while size > SMALLEST_BATCH and items < STEPS_OF_EPOCH * size:
        size //= 2
    return size

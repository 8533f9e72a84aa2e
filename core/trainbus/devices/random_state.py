"""Random states: set, taken and given back together."""

from __future__ import annotations

import logging
import random
import sys
from functools import cache
from typing import Any

import torch

logger = logging.getLogger("trainbus")


def seed_everything(seed: int) -> None:
    """Seed Python, torch (all devices) and, where it is imported, NumPy."""
    seed_host(seed)
    torch.manual_seed(seed)


def seed_host(seed: int) -> None:
    """Seed Python, torch on the CPU alone and, where it is imported, NumPy."""
    random.seed(seed)
    torch.default_generator.manual_seed(seed)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(seed % 2**32)


def take(device: torch.device) -> dict[str, Any]:
    """The present random states of Python, NumPy (where imported), torch and `device`."""
    state: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state()}
    if numpy := sys.modules.get("numpy"):
        name, words, *rest = numpy.random.get_state()
        # As a tensor, since a checkpoint holds nothing of NumPy's.
        state["numpy"] = (name, torch.from_numpy(words.astype("int64")), *rest)
    if device.type != "cpu":
        state["device"] = torch.get_device_module(device).get_rng_state(device)
        state["device_type"] = device.type
    return state


def put_back(state: dict[str, Any], device: torch.device) -> None:
    """Put back what `take` gave."""
    random.setstate(state["python"])
    torch.set_rng_state(state["torch"])
    numpy = sys.modules.get("numpy")
    if numpy is not None and "numpy" in state:
        name, words, *rest = state["numpy"]
        numpy.random.set_state((name, words.numpy().astype("uint32"), *rest))
    if "device" not in state:
        return
    if (kind := state.get("device_type", device.type)) == device.type != "cpu":
        torch.get_device_module(device).set_rng_state(state["device"], device)
    else:
        _tell_of_another_device(kind if kind != "cpu" else "another device", device.type)


@cache
def _tell_of_another_device(before: str, now: str) -> None:
    logger.warning(
        "the random state of %s is of no use on %s: what is drawn there differs from what the "
        "checkpoint's run would have drawn", before, now,
    )  # fmt: skip

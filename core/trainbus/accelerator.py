"""What the loop needs to know of a device, and the choice among those on offer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from trainbus import batches, seeding
from trainbus.errors import UsageError, nearest

#: In the messages of allocators that have no exception of their own.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


class Accelerator:
    """A device in the terms of `torch.accelerator`: the CPU, and any other that torch reports.

    A plugin offers a subclass through `provide_accelerator`. Each method has a default that is
    correct for every device that torch itself knows.
    """

    #: By what name `Trainer(accelerator=...)` asks for it; the type of its device by default.
    name: str = ""
    #: `accelerator="auto"` takes the available one of the highest priority.
    priority: int = 0

    def __init__(self, device: str = "cpu", index: int | None = None) -> None:
        self.name = self.name or device
        self.device = torch.device(device) if index is None else torch.device(device, index)

    def unavailable(self) -> str | None:
        """Why it cannot be used here, or None when it can."""
        return None

    def select(self, index: int | None) -> None:
        """Use the device of this index from now on; without one, that which torch uses now."""
        if self.device.type == "cpu":
            if index:
                raise UsageError(f"devices=[{index}]: the CPU is one device, with index 0")
            return
        count = torch.accelerator.device_count()
        if index is None:
            index = torch.accelerator.current_device_index()
        if not 0 <= index < count:
            raise UsageError(f"devices=[{index}]: {self.name} has {count}, counted from 0")
        torch.accelerator.set_device_index(index)
        self.device = torch.device(self.device.type, index)

    def place_module(self, module: nn.Module) -> nn.Module:
        """The module on the device."""
        return module.to(self.device)

    def place_batch(self, batch: Any) -> Any:
        """The batch on the device: nested, of any type, without waiting for the copy."""
        return batch if self.device.type == "cpu" else batches.move(batch, self.device)

    def wrap_loader(self, loader: Iterable[Any]) -> Iterable[Any]:
        """The loader as the loop is to read it (prefetching, for example)."""
        return loader

    def random_state(self) -> dict[str, Any]:
        """The random states of the process and the device."""
        return seeding.random_state(self.device)

    def set_random_state(self, state: dict[str, Any]) -> None:
        """Put back what `random_state` gave."""
        seeding.set_random_state(state, self.device)

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether an error says that there was not enough memory."""
        if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
            return True
        return isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)

    def free_memory(self) -> None:
        """Give memory that nothing uses any more back to the device."""
        if self.device.type != "cpu":
            torch.accelerator.memory.empty_cache()

    def synchronize(self) -> None:
        """Wait until the device has done all it was given."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)


class Current(Accelerator):
    """The accelerator that this build of torch reports, whatever it is."""

    priority = 10

    def __init__(self) -> None:
        found = torch.accelerator.current_accelerator(check_available=True)
        super().__init__(found.type if found is not None else "cpu")


def choose(wanted: str | Accelerator, offered: Sequence[Accelerator]) -> tuple[Accelerator, str]:
    """The accelerator that `wanted` means, and why it was taken.

    Args:
        wanted: an accelerator, its name, or "auto".
        offered: those of plugins; the CPU and what torch reports are always there.

    Raises:
        UsageError: unknown, unavailable, or offered by two plugins under one name.
    """
    if isinstance(wanted, Accelerator):
        if reason := wanted.unavailable():
            raise UsageError(f"accelerator={wanted.name!r} is not available: {reason}")
        return wanted, "given as an object"
    if not isinstance(wanted, str):
        raise UsageError(f"accelerator={wanted!r}: give a name, 'auto', or an Accelerator")
    candidates: dict[str, Accelerator] = {"cpu": Accelerator()}
    current = Current()
    candidates.setdefault(current.name, current)
    claimed: dict[str, Accelerator] = {}
    for each in offered:
        if other := claimed.get(each.name):
            raise UsageError(
                f"two plugins offer the accelerator {each.name!r}: "
                f"{type(other).__module__} and {type(each).__module__}; switch one off"
            )
        claimed[each.name] = candidates[each.name] = each
    if wanted == "auto":
        usable = [each for each in candidates.values() if each.unavailable() is None]
        best = max(usable, key=lambda each: each.priority)
        others = [each.name for each in candidates.values() if each is not best]
        return best, f"auto, before {', '.join(others)}" if others else "auto, the only one"
    if wanted not in candidates:
        raise UsageError(
            f"accelerator={wanted!r} is not known here{nearest(wanted, candidates)} "
            f"Available: {', '.join(sorted(candidates))}"
        )
    if reason := candidates[wanted].unavailable():
        raise UsageError(f"accelerator={wanted!r} is not available: {reason}")
    return candidates[wanted], "asked for by name"

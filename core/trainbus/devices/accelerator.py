"""What the loop needs to know of a device: the contract, and an accelerator for any of torch's."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from trainbus import batches
from trainbus.devices.random_state import put_back, take
from trainbus.errors import UsageError

#: Where a step of the loop ends: with a batch whose gradients wait for those of the next, with an
#: optimizer's step, before what was logged is fetched, before a state is saved.
Boundary = Literal["micro_step", "optimizer_step", "log", "save"]

#: In the messages of allocators that have no exception of their own.
_NO_MEMORY = (
    "can't allocate memory", "not enough memory", "out of memory",
    # Of libraries, whose first product finds the memory full.
    "cublas_status_alloc_failed", "cudnn_status_alloc_failed", "miopenstatusallocfailed",
    "rocblas_status_memory_error", "hipblas_status_alloc_failed",
)  # fmt: skip


class Accelerator:
    """A device in the terms of `torch.accelerator`: the CPU, and any other that torch reports.

    A plugin offers a subclass through `provide_accelerator`. Each method has a default that is
    correct for the CPU, and for every device that torch itself knows.

    Args:
        device: a type of device, as `torch.device` takes it.
        index: which of them; the loop asks by `select` before anything is placed.
    """

    #: By what name `Trainer(accelerator=...)` asks for it; the type of its device by default.
    name: str = ""
    #: `accelerator="auto"` takes the available one of the highest priority.
    priority: int = 0

    def __init__(self, device: str = "cpu", index: int | None = None) -> None:
        self.name = self.name or device
        self.device = torch.device(device) if index is None else torch.device(device, index)
        #: The index of the device that torch used before this one was selected.
        self._before: int | None = None

    def unavailable(self) -> str | None:
        """Why it cannot be used here, or None when it can.

        A device that `torch.accelerator` does not report (one of torch_xla) needs a probe of its
        own. It is asked for each run: it has to be quick, and to change nothing.
        """
        if self.device.type == "cpu":
            return None
        found = torch.accelerator.current_accelerator(check_available=True)
        if found is not None and found.type == self.device.type:
            return None
        return f"torch {torch.__version__} finds no {self.device.type} device on this machine"

    def device_count(self) -> int:
        """How many of them this process can use."""
        return 1 if self.device.type == "cpu" else torch.accelerator.device_count()

    def process_group_backend(self) -> str:
        """The backend of `torch.distributed` for tensors on this device."""
        return torch.distributed.get_default_backend_for_device(self.device)

    def select(self, index: int | None) -> None:
        """Use the device of this index from now on; without one, that which torch uses now.

        Raises:
            UsageError: there is no device of this index.
        """
        if self.device.type == "cpu":
            if index:
                raise UsageError(f"devices=[{index}]: the CPU is one device, with index 0")
            return
        count = self.device_count()
        if index is None:
            index = torch.accelerator.current_device_index()
        if not 0 <= index < count:
            raise UsageError(f"devices=[{index}]: {self.name} has {count}, counted from 0")
        self._before = torch.accelerator.current_device_index()
        torch.accelerator.set_device_index(index)
        self.device = torch.device(self.device.type, index)

    def deselect(self) -> None:
        """Let torch use the device again that it used before `select`."""
        before, self._before = self._before, None
        if before is not None:
            torch.accelerator.set_device_index(before)

    def select_for_rank(self, local_rank: int) -> None:
        """Use the device that belongs to a process, given its rank among those of this machine.

        Processes share the CPU; any other device belongs to one process, so with too few it is an
        error.
        """
        if self.device.type == "cpu":
            return self.select(None)
        if local_rank >= (count := self.device_count()):
            raise UsageError(
                f"{local_rank + 1} processes or more on this machine, and {count} of {self.name}: "
                "start one process for each device"
            )
        return self.select(local_rank)

    def place_module(self, module: nn.Module) -> nn.Module:
        """The module on the device."""
        return module.to(self.device)

    def place_batch(self, batch: Any) -> Any:
        """The batch on the device: nested, of any type.

        A copy from pinned memory is not waited for; one from other memory is, and with it what the
        device was given before.
        """
        return batch if self.device.type == "cpu" else batches.move(batch, self.device)

    def fetch(self, tensors: Sequence[torch.Tensor]) -> list[float]:
        """The numbers of tensors of this device, each of one element: what was logged.

        The device is waited for, once. They are of one type.
        """
        numbers: list[float] = torch.stack(list(tensors)).tolist()
        return numbers

    def wrap_loader(self, loader: Iterable[Any]) -> Iterable[Any]:
        """The loader as the loop is to read it (prefetching, for example)."""
        return loader

    def random_state(self) -> dict[str, Any]:
        """The random states of the process and the device."""
        return take(self.device)

    def set_random_state(self, state: dict[str, Any]) -> None:
        """Put back what `random_state` gave."""
        put_back(state, self.device)

    # --- precision and speed -------------------------------------------------------------------

    def dtypes(self) -> frozenset[torch.dtype]:
        """The floating-point types that it computes in."""
        known = {torch.float32, torch.float64, torch.bfloat16, torch.float16}
        # Not in every torch that the core works with, and not every backend answers.
        tell = getattr(torch.accelerator, "get_device_capability", None)
        if self.device.type != "cpu" and tell is not None:
            with suppress(RuntimeError, ValueError, KeyError):
                known &= tell(self.device)["supported_dtypes"]
        return frozenset(known)

    def autocast(self, dtype: torch.dtype) -> AbstractContextManager[Any]:
        """A context in which operators that bear it compute in `dtype`.

        Raises `RuntimeError`, torch's own, for a device that has no autocast.
        """
        return torch.autocast(self.device.type, dtype)

    def scaler(self) -> torch.amp.GradScaler:
        """A new scaler of losses, for a type with a small range (float16)."""
        return torch.amp.GradScaler(self.device.type)

    def step_boundary(self, boundary: Boundary) -> None:
        """A step of the loop ends; for devices that gather operations and run them together.

        It is called in steps only where a subclass has it.
        """

    def compile_backend(self) -> str:
        """The backend of `torch.compile` that is for this device."""
        return "inductor"

    def peak_flops(self, dtype: torch.dtype) -> float | None:
        """Floating-point operations that it can make in a second, or None where that is not known.

        Args:
            dtype: the type that matrices are multiplied in.
        """
        return None

    # --- memory --------------------------------------------------------------------------------

    def memory_stats(self) -> dict[str, int]:
        """Bytes by name: `allocated` now, `peak` since the start, and what else it tells.

        On the CPU they are those of the process. Empty where nothing is known.
        """
        if self.device.type == "cpu":
            return _process_memory()
        stats = torch.accelerator.memory
        try:
            return {
                "allocated": stats.memory_allocated(self.device),
                "reserved": stats.memory_reserved(self.device),
                "peak": stats.max_memory_allocated(self.device),
            }
        except RuntimeError:  # not every backend's allocator counts
            return {}

    def begin_peak(self) -> None:
        """Let `peak` count from now on, where the device's allocator can."""
        reset = getattr(torch.accelerator.memory, "reset_peak_memory_stats", None)
        if self.device.type != "cpu" and reset is not None:
            with suppress(RuntimeError):
                reset(self.device)

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether an error says that there was not enough memory."""
        if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
            return True
        text = str(error).lower()
        return isinstance(error, RuntimeError) and any(words in text for words in _NO_MEMORY)

    def free_memory(self) -> None:
        """Give memory that nothing uses any more back to the device."""
        if self.device.type != "cpu":
            torch.accelerator.memory.empty_cache()

    def synchronize(self) -> None:
        """Wait until the device has done all it was given."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)


def _process_memory() -> dict[str, int]:
    try:
        import resource
    except ImportError:  # not on Windows
        return {}
    # In kilobytes, but on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    statm = Path("/proc/self/statm")
    now = int(statm.read_text().split()[1]) * resource.getpagesize() if statm.exists() else peak
    return {"allocated": now, "peak": peak}

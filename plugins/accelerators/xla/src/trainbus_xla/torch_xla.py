"""The older stack: `torch_xla`, which gathers operations and runs them at the end of a step."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainbus import batches
from trainbus.checkpoints import archive
from trainbus.devices.accelerator import Accelerator, Boundary
from trainbus.devices.random_state import put_back, take
from trainbus.errors import UsageError
from trainbus_xla import tpus

_CPU = torch.device("cpu")
_INSTALL = (
    "install one: pip install torch_tpu (torch 2.11 to 2.15), "
    "or pip install torch==2.9.0 'torch_xla[tpu]==2.9.0'"
)


class TorchXLA(Accelerator):
    """The device of torch_xla: a TPU, or the CPU with `PJRT_DEVICE=CPU`.

    Args:
        spmd: shard each batch over all devices of the process; they are one device to the program.
    """

    name = "xla"
    priority = 20

    def __init__(self, spmd: bool = False) -> None:
        super().__init__("xla")
        self.spmd = spmd
        self._mesh: Any = None
        # Modules of torch_xla, once it is chosen.
        self._xla: Any = None
        self._model: Any = None
        self._runtime: Any = None

    def unavailable(self) -> str | None:
        """What is missing: the package, one for this torch, or a device."""
        if find_spec("torch_xla") is None:
            return f"neither torch_tpu nor torch_xla is installed; {_INSTALL}"
        if reason := _other_torch():
            return reason
        told = "PJRT_DEVICE" in os.environ
        try:
            import_module("torch_xla")
        except (ImportError, OSError) as error:
            return f"torch_xla cannot be imported: {error}"
        # Where it finds no TPU it names the CPU, which is to be asked for.
        if not told and os.environ.get("PJRT_DEVICE") == "CPU":
            del os.environ["PJRT_DEVICE"]
        if "PJRT_DEVICE" not in os.environ:
            return (
                f"torch_xla {version('torch_xla')} is installed, but finds no TPU on this machine; "
                "to try it on the CPU, set PJRT_DEVICE=CPU in the environment"
            )
        return None

    def select(self, index: int | None) -> None:
        """Use the device of this index, or with `spmd` all of them."""
        self._xla = import_module("torch_xla")
        self._model = import_module("torch_xla.core.xla_model")
        self._runtime = import_module("torch_xla.runtime")
        count = self.device_count()
        if index is not None and self.spmd:
            raise UsageError(
                f"devices=[{index}] with spmd=true, which shards over all; leave out one"
            )
        if index is not None and not 0 <= index < count:
            raise UsageError(f"devices=[{index}]: xla has {count}, counted from 0")
        if self.spmd:
            self._runtime.use_spmd()
            sharding = import_module("torch_xla.distributed.spmd")
            count = self._runtime.global_runtime_device_count()
            self._mesh = sharding.Mesh(list(range(count)), (count,), ("data",))
        self.device = self._xla.device(index)
        _check_autograd(self.device)

    def device_count(self) -> int:
        """Devices of this process; one with `spmd`."""
        return int(import_module("torch_xla").device_count())

    def describe(self) -> str:
        """The stack and the device, for the header."""
        text = f"torch_xla {version('torch_xla')} on {self._kind()}"
        if self._mesh is not None:
            text += f", batches sharded over {self._mesh.size()} devices"
        return text

    def process_group_backend(self) -> str:
        """The one that torch_xla registers."""
        import_module("torch_xla.distributed.xla_backend")
        return "xla"

    # --- placing -------------------------------------------------------------------------------

    def place_module(self, module: nn.Module) -> nn.Module:
        """The module on the device, its parameters the same objects as before.

        By default torch makes new parameters for XLA: an optimizer would keep the old ones, and
        weights that are tied would be so no longer.
        """
        if all(tensor.device == self.device for tensor in _tensors(module)):
            return module
        before = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            return module.to(self.device)
        finally:
            torch.__future__.set_swap_module_params_on_conversion(before)

    def place_batch(self, batch: Any) -> Any:
        """The batch on the device; with `spmd` each tensor in parts along its first dimension."""
        batch = batches.move(batch, self.device)
        if self._mesh is not None:
            mark = import_module("torch_xla.distributed.spmd").mark_sharding
            for tensor in batches.tensors(batch):
                if tensor.ndim and tensor.device == self.device:
                    mark(tensor, self._mesh, ("data", *[None] * (tensor.ndim - 1)))
        return batch

    def fetch(self, tensors: Sequence[Tensor]) -> list[float]:
        """The numbers of tensors of one element, without a graph for each count of them."""
        return super().fetch(self._xla._XLAC._xla_get_cpu_tensors(list(tensors)))

    def to_host(self, parts: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The parts of a checkpoint with all tensors on the CPU, fetched together."""
        away: list[Tensor] = []

        def note(tensor: Tensor) -> Tensor:
            if tensor.device.type == "xla":
                away.append(tensor)
            return tensor

        archive.plain_tensors(parts, where, note)
        fetched = iter(self._xla._XLAC._xla_get_cpu_tensors(away))  # as `xm.save` does

        def fetch(tensor: Tensor) -> Tensor:
            return next(fetched) if tensor.device.type == "xla" else tensor

        return archive.plain_tensors(parts, where, fetch)

    # --- steps and random numbers --------------------------------------------------------------

    def step_boundary(self, boundary: Boundary) -> None:
        """Run what was gathered; the device is not waited for.

        torch_xla makes a new random state at each such point. Here it goes on from the numbers
        drawn instead, so that a checkpoint or a log between two steps changes nothing.
        """
        device = str(self.device)
        state = self._model.get_rng_state(device)
        self._xla.sync()
        self._model.set_rng_state(state, device)

    def average_gradients(self, optimizer: Optimizer) -> None:
        """Replace gradients by their means over the processes, where there are several."""
        if self._mesh is None and self._runtime.world_size() > 1:
            self._model.reduce_gradients(optimizer)

    def seed_like_torch(self) -> None:
        """Seed the device with what torch was seeded with."""
        self._model.set_rng_state(torch.initial_seed() % 2**63, str(self.device))

    def random_state(self) -> dict[str, Any]:
        """Those of the process, and the device's: a whole number."""
        state = self._model.get_rng_state(str(self.device))
        return {**take(_CPU), "device": state}

    def set_random_state(self, state: dict[str, Any]) -> None:
        """Put back what `random_state` gave."""
        put_back({k: v for k, v in state.items() if k != "device"}, _CPU)
        if isinstance(state.get("device"), int):  # else the state of another kind of device
            self._model.set_rng_state(state["device"], str(self.device))

    # --- precision and speed -------------------------------------------------------------------

    def dtypes(self) -> frozenset[torch.dtype]:
        """All but float16."""
        return tpus.DTYPES

    def compile_backend(self) -> str:
        """That of torch_xla."""
        return "openxla"

    def peak_flops(self, dtype: torch.dtype) -> float | None:
        """By the name of the TPU; with `spmd` torch_xla does not tell it."""
        return tpus.peak_flops(self._kind(), dtype)

    def _kind(self) -> str:
        if self._mesh is not None or self._runtime.device_type() == "CPU":
            return str(self._runtime.device_type())
        return str(self._model.xla_device_kind(str(self.device)))

    # --- memory --------------------------------------------------------------------------------

    def memory_stats(self) -> dict[str, int]:
        """Bytes `allocated`, `peak` and `limit` of the device; of the process on the CPU.

        With `spmd` torch_xla does not tell them.
        """
        if self._runtime.device_type() == "CPU":  # which does not count
            return Accelerator().memory_stats()
        if self._mesh is not None:
            return {}
        info = self._model.get_memory_info(self.device)
        names = {"bytes_used": "allocated", "peak_bytes_used": "peak", "bytes_limit": "limit"}
        return {names[key]: int(value) for key, value in info.items() if key in names}

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Also in the words of the runtime."""
        return super().is_out_of_memory(error) or tpus.is_out_of_memory(error)

    def free_memory(self) -> None:
        """Nothing: the runtime keeps no memory of tensors that are gone."""

    def synchronize(self) -> None:
        """Run what was gathered and wait for it."""
        self.step_boundary("log")
        self._model.wait_device_ops()


def _check_autograd(device: torch.device) -> None:
    """Tell of a process in which autograd was at work before there was an XLA device."""
    try:
        torch.ones((), device=device, requires_grad=True).neg().backward()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        if "device_ready_queues_" not in str(error):
            raise
        raise UsageError(
            "accelerator='xla': a backward pass of this process ran on another device before "
            "torch_xla began, and autograd takes no new devices after its first; begin the program "
            "with `import torch_xla; torch_xla.device()`"
        ) from error


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _other_torch() -> str | None:
    """Why the installed torch_xla is none for the installed torch."""
    try:
        found = version("torch_xla")
    except PackageNotFoundError:  # built from source, for the torch that is here
        return None
    wanted, here = ".".join(found.split(".")[:2]), str(torch.__version__)
    if here.split(".")[:2] == wanted.split("."):
        return None
    return f"torch_xla {found} is for torch {wanted}, and this is torch {here}; {_INSTALL}"

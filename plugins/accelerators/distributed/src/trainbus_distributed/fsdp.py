"""A part of each parameter in each process: torch's FSDP2, `fully_shard`."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

from trainbus.engine.task import ByHand
from trainbus.errors import TrainbusError, UsageError
from trainbus_distributed.strategy import Strategy

if TYPE_CHECKING:
    from trainbus.engine.loop import Loop
    from trainbus_distributed.peers import TorchPeers

_STEPS = ("training_step", "validation_step", "test_step", "predict_step")
#: A module of so many parameters is sharded by itself, where no block repeats.
_LARGE = 1_000_000
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Sharded(Strategy):
    """FSDP2: parameters, gradients and optimizer states in parts, whole for a block at a time.

    With a mesh of machines by processes (`replicas`) parts lie within a machine, and the machines
    hold the same (HSDP).

    Args:
        peers: the processes.
        blocks: modules that are sharded by themselves, by name with `*`; by default those that
            repeat in a `ModuleList` or `Sequential`, or else those of a million parameters.
        param_dtype: "bf16" or "fp16" for the forward and backward; weights stay as they are.
        replicas: copies of the whole, each shared by the same number of processes.
    """

    def __init__(
        self,
        peers: TorchPeers,
        blocks: Sequence[str] | None = None,
        param_dtype: str | None = None,
        replicas: int = 1,
    ) -> None:
        super().__init__(peers)
        self.name = "hsdp" if replicas > 1 else "fsdp"
        self._blocks, self._replicas, self._root = blocks, replicas, nn.Module()
        self._policy = MixedPrecisionPolicy()
        if param_dtype is not None:
            dtype = _DTYPES[param_dtype]
            self._policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
        self._names: list[str] = []
        self._has_root = self._is_inside = False

    def wrap(self, run: Loop, model: nn.Module) -> nn.Module:
        """See `Strategy`: what rank 0 holds is sent to all first, then each keeps its part.

        Raises:
            UsageError: the optimizer was made before, of parameters that are no more.
        """
        if run.given_optimizers is not None:
            raise UsageError(
                "strategy='fsdp' replaces the parameters, and the optimizer given to trainer.open "
                "was made of those of before; make it in a Task's configure_optimizer"
            )
        self._root = model.model if isinstance(model, ByHand) else model
        if any(isinstance(module, FSDPModule) for module in self._root.modules()):
            return model  # by the task itself, or in an earlier run
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                dist.broadcast(tensor.data, 0)
        mesh = self._mesh(run.device.type)
        chosen = blocks_of(self._root, self._blocks)
        self._names = list(chosen)
        innermost_first = sorted(chosen, key=lambda name: -name.count("."))
        for module in map(chosen.__getitem__, innermost_first):
            fully_shard(module, mesh=mesh, mp_policy=self._policy)
        inside = {id(p) for module in chosen.values() for p in module.parameters()}
        self._has_root = any(id(p) not in inside for p in self._root.parameters())
        if self._has_root:
            fully_shard(self._root, mesh=mesh, mp_policy=self._policy)
            for step in _STEPS:
                if self._root is model and hasattr(model, step):
                    register_fsdp_forward_method(model, step)
        return model

    def _mesh(self, device: str) -> DeviceMesh:
        size = self.peers.world_size
        if self._replicas == 1:
            return init_device_mesh(device, (size,))
        if size % self._replicas:
            raise UsageError(
                f"strategy='hsdp': {size} processes cannot make {self._replicas} copies of the "
                "model; give replicas that divides them"
            )
        shape = (self._replicas, size // self._replicas)
        return init_device_mesh(device, shape, mesh_dim_names=("copies", "parts"))

    def forward(self, run: Loop) -> Any:
        """See `Strategy`; in windows gradients are reduced once, and are whole until then."""
        for module in self._root.modules():
            if isinstance(module, FSDPModule):
                module.set_requires_gradient_sync(not run.accumulating, recurse=False)
        self._is_inside = True
        try:
            return run.task.training_step(run.batch, run)
        finally:
            self._is_inside = False

    def before_backward(self, run: Loop) -> None:
        """See `Strategy`.

        Raises:
            UsageError: the step is a forward of its own, which such a backward would be in.
        """
        if self._is_inside and self._has_root and self._root is run.model:
            children = [name for name, each in self._root.named_children() if any(
                True for _ in each.parameters())]  # fmt: skip
            raise UsageError(
                f"{type(run.task).__name__} makes its backward in the training step, with "
                "strategy='fsdp': name the modules that it calls, so that each is sharded by "
                f"itself: Distributed(strategy='fsdp', blocks={children})"
            )

    def settle(self) -> None:
        """See `Strategy`: after a forward without a backward the root is still whole."""
        for module in self._root.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def idle(self, run: Loop) -> None:
        """See `Strategy`: the parameters of a block are gathered in its forward by all.

        Raises:
            TrainbusError: always.
        """
        raise TrainbusError(
            "SkipBatch in one process, with strategy='fsdp': the others wait for its part of the "
            "parameters; return the loss times 0 in place of it"
        )

    def in_words(self) -> str:
        """See `Strategy`."""
        listed = ", ".join(self._names[:3]) + (
            f" and {len(self._names) - 3} more" if self._names[3:] else ""
        )
        copies = f", {self._replicas} copies" if self._replicas > 1 else ""
        blocks = f"; blocks: {listed}" if listed else "; one block: no module repeats or is large"
        return f"{self.name}: a part in each process{copies}{blocks}"


def blocks_of(root: nn.Module, names: Sequence[str] | None = None) -> dict[str, nn.Module]:
    """The modules that are sharded by themselves, in the order of the model.

    Args:
        root: the model.
        names: their names, with `*`; None to find them.

    Raises:
        UsageError: a name fits no module.
    """
    modules = {name: module for name, module in root.named_modules() if name}
    if names is not None:
        found = {}
        for pattern in names:
            fits = [
                name
                for name in fnmatch.filter(modules, pattern)
                if any(True for _ in modules[name].parameters())
            ]
            if not fits:
                raise UsageError(
                    f"distributed: blocks={pattern!r} fits no module; there are "
                    f"{', '.join(list(modules)[:8])}"
                )
            found.update({name: modules[name] for name in fits})
        return found
    repeated = {}
    for name, module in modules.items():
        if isinstance(module, (nn.ModuleList, nn.Sequential)):
            children = list(module.named_children())
            kinds = {type(child) for _, child in children}
            if len(children) > 1 and len(kinds) == 1 and any(True for _ in module.parameters()):
                repeated.update({f"{name}.{child}": one for child, one in children})
    inner = {
        name: module
        for name, module in repeated.items()
        if not any(name.startswith(f"{other}.") for other in repeated)
    }
    if inner:
        return inner
    return {
        name: module
        for name, module in modules.items()
        if not list(module.children()) and sum(p.numel() for p in module.parameters()) >= _LARGE
    }

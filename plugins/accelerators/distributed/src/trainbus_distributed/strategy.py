"""How the gradients of all processes become one: the parts that DDP and FSDP2 share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

if TYPE_CHECKING:
    from trainbus.engine.loop import Loop
    from trainbus_distributed.peers import TorchPeers


class Strategy:
    """One way to share a model among processes.

    Args:
        peers: the processes.
    """

    name = ""

    def __init__(self, peers: TorchPeers) -> None:
        self.peers = peers

    def wrap(self, run: Loop, model: nn.Module) -> nn.Module:
        """Prepare the model, which is the same in all processes afterwards."""
        return model

    def forward(self, run: Loop) -> Any:
        """The task's training step, so that its backward reduces gradients."""
        raise NotImplementedError

    def idle(self, run: Loop) -> None:
        """Take part in the collectives of a step that this process leaves out."""

    def before_step(self, run: Loop) -> None:
        """The optimizer at hand is about to step: its gradients have to be those of all."""

    def before_backward(self, run: Loop) -> None:
        """The task makes a backward of its own."""

    def settle(self) -> None:
        """A pass is over, or a state is taken: the model has the parameters of the optimizers."""

    def begin_epoch(self, run: Loop) -> None:
        """Layers may have been frozen or freed."""

    def in_words(self) -> str:
        """What was chosen, for the header."""
        return self.name


def reduce_gradients(
    parameters: Iterable[nn.Parameter], size: int, scale: float = 1.0, bucket_bytes: int = 2**25
) -> None:
    """Replace gradients by their mean over all processes, some at a time; each a collective.

    A gradient that no process has stays None; one that some have counts as 0 in the others.

    Args:
        parameters: the same in all processes, in one order.
        size: processes.
        scale: what those of this process are multiplied by before.
        bucket_bytes: how much goes together.
    """
    wanted = [each for each in parameters if each.requires_grad]
    for bucket in _buckets(wanted, bucket_bytes):
        first = bucket[0]
        has = torch.tensor(
            [each.grad is not None for each in bucket], dtype=first.dtype, device=first.device
        )
        flat = torch.cat(
            [
                (each.grad if each.grad is not None else torch.zeros_like(each)).reshape(-1)
                for each in bucket
            ]
        )
        flat.mul_(scale / size)
        together = torch.cat([flat, has])
        dist.all_reduce(together)
        offset, present = 0, together[-len(bucket) :].tolist()
        for each, someone in zip(bucket, present, strict=True):
            part = together[offset : offset + each.numel()].view_as(each)
            offset += each.numel()
            if not someone:
                continue
            if each.grad is None:
                each.grad = part.clone()
            else:
                each.grad.copy_(part)


def _buckets(parameters: Sequence[nn.Parameter], size: int) -> Iterable[list[nn.Parameter]]:
    """Parameters of one type and device, up to so many bytes together."""
    groups: dict[Any, list[nn.Parameter]] = {}
    for each in parameters:
        groups.setdefault((each.dtype, each.device), []).append(each)
    for group in groups.values():
        bucket: list[nn.Parameter] = []
        held = 0
        for each in group:
            bucket.append(each)
            held += each.numel() * each.element_size()
            if held >= size:
                yield bucket
                bucket, held = [], 0
        if bucket:
            yield bucket


def averaged_statistics(model: nn.Module, peers: TorchPeers) -> None:
    """Make the running statistics of normalisations those of all processes: their mean.

    One collective for all; nothing where there are none.
    """
    found: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
            found += [module.running_mean, module.running_var]  # type: ignore[list-item]
    if not found:
        return
    together = torch.cat([each.reshape(-1) for each in found])
    peers.sum(together)
    together.div_(peers.data_size)
    offset = 0
    for each in found:
        each.copy_(together[offset : offset + each.numel()].view_as(each))
        offset += each.numel()


class Frozen:
    """Keeps the statistics of normalisations as they are, while a batch of weight 0 is read."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = [
            module
            for module in model.modules()
            if isinstance(module, nn.modules.batchnorm._NormBase) and module.training
        ]

    def __enter__(self) -> None:
        for module in self._modules:
            module.eval()

    def __exit__(self, *error: object) -> None:
        for module in self._modules:
            module.train()

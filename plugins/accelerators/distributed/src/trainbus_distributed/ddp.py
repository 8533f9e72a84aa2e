"""A copy of the model in each process: torch's DistributedDataParallel."""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from trainbus.engine.task import ByHand
from trainbus.errors import UsageError
from trainbus_distributed.strategy import Strategy, reduce_gradients

if TYPE_CHECKING:
    from trainbus.engine.loop import Loop
    from trainbus_distributed.peers import TorchPeers

#: Buffers are averaged where they are needed, and not sent in each forward; newer versions of torch
#: have another name for it.
_NAME = "forward_sync_buffers"
if _NAME not in inspect.signature(DistributedDataParallel.__init__).parameters:
    _NAME = "broadcast_buffers"
_WITHOUT_BUFFERS: dict[str, Any] = {_NAME: False}


class _Step(nn.Module):
    """The task's training step as a forward, which is what DDP knows."""

    def __init__(self, task: nn.Module) -> None:
        super().__init__()
        self.task = task

    def forward(self, run: Loop | None) -> Any:
        """The loss of a batch; of none a zero that all parameters lead to."""
        if run is not None:
            return run.task.training_step(run.batch, run)
        return sum(each.sum() * 0 for each in self.task.parameters() if each.requires_grad)


class Replicated(Strategy):
    """DDP around the task's training step; gradients are reduced while the backward goes on.

    A step that makes its backward itself, or your own loop, has them reduced before the optimizer
    steps, by one collective for each 32 MB.

    Args:
        peers: the processes.
        unused: some parameters take no part in some steps.
        bucket_mb: megabytes of gradients that are reduced together.
    """

    name = "ddp"

    def __init__(self, peers: TorchPeers, unused: bool, bucket_mb: float) -> None:
        super().__init__(peers)
        self._unused, self._bucket_mb = unused, bucket_mb
        self._ddp: DistributedDataParallel | None = None
        self._trainable: list[bool] = []
        #: The step makes its own backward: DDP would wait for another one.
        self.by_itself = False
        #: Gradients of the present window are those of all.
        self._is_reduced = False
        self._is_inside = self._looked = False

    def wrap(self, run: Loop, model: nn.Module) -> nn.Module:
        """See `Strategy`: DDP sends rank 0's parameters and buffers to all."""
        self.by_itself = isinstance(run.task, ByHand) or bool(getattr(run.task, "manual", False))
        self._make(model)
        return model

    def _make(self, model: nn.Module) -> None:
        self._trainable = [each.requires_grad for each in model.parameters()]
        self._looked = False
        if not any(self._trainable):
            return
        self._ddp = DistributedDataParallel(
            _Step(model),
            **_WITHOUT_BUFFERS,
            find_unused_parameters=self._unused,
            gradient_as_bucket_view=True,
            bucket_cap_mb=self._bucket_mb,
        )

    def begin_epoch(self, run: Loop) -> None:
        """See `Strategy`: what DDP reduces is fixed when it is made."""
        if [each.requires_grad for each in run.model.parameters()] != self._trainable:
            self._ddp = None
            self._make(run.model)

    def forward(self, run: Loop) -> Any:
        """See `Strategy`; accumulated gradients stay where they are until the last batch."""
        if self._ddp is None or self.by_itself:
            return run.task.training_step(run.batch, run)
        self._is_inside = True
        try:
            with self._ddp.no_sync() if run.accumulating else nullcontext():
                loss = self._ddp(run)
        finally:
            self._is_inside = False
        self._is_reduced = not (run.accumulating or self.by_itself)
        return loss

    def before_backward(self, run: Loop) -> None:
        """A backward inside of the step: from now on gradients are reduced before each step."""
        if self._is_inside and self._ddp is not None:
            self.by_itself = True
            self._ddp.require_backward_grad_sync = False

    def idle(self, run: Loop) -> None:
        """See `Strategy`."""
        if self._ddp is None or self.by_itself or run.accumulating:
            return
        self._ddp.require_backward_grad_sync = True
        loss = self._ddp(None)
        loss.backward()
        self._is_reduced = True

    def before_step(self, run: Loop) -> None:
        """See `Strategy`."""
        if self._is_reduced:
            self._is_reduced = False
            if not self._looked:
                self._look(run)
            return
        weights, scale = run.window.round, 1.0  # type: ignore[attr-defined]
        if run.window.uneven:  # a step of its own is divided by nothing yet
            total = sum(weights) or 1
            scale = weights[self.peers.data_rank] * len(weights) / total
        parameters = [p for group in run.optimizer.param_groups for p in group["params"]]
        reduce_gradients(parameters, self.peers.data_size, scale)

    def _look(self, run: Loop) -> None:
        """Refuse parameters that take no part: DDP reduces nothing until all are there."""
        self._looked = True
        if self._unused:
            return
        missing = [
            name
            for name, each in run.task.named_parameters()
            if each.requires_grad and each.grad is None
        ]
        if missing:
            listed = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" * bool(missing[5:]))
            raise UsageError(
                f"the loss does not depend on {listed}: DDP waits for the gradient of each "
                "parameter; freeze what is not trained (requires_grad_(False)), or use "
                "Distributed(unused_parameters=True), which costs one more collective in a step"
            )

    def in_words(self) -> str:
        """See `Strategy`."""
        count = sum(self._trainable)
        return f"ddp: a copy in each process, {count} parameters reduced" + (
            ", before each optimizer step" if self.by_itself else ", while backward goes on"
        )

"""The plugin: which processes there are, and how they share a model."""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Literal

from trainbus import PluginError, SkipBatch, hookimpl
from trainbus.arguments import check_number, check_whole

if TYPE_CHECKING:
    from torch import nn

    from trainbus.engine.loop import Loop
    from trainbus_distributed.peers import TorchPeers
    from trainbus_distributed.strategy import Strategy

logger = logging.getLogger("trainbus")


class Distributed:
    """Trains one model in all processes that a launcher started; alone it does nothing.

    Args:
        strategy: "ddp", a copy of the model in each process; "fsdp", a part of each parameter;
            "hsdp", a part within each machine, and the same in all machines. "auto" is "ddp", or
            "fsdp" where a copy with its gradients and two moments fills the device.
        timeout: seconds after which a process that does not come is given up.
        unused_parameters: with "ddp", some parameters take no part in some steps.
        bucket_mb: with "ddp", megabytes of gradients that are reduced together.
        blocks: with "fsdp", the modules that are sharded by themselves, by name with `*`.
        param_dtype: with "fsdp", "bf16" or "fp16" for forward and backward.
        replicas: with "hsdp", how many copies of the model there are; by default one in a machine.
        deal: each process is given the same loader and reads its own part of it; without, it is
            given its own part already.
    """

    def __init__(
        self,
        strategy: Literal["auto", "ddp", "fsdp", "hsdp"] = "auto",
        timeout: float = 600.0,
        unused_parameters: bool = False,
        bucket_mb: float = 25.0,
        blocks: list[str] | None = None,
        param_dtype: Literal["bf16", "fp16"] | None = None,
        replicas: int | None = None,
        deal: bool = True,
    ) -> None:
        if strategy not in ("auto", "ddp", "fsdp", "hsdp"):
            raise PluginError(
                f"distributed: strategy={strategy!r}: give 'auto', 'ddp', 'fsdp' or 'hsdp'"
            )
        if param_dtype not in (None, "bf16", "fp16"):
            raise PluginError(f"distributed: param_dtype={param_dtype!r}: give 'bf16' or 'fp16'")
        if replicas is not None:
            check_whole(1, replicas=replicas)
        check_number(above=0, timeout=timeout, bucket_mb=bucket_mb)
        self.strategy = strategy
        self.timeout = timeout
        self.unused_parameters = unused_parameters
        self.bucket_mb = bucket_mb
        self.blocks = blocks
        self.param_dtype = param_dtype
        self.replicas = replicas
        self.deal = deal
        self._peers: TorchPeers | None = None
        self._strategy: Strategy | None = None

    @hookimpl
    def provide_peers(self) -> TorchPeers | None:
        """Join the other processes, if a launcher started any; once for all runs of a process."""
        from trainbus_distributed.joining import joined

        self._peers = joined(self.timeout)
        self._strategy = None
        if self._peers is not None:
            self._peers.deals = self.deal
            self._peers.meets_in_evaluation = self.strategy in ("fsdp", "hsdp")
        return self._peers

    @hookimpl(wrapper=True, after=["amp"])
    def configure_model(self, run: Loop) -> Generator[None, nn.Module, nn.Module]:
        """Share the model: the outermost of what is done to it."""
        model = yield
        if self._peers is None or run.stage != "train":
            return model
        from trainbus_distributed.peers import compare_models

        compare_models(self._peers, model)
        made, why = self._choose(run, model)
        self._strategy = self._peers.strategy = made
        model = made.wrap(run, model)
        run.header["distributed"] = f"{made.in_words()}{why}"
        return model

    def _choose(self, run: Loop, model: nn.Module) -> tuple[Strategy, str]:
        """The strategy, and why it was taken where nobody named it."""
        from trainbus_distributed.choice import fits

        assert self._peers is not None
        strategy, why = self.strategy, ""
        if strategy == "auto":
            does, why = fits(model, run.device)
            strategy = "ddp" if does else "fsdp"
            why = f" (auto: {why})"
        if strategy == "ddp":
            from trainbus_distributed.ddp import Replicated

            return Replicated(self._peers, self.unused_parameters, self.bucket_mb), why
        from trainbus_distributed.fsdp import Sharded

        self._peers.meets_in_evaluation = True
        copies = 1
        if strategy == "hsdp":
            machines = self._peers.world_size // self._peers.local_world_size
            copies = self.replicas or max(1, machines)
        return Sharded(self._peers, self.blocks, self.param_dtype, copies), why

    @hookimpl(trylast=True)
    def on_train_epoch_start(self, run: Loop) -> None:
        """What was frozen or freed meanwhile is reduced otherwise."""
        if self._strategy is not None:
            self._strategy.begin_epoch(run)

    @hookimpl(tryfirst=True)
    def on_train_batch_start(self, run: Loop) -> None:
        """Know what this batch weighs in each process."""
        if self._peers is None:
            return
        from trainbus_distributed.data import weights

        window: Any = run.window
        window.begin_round(weights(run.loader, run.batch_index, self._peers.data_size))
        if not window.round[self._peers.data_rank]:
            run.batch_size = 0

    @hookimpl
    def training_step(self, run: Loop) -> Any:
        """Make the task's step, in a way that its backward reduces gradients."""
        if self._strategy is None:
            return None
        window: Any = run.window
        if window.round[run.peers.data_rank]:
            loss = self._strategy.forward(run)
        else:
            from trainbus_distributed.strategy import Frozen

            with Frozen(run.model):  # a batch that another process has counts there
                loss = self._strategy.forward(run)
            run.batch_size = 0
        # Of a step that made its backward itself; by None the next listener would be asked.
        return {} if loss is None and run.manual else loss

    @hookimpl(wrapper=True, tryfirst=True)
    def validation_step(self, run: Loop) -> Generator[None, Any, Any]:
        """Forget what a batch gave that only keeps others from waiting."""
        return (yield from self._without_padding(run))

    @hookimpl(wrapper=True, tryfirst=True)
    def predict_step(self, run: Loop) -> Generator[None, Any, Any]:
        """The same."""
        return (yield from self._without_padding(run))

    def _without_padding(self, run: Loop) -> Generator[None, Any, Any]:
        peers = self._peers
        if peers is None or not peers.meets_in_evaluation:
            return (yield)
        from trainbus_distributed.data import weights

        if weights(run.loader, run.batch_index, peers.data_size)[peers.data_rank]:
            return (yield)
        from trainbus.engine.task_state import TaskState

        kept = TaskState(run.task)
        mark, state = run.mark_log(), kept.state_dict()
        yield
        run.retract_log(mark)
        kept.load_state_dict(state)
        raise SkipBatch

    @hookimpl(wrapper=True, tryfirst=True)
    def backward(self, run: Loop) -> Generator[None, bool, bool]:
        """Notice a step that makes its backward itself."""
        if self._strategy is not None and run.manual:
            self._strategy.before_backward(run)
        return (yield)

    @hookimpl(tryfirst=True)
    def on_before_optimizer_step(self, run: Loop) -> None:
        """Gradients that are not yet those of all become so, before anybody looks at them."""
        if self._strategy is not None:
            self._strategy.before_step(run)

    @hookimpl(tryfirst=True)
    def on_validation_start(self, run: Loop) -> None:
        """The running statistics of normalisations become those of all."""
        self._average(run)

    @hookimpl(tryfirst=True)
    def on_validation_end(self) -> None:
        """Parameters are in parts again."""
        if self._strategy is not None:
            self._strategy.settle()

    on_test_end = on_validation_end

    @hookimpl(tryfirst=True)
    def on_train_epoch_end(self, run: Loop) -> None:
        """The same before a state is saved at the end of an epoch."""
        self._average(run)

    @hookimpl(wrapper=True, tryfirst=True)
    def save_checkpoint(self, run: Loop) -> Generator[None, bool, bool]:
        """The same before any state is saved."""
        self._average(run)
        return (yield)

    def _average(self, run: Loop) -> None:
        if self._strategy is None:
            return
        from trainbus_distributed.strategy import averaged_statistics

        self._strategy.settle()
        averaged_statistics(run.model, self._strategy.peers)

    @hookimpl
    def on_run_end(self) -> None:
        """Let the model go."""
        self._strategy = None
        if self._peers is not None:
            self._peers.strategy = None

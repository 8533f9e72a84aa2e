"""The plugin: what it offers, and what it switches on while a run uses it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from trainbus import UsageError, hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from torch.optim import Optimizer

    from trainbus import Accelerator, Run
    from trainbus_cuda.settings import Settings

WHO = "plugin 'cuda' (trainbus-cuda)"
#: Allocations, the newest, whose places in the program are kept for a snapshot.
HISTORY = 100_000


class Cuda:
    """Offer the GPU of NVIDIA or AMD as the accelerator "cuda", and use what it can do.

    Where there is none, or the run uses another accelerator, it does nothing.

    Args:
        tf32: multiply matrices of float32 in TF32: faster, with 10 bits of mantissa instead of 23.
        cudnn_benchmark: try the algorithms of cuDNN (MIOpen) for each new shape and keep the
            fastest; a resumed run may then choose others, and end with other bits.
        prefetch: copy batches from pinned memory on a stream of its own, and one batch ahead where
            a resumed run does the same.
        fused: let Adam, AdamW and SGD update all parameters in one kernel.
        graphs: replay the modules of the task as CUDA graphs, for batches of one shape.
        snapshot: keep the history of allocations, and write it when the memory is exhausted.
    """

    def __init__(
        self,
        tf32: bool = True,
        cudnn_benchmark: bool = False,
        prefetch: bool = True,
        fused: bool = True,
        graphs: bool = False,
        snapshot: bool = False,
    ) -> None:
        self.tf32 = tf32
        self.cudnn_benchmark = cudnn_benchmark
        self.prefetch = prefetch
        self.fused = fused
        self.graphs = graphs
        self.snapshot = snapshot
        #: What torch was set to before the run; None while no run uses the GPU.
        self._settings: Settings | None = None

    @hookimpl
    def provide_accelerator(self) -> Accelerator:
        """The GPU, there or not: it says why."""
        from trainbus_cuda.device import CudaDevice

        return CudaDevice(self.prefetch)

    # --- the run -------------------------------------------------------------------------------

    @hookimpl
    def on_run_start(self, run: Run) -> None:
        """Set what holds for the whole process, and tell."""
        self._check(run)
        if run.device.type != "cuda":
            return
        from trainbus_cuda.settings import Settings

        self._settings = Settings(self.tf32, self.cudnn_benchmark)
        self._settings.apply()
        run.header["cuda"] = self._told(run)
        if self.snapshot:
            import torch

            torch.cuda.memory._record_memory_history(max_entries=HISTORY)
        if self.graphs and run.stage == "train":
            from trainbus_cuda.graphs import Graphs

            run.bus.register(Graphs(), "cuda_graphs", WHO)

    def _check(self, run: Run) -> None:
        if self.cudnn_benchmark and run.trainer.deterministic:
            raise UsageError(
                f"{WHO}: cudnn_benchmark=True chooses by the clock, and "
                "Trainer(deterministic=True) forbids that; leave out one of them"
            )
        if self.graphs and run.accumulate > 1:
            raise UsageError(
                f"{WHO}: graphs=True writes the gradients of each batch to the same place, so "
                f"those of {run.accumulate} batches cannot be gathered; leave out graphs, or "
                "Trainer(accumulate=...)"
            )
        if self.graphs and run.world_size > 1:
            raise UsageError(
                f"{WHO}: graphs=True is for one process, and this run has {run.world_size}"
            )

    def _told(self, run: Run) -> str:
        import torch

        found = torch.cuda.get_device_properties(run.device)
        size = f"{found.name}, {found.total_memory / 2**30:.0f} GiB"
        options = ("tf32", "cudnn_benchmark", "prefetch", "fused", "graphs", "snapshot")
        return f"{size}; {', '.join(name for name in options if getattr(self, name)) or 'plain'}"

    @hookimpl(wrapper=True)
    def configure_optimizer(
        self, run: Run
    ) -> Generator[None, Sequence[Optimizer], Sequence[Optimizer]]:
        """Fuse the optimizers that can be."""
        optimizers = yield
        self._fuse(run, optimizers)
        return optimizers

    @hookimpl
    def on_checkpoint_loaded(self, run: Run) -> None:
        """Once more: an optimizer takes this, too, from its saved state."""
        self._fuse(run, run.optimizers)

    def _fuse(self, run: Run, optimizers: Sequence[Optimizer]) -> None:
        if not self.fused or self._settings is None:
            return
        from trainbus_cuda.fusing import fuse, with_sparse_gradients

        sparse = with_sparse_gradients(run.task)
        fused = [each for each in optimizers if fuse(each, run.device.type, sparse)]
        if others := [type(each).__name__ for each in optimizers if each not in fused]:
            run.header["fused"] = (
                f"{len(fused)} of {len(optimizers)} optimizers; {', '.join(others)} as it was"
            )

    # --- the end -------------------------------------------------------------------------------

    @hookimpl
    def on_exception(self, run: Run, error: BaseException) -> None:
        """Write who had the memory, and note where it is."""
        if not self.snapshot or self._settings is None:
            return
        if run.accelerator.is_out_of_memory(error):
            path = self._write_snapshot(run)
            error.add_note(f"{path} shows who had the memory: open it on pytorch.org/memory_viz")

    def _write_snapshot(self, run: Run) -> Path:
        import torch

        rank = f"_rank_{run.rank}" if run.world_size > 1 else ""
        path = run.dir / f"out_of_memory{rank}.pickle"
        torch.cuda.memory._dump_snapshot(str(path))  # type: ignore[no-untyped-call]
        return path

    @hookimpl
    def on_run_end(self, run: Run) -> None:
        """Put back what was set."""
        settings, self._settings = self._settings, None
        if settings is None:
            return
        settings.put_back()
        if self.snapshot:
            import torch

            torch.cuda.memory._record_memory_history(enabled=None)
        graphs = run.bus.plugins.get("cuda_graphs")
        if graphs is not None:
            from trainbus_cuda.graphs import Graphs

            assert isinstance(graphs, Graphs)
            graphs.undo()
            run.bus.unregister("cuda_graphs")

"""TPUs for trainbus: `torch_tpu`, and the older `torch_xla`, behind one name."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from trainbus import hookimpl

if TYPE_CHECKING:
    from trainbus import Accelerator, Run
    from trainbus_xla.torch_xla import TorchXLA

__all__ = ["XLA"]


class XLA:
    """Offer the accelerator `xla`: a TPU, through the stack that is installed.

    Args:
        spmd: shard each batch over all devices of this process (torch_xla only). It holds for the
            rest of the process: the runtime cannot leave this mode.
    """

    def __init__(self, spmd: bool = False) -> None:
        self.spmd = spmd
        #: The accelerator of the present run, if it is that of torch_xla; all below is for it.
        self._device: TorchXLA | None = None

    @hookimpl
    def provide_accelerator(self) -> Accelerator:
        """That of `torch_tpu` if it is installed, else that of `torch_xla`."""
        if find_spec("torch_tpu") is not None:
            from trainbus_xla.torch_tpu import TorchTPU

            return TorchTPU(self.spmd)
        from trainbus_xla.torch_xla import TorchXLA

        return TorchXLA(self.spmd)

    @hookimpl
    def on_run_start(self, run: Run) -> None:
        """Tell what is used, and seed the device, which `torch.manual_seed` leaves out."""
        from trainbus_xla.torch_tpu import TorchTPU
        from trainbus_xla.torch_xla import TorchXLA

        used = run.accelerator
        if isinstance(used, (TorchTPU, TorchXLA)):
            run.header["xla"] = used.describe()
        self._device = used if isinstance(used, TorchXLA) else None
        if self._device is not None:
            self._device.seed_like_torch()

    @hookimpl
    def on_run_end(self) -> None:
        """Forget the accelerator."""
        self._device = None

    @hookimpl
    def on_checkpoint_loaded(self) -> None:
        """Put the values in place now: as a part of the next step they would change its graph."""
        if self._device is not None:
            self._device.step_boundary("save")

    @hookimpl(tryfirst=True)
    def on_before_optimizer_step(self, run: Run) -> None:
        """With several processes: average gradients before anybody looks at them or clips them."""
        if self._device is not None and run.optimizer is not None:
            self._device.average_gradients(run.optimizer)

    @hookimpl(tryfirst=True)
    def save_checkpoint(self, run: Run, path: Path) -> bool | None:
        """Write tensors of the CPU, fetched in one transfer.

        In place of a writer in the background, which tells tensors apart by their addresses:
        those of XLA have none.
        """
        if self._device is None:
            return None
        from trainbus.checkpoints import archive
        from trainbus.engine import state

        parts = archive.plain_tensors(state.capture(run), path.name)
        archive.write(path, self._device.to_host(parts, path.name), state.about(run))
        return True

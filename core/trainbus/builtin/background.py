"""Writing a checkpoint on a thread of its own, from a copy in the host's memory."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainbus.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

    from trainbus.engine.loop import Loop
    from trainbus.engine.run import Run


class Background:
    """Writes one checkpoint at a time while training goes on.

    Training waits for the copy only, which is made into memory that is kept from one checkpoint to
    the next (pinned, for tensors of a device): as much as all parts of a checkpoint together.
    """

    def __init__(self) -> None:
        self._copies: list[Tensor] = []
        self._thread: threading.Thread | None = None
        self._path = Path()
        self._error: CheckpointError | None = None
        #: Another process of this run writes, and this one was told so.
        self._is_written_elsewhere = False

    def begin(self, run: Loop, path: Path) -> None:
        """Copy the state of a run, and begin to write it. The one before must be done."""
        from trainbus.checkpoints import archive
        from trainbus.engine import state

        self._path = path
        if run.rank:  # the first process writes, for all
            state.capture(run)
            self._is_written_elsewhere = True
            return
        parts = self._snapshot(run, path)
        about = state.about(run)

        def write() -> None:
            try:
                archive.write(path, parts, about)
            except CheckpointError as error:
                self._error = error

        # No daemon: an interpreter that ends waits until the checkpoint is whole.
        self._thread = threading.Thread(target=write, name="trainbus-save")
        self._thread.start()

    def wait(self) -> None:
        """Wait until what is being written is on the disk, or is known not to be."""
        if self._thread is not None:
            self._thread.join()

    def finished(self, wait: bool = False) -> Path | None:
        """The path that was written since the last call, or None.

        Raises:
            CheckpointError: it could not be written.
        """
        if self._is_written_elsewhere:
            self._is_written_elsewhere = False
            return self._path
        if self._thread is None or (self._thread.is_alive() and not wait):
            return None
        self._thread.join()
        self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error
        return self._path

    def delivered(self, run: Run, wait: bool) -> Path | None:
        """As `finished`; of several processes all get the same, when they wait for it.

        Raises:
            CheckpointError: it could not be written; in all of them.
        """
        if run.world_size == 1:
            return self.finished(wait)
        if not wait:
            return None  # when a thread is done differs between processes
        path, failure = None, ""
        try:
            path = self.finished(wait)
        except CheckpointError as error:
            failure = str(error)
        if failure := run.peers.broadcast(failure):
            raise CheckpointError(failure)
        return path

    def _snapshot(self, run: Loop, path: Path) -> dict[str, Any]:
        import torch

        from trainbus.checkpoints import archive
        from trainbus.engine import state

        copies: dict[tuple[Any, ...], Tensor] = {}
        before, self._copies = iter(self._copies), []

        def copy(tensor: Tensor) -> Tensor:
            place = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device)
            # Tied weights stay tied. Some devices tell no address.
            if tensor.numel() and tensor.data_ptr() and place in copies:
                return copies[place]
            target = next(before, None)
            if target is None or (target.shape, target.dtype) != (tensor.shape, tensor.dtype):
                pinned = tensor.device.type != "cpu"
                target = torch.empty_like(tensor, device="cpu", pin_memory=pinned)
            target.copy_(tensor, non_blocking=True)
            copies[place] = target
            self._copies.append(target)
            return target

        parts = archive.plain_tensors(state.capture(run), path.name, copy)
        run.accelerator.synchronize()
        return parts

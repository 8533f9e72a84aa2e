"""What the loop must know of the other processes of a run: the contract, and a process alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from torch import Tensor, nn


class Peers:
    """The processes that train one model together; this one is the only one.

    A plugin offers a subclass through `provide_peers`. All processes have to call what is said to
    be a meeting, in the same order: whoever leaves one out leaves the others waiting.
    """

    #: This process among all, and among those of its machine.
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    #: Its machine among all.
    node: int = 0
    #: This process among those that read other data than it does.
    data_rank: int = 0
    data_size: int = 1

    #: Who started this process prints why the newest run failed, or another process did.
    failure_is_told: bool = False

    def described(self) -> str:
        """All of them in words, for the header; a meeting."""
        return "1"

    def begin(self, run: Any) -> None:
        """A run begins, with this process in it."""

    def end(self, run: Any) -> None:
        """The run is over: also by an error, so this is no meeting."""

    # --- what is said to all -------------------------------------------------------------------

    def broadcast(self, value: Any, source: int = 0) -> Any:
        """What the process of rank `source` gave, on all; a meeting.

        Args:
            value: tensors of the host and plain values, in dictionaries, lists and tuples.
            source: whose it is.
        """
        return value

    def gather(self, value: Any) -> list[Any]:
        """What each process gave, by rank, on all; a meeting. Values as those of `broadcast`."""
        return [value]

    def agree(self, flags: int, largest: int = 0, equal: int = 0) -> tuple[int, int]:
        """The flags that any process set, and the largest of numbers; a meeting.

        Args:
            flags: the bits of a small number.
            largest: a number of this process.
            equal: what has to be the same everywhere: the count of optimizer steps.

        Raises:
            TrainbusError: `equal` is not, on all processes.
        """
        return flags, largest

    def barrier(self, what: str) -> None:
        """Wait for all; a meeting.

        Raises:
            TrainbusError: some do not come; it names them, and what they were to come for.
        """

    # --- tensors -------------------------------------------------------------------------------

    def sum(self, tensor: Tensor) -> None:
        """Add up a tensor over all that read other data, in place; a meeting."""

    def unshard(self, tensor: Tensor) -> Tensor:
        """The whole of a tensor of which each process has a part; a meeting, where it is one."""
        return tensor

    def part(self, whole: Tensor, like: Tensor) -> Tensor:
        """What this process keeps of a whole tensor, in the way that `like` is shared out."""
        return whole

    def norm(self, tensors: Sequence[Tensor]) -> Tensor:
        """The norm of all of them together, in all processes; a meeting, where they are parts."""
        return nn.utils.get_total_norm(tensors)

    # --- data and steps ------------------------------------------------------------------------

    def deal(
        self, loader: Iterable[Any], stage: Literal["train", "valid", "test", "predict"]
    ) -> Any:
        """The part of a loader that this process reads."""
        return loader

    def take_part(self, run: Any) -> None:
        """Do what all do in the backward of a batch that this process has left out."""

    # --- failures ------------------------------------------------------------------------------

    def fail(self, error: BaseException) -> bool:
        """Tell the others why this process ends; no meeting. True: who started it prints that."""
        return False

    def failure(self, error: BaseException) -> BaseException | None:
        """What ended another process, where that is why this one failed; no meeting."""
        return None

"""The processes of a run, joined by `torch.distributed`."""

from __future__ import annotations

import io
import os
import platform
import struct
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from trainbus import Peers
from trainbus.errors import TrainbusError, UsageError
from trainbus_distributed.data import deal
from trainbus_distributed.failures import Failures
from trainbus_distributed.launch import Launch

if TYPE_CHECKING:
    from trainbus_distributed.strategy import Strategy

#: A value that is no longer than this is sent with its length.
_SHORT = 4096 - 8
_BITS = 16


class TorchPeers(Peers):
    """A process group of torch: that which is there already, or one that is made.

    What processes tell each other goes through a group of its own on gloo, beside the collectives
    of the gradients.

    Args:
        launch: which process this is; None where a group is there already (of Ray, for example).
        timeout: seconds after which a process that does not come is given up.
    """

    def __init__(self, launch: Launch | None, timeout: float) -> None:
        self.timeout = timeout
        limit = timedelta(seconds=timeout)
        self.is_own = not dist.is_initialized()
        self.by = launch.by if launch is not None else "a process group that was there"
        if self.is_own:
            if launch is None:
                raise UsageError("there is neither a launcher nor a process group")
            _join(launch, limit)
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.local_rank = launch.local_rank if launch else int(os.environ.get("LOCAL_RANK", 0))
        self.local_world_size = launch.local_world_size if launch else 1
        self.node = launch.node if launch else 0
        self.data_rank, self.data_size = self.rank, self.world_size
        self.backend = dist.get_backend()
        self._talk = dist.new_group(backend="gloo", timeout=limit)
        self.failures = Failures(self.rank, self.world_size, timeout)
        #: How gradients are made those of all; set by the plugin for a run.
        self.strategy: Strategy | None = None
        #: Collectives of this class, for tests and figures.
        self.meetings = 0
        #: Loaders are dealt out; else each process was given its part.
        self.deals = True
        #: A forward without gradients is a collective, so that all have to make as many.
        self.meets_in_evaluation = False
        #: Loaders that were dealt out, by the identity of what was given.
        self._dealt: dict[int, tuple[Any, Any]] = {}

    def described(self) -> str:
        """See `Peers`."""
        here = f"rank {self.rank}: {platform.node()}:{os.getpid()}"
        all_of_them = self.gather(here)
        listed = ", ".join(all_of_them[:8]) + (", ..." if self.world_size > 8 else "")
        return f"{self.world_size} ({self.by}, {self.backend}), this is rank {self.rank}; {listed}"

    def begin(self, run: Any) -> None:
        """Compare what was loaded, and begin to note where this process stands."""
        _compare(self, run)
        self.failures.begin(run)

    def end(self, run: Any) -> None:
        """See `Peers`."""
        self.failures.end()
        self._dealt = {}

    # --- what is said to all -------------------------------------------------------------------

    def broadcast(self, value: Any, source: int = 0) -> Any:
        """See `Peers`."""
        self.meetings += 1
        mine = self.rank == source
        head, data = _packed(value) if mine else (torch.empty(_SHORT + 8, dtype=torch.uint8), b"")
        dist.broadcast(head, source, group=self._talk)
        size = _size(head)
        if size > _SHORT:
            rest = _bytes(data) if mine else torch.empty(size, dtype=torch.uint8)
            dist.broadcast(rest, source, group=self._talk)
            return value if mine else _unpacked(rest)
        return value if mine else _unpacked(head[8 : 8 + size])

    def gather(self, value: Any) -> list[Any]:
        """See `Peers`."""
        self.meetings += 1
        head, data = _packed(value)
        heads = [torch.empty_like(head) for _ in range(self.world_size)]
        dist.all_gather(heads, head, group=self._talk)
        sizes = [_size(each) for each in heads]
        longest = max(sizes)
        if longest <= _SHORT:
            return [_unpacked(each[8 : 8 + size]) for each, size in zip(heads, sizes, strict=True)]
        own = torch.zeros(longest, dtype=torch.uint8)
        own[: len(data)] = _bytes(data)
        rest = [torch.empty_like(own) for _ in range(self.world_size)]
        dist.all_gather(rest, own, group=self._talk)
        return [_unpacked(each[:size]) for each, size in zip(rest, sizes, strict=True)]

    def agree(self, flags: int, largest: int = 0, equal: int = 0) -> tuple[int, int]:
        """See `Peers`; one all-reduce."""
        self.meetings += 1
        bits = [flags >> bit & 1 for bit in range(_BITS)]
        told = torch.tensor([*bits, largest, equal, -equal])
        dist.all_reduce(told, dist.ReduceOp.MAX, group=self._talk)
        *bits, largest, most, least = told.tolist()
        if most != -least:
            counts = self.gather(equal)
            listed = ", ".join(f"rank {rank}: {count}" for rank, count in enumerate(counts))
            raise TrainbusError(
                f"the processes have not made the same number of optimizer steps ({listed}): a "
                "listener called off a step (SkipStep, SkipBatch after backward) in some of them; "
                "decide by what is the same in all, such as gradients that were reduced"
            )
        return sum(bit << place for place, bit in enumerate(bits)), largest

    def barrier(self, what: str) -> None:
        """See `Peers`."""
        self.meetings += 1
        try:
            dist.monitored_barrier(self._talk, timedelta(seconds=self.timeout), wait_all_ranks=True)
        except RuntimeError as error:
            raise TrainbusError(f"waiting for all processes ({what}): {error}") from error

    # --- tensors -------------------------------------------------------------------------------

    def sum(self, tensor: Tensor) -> None:
        """See `Peers`."""
        self.meetings += 1
        dist.all_reduce(tensor)

    def unshard(self, tensor: Tensor) -> Tensor:
        """See `Peers`."""
        full = getattr(tensor, "full_tensor", None)
        return tensor if full is None else full()

    def part(self, whole: Tensor, like: Tensor) -> Tensor:
        """See `Peers`; each process has the whole, so nothing is sent."""
        from torch.distributed.tensor import DTensor, distribute_tensor

        if not isinstance(like, DTensor) or isinstance(whole, DTensor):
            return whole
        whole = whole.to(like.to_local().device)
        return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)

    def norm(self, tensors: Sequence[Tensor]) -> Tensor:
        """See `Peers`: of each mesh of devices for itself, then of all."""
        groups: dict[Any, list[Tensor]] = {}
        for each in tensors:
            groups.setdefault(getattr(each, "device_mesh", None), []).append(each)
        norms = [self.unshard(torch.nn.utils.get_total_norm(each)) for each in groups.values()]
        return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))

    # --- data and steps ------------------------------------------------------------------------

    def deal(
        self, loader: Iterable[Any], stage: Literal["train", "valid", "test", "predict"]
    ) -> Any:
        """See `Peers`: batch `i` of the one order is read by rank `i` modulo their number."""
        key = (id(loader), stage == "train")
        if (known := self._dealt.get(hash(key))) is not None and known[0] is loader:
            return known[1]
        pads = stage == "train" or self.meets_in_evaluation
        dealt = deal(loader, self, pads, own=not self.deals)
        self._dealt[hash(key)] = (loader, dealt)  # kept together, so that no other has this id
        return dealt

    def take_part(self, run: Any) -> None:
        """See `Peers`."""
        if self.strategy is not None:
            self.strategy.idle(run)

    # --- failures ------------------------------------------------------------------------------

    def fail(self, error: BaseException) -> bool:
        """See `Peers`."""
        return self.failures.publish(error)

    def failure(self, error: BaseException) -> BaseException | None:
        """See `Peers`."""
        return self.failures.cause_of(error)


def _join(launch: Launch, limit: timedelta) -> None:
    """Make the default process group: of NCCL for GPUs, of gloo for the rest."""
    device = torch.accelerator.current_accelerator(check_available=True)
    backend = "gloo"
    if device is not None and device.type != "cpu":
        fast = dist.get_default_backend_for_device(device)
        backend = f"cpu:gloo,{device.type}:{fast}"
        torch.accelerator.set_device_index(launch.local_rank)
    if "TORCHELASTIC_RUN_ID" in os.environ:  # with the store that torchrun keeps
        dist.init_process_group(backend, timeout=limit)
        return
    is_master = launch.rank == 0 and os.environ.get("TRAINBUS_LAUNCH") != "nproc"
    store = dist.TCPStore(
        launch.address, launch.port, launch.world_size if is_master else None, is_master,
        timeout=limit, wait_for_workers=False,
    )  # fmt: skip
    generation = os.environ.get("TRAINBUS_GENERATION", "0")
    dist.init_process_group(
        backend,
        store=dist.PrefixStore(f"generation {generation}", store),
        rank=launch.rank,
        world_size=launch.world_size,
        timeout=limit,
    )


def _compare(peers: TorchPeers, run: Any) -> None:
    """Refuse processes that are not alike, with the difference, in all of them."""
    mine = {
        "torch": str(torch.__version__),
        "task": run.name,
        "stage": run.stage,
        "plugins": [f"{each.name} ({each.why})" for each in run.loaded],
        "accumulate": str(run.accumulate),
        "epochs, max_steps": f"{run.trainer.epochs}, {run.trainer.max_steps}",
    }
    _refuse_difference(peers, mine)


def _refuse_difference(peers: TorchPeers, mine: dict[str, Any]) -> None:
    told = peers.gather(mine)
    for rank, each in enumerate(told):
        for key, value in told[0].items():
            if each[key] != value:
                raise UsageError(
                    f"the processes of this run are not alike: {key} is {value!r:.300} in rank 0 "
                    f"and {each[key]!r:.300} in rank {rank}; start the same script in all of them"
                )


def compare_models(peers: TorchPeers, model: torch.nn.Module) -> None:
    """Refuse models whose parameters differ in name, shape or type, before they are reduced.

    Raises:
        UsageError: they do; it names the first that does, in all processes.
    """
    shapes = {
        name: f"{tuple(each.shape)} {each.dtype}, requires_grad={each.requires_grad}"
        for name, each in model.named_parameters()
    }
    digest = hash_of(str(shapes))
    if len(set(peers.gather(digest))) == 1:
        return
    told = peers.gather(shapes)
    for rank, each in enumerate(told):
        for name in {**told[0], **each}:
            if told[0].get(name) != each.get(name):
                raise UsageError(
                    f"the model differs between processes: {name} is {told[0].get(name, 'missing')}"
                    f" in rank 0 and {each.get(name, 'missing')} in rank {rank}; make the same "
                    "model everywhere, whatever the rank"
                )


def hash_of(text: str) -> str:
    """A digest that is the same in all processes."""
    import hashlib

    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def _packed(value: Any) -> tuple[Tensor, bytes]:
    """A value as bytes, and the message that goes ahead: its length, and all of it if short."""
    file = io.BytesIO()
    torch.save(value, file)
    data = file.getvalue()
    head = torch.zeros(_SHORT + 8, dtype=torch.uint8)
    head[:8] = _bytes(struct.pack("<q", len(data)))
    if len(data) <= _SHORT:
        head[8 : 8 + len(data)] = _bytes(data)
    return head, data


def _size(head: Tensor) -> int:
    return int(struct.unpack("<q", head[:8].numpy().tobytes())[0])


def _bytes(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _unpacked(data: Tensor) -> Any:
    """What was packed; nothing in it is executed."""
    return torch.load(io.BytesIO(data.numpy().tobytes()), map_location="cpu", weights_only=True)

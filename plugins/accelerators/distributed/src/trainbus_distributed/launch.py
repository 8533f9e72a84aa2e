"""Who started this process, and which of all processes it is: read from the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from trainbus.errors import UsageError


@dataclass(frozen=True)
class Launch:
    """Where this process stands among those that were started together.

    Args:
        by: who started them, in words.
        rank: this one among all.
        world_size: how many there are.
        local_rank: this one among those of its machine.
        local_world_size: how many those are.
        node: its machine among all.
        address: of the machine of rank 0.
        port: where the processes meet there.
    """

    by: str
    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    node: int
    address: str
    port: int


def recognised(environment: Mapping[str, str] = os.environ) -> Launch | None:
    """What a launcher told this process, or None: it was started alone.

    torchrun, `trainbus fit --nproc`, Kubernetes' training operators, `srun` of Slurm and `mpirun`
    of Open MPI, MPICH and Intel are known.

    Raises:
        UsageError: the variables contradict each other, or one is missing.
    """
    for find in (_of_torch, _of_slurm, _of_open_mpi, _of_mpich):
        if (found := find(environment)) is not None:
            if not 0 <= found.rank < found.world_size:
                raise UsageError(
                    f"{found.by} told this process that it is rank {found.rank} of "
                    f"{found.world_size}; ranks are counted from 0"
                )
            return found if found.world_size > 1 else None
    return None


def _of_torch(given: Mapping[str, str]) -> Launch | None:
    """RANK and WORLD_SIZE, as torchrun and Kubernetes' operators set them."""
    if "RANK" not in given and "WORLD_SIZE" not in given:
        return None
    by = "torchrun" if "TORCHELASTIC_RUN_ID" in given else "environment variables"
    by = "trainbus --nproc" if given.get("TRAINBUS_LAUNCH") == "nproc" else by
    if "KUBERNETES_SERVICE_HOST" in given:
        by += ", Kubernetes"
    rank, size = _whole(given, "RANK", by), _whole(given, "WORLD_SIZE", by)
    local = _whole(given, "LOCAL_RANK", by, 0)
    of_machine = _whole(given, "LOCAL_WORLD_SIZE", by, 1)
    node = _whole(given, "GROUP_RANK", by, rank // of_machine)
    return Launch(by, rank, size, local, of_machine, node, *_meeting_place(given, by, size))


def _of_slurm(given: Mapping[str, str]) -> Launch | None:
    """A step of `srun`; the shell of `salloc` and the script of `sbatch` are none."""
    if "SLURM_STEP_ID" not in given or "SLURM_STEP_NUM_TASKS" not in given:
        return None
    by = "Slurm"
    size = _whole(given, "SLURM_STEP_NUM_TASKS", by)
    nodes = _whole(given, "SLURM_STEP_NUM_NODES", by, 1)
    address = given.get("MASTER_ADDR") or _first_host(given.get("SLURM_STEP_NODELIST", ""))
    port = given.get("MASTER_PORT") or str(10_000 + int(given.get("SLURM_JOB_ID", "0")) % 20_000)
    return Launch(
        by,
        _whole(given, "SLURM_PROCID", by),
        size,
        _whole(given, "SLURM_LOCALID", by),
        -(-size // nodes),
        _whole(given, "SLURM_NODEID", by, 0),
        address or "127.0.0.1",
        int(port),
    )


def _first_host(names: str) -> str:
    """`node03` of `node[03-07,12],other1`."""
    found = re.match(r"([^\[,]+)(?:\[(\d+))?", names)
    return "" if found is None else found[1] + (found[2] or "")


def _of_open_mpi(given: Mapping[str, str]) -> Launch | None:
    if "OMPI_COMM_WORLD_RANK" not in given:
        return None
    by, start = "mpirun (Open MPI)", "OMPI_COMM_WORLD_"
    size, of_machine = _whole(given, f"{start}SIZE", by), _whole(given, f"{start}LOCAL_SIZE", by)
    rank = _whole(given, f"{start}RANK", by)
    place = _meeting_place(given, by, size, one_machine=size == of_machine)
    local = _whole(given, f"{start}LOCAL_RANK", by)
    return Launch(by, rank, size, local, of_machine, rank // of_machine, *place)


def _of_mpich(given: Mapping[str, str]) -> Launch | None:
    if "PMI_RANK" not in given or "PMI_SIZE" not in given:
        return None
    by = "mpirun (MPICH)"
    rank, size = _whole(given, "PMI_RANK", by), _whole(given, "PMI_SIZE", by)
    of_machine = _whole(given, "MPI_LOCALNRANKS", by, size)
    local = _whole(given, "MPI_LOCALRANKID", by, rank % of_machine)
    place = _meeting_place(given, by, size, one_machine=size == of_machine)
    return Launch(by, rank, size, local, of_machine, rank // of_machine, *place)


def _meeting_place(
    given: Mapping[str, str], by: str, size: int, one_machine: bool = False
) -> tuple[str, int]:
    if one_machine:
        return given.get("MASTER_ADDR", "127.0.0.1"), _whole(given, "MASTER_PORT", by, 29_500)
    if size > 1 and "MASTER_ADDR" not in given:
        raise UsageError(
            f"{by} started {size} processes, and MASTER_ADDR is not set: set it to the name of the "
            "machine of rank 0, and MASTER_PORT to a free port there"
        )
    return given.get("MASTER_ADDR", "127.0.0.1"), _whole(given, "MASTER_PORT", by, 29_500)


def _whole(given: Mapping[str, str], name: str, by: str, default: int | None = None) -> int:
    text = given.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.isdigit():
        raise UsageError(
            f"{by}: the environment variable {name} is {text!r}; it has to be a whole number"
        )
    return int(text)

"""What belongs to one process of several in the state of a run, at this number of them or another.

A state holds what each process had: its random states, and its part of the sums of a pass. At the
same number of processes each goes on with its own. At another number the place in the data is
counted again, in batches of all processes together, which have one order whoever reads them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainbus.devices.peers import Peers
from trainbus.devices.random_state import seed_everything
from trainbus.engine.loader import mixed
from trainbus.errors import CheckpointError

if TYPE_CHECKING:
    from trainbus.engine.loop import Loop

logger = logging.getLogger("trainbus")

#: What of a loop's state differs between processes.
OWN = ("position", "records")


def seed_apart(peers: Peers, seed: int | None) -> None:
    """Give this process random numbers of its own; the first keeps those that it had."""
    if peers.data_rank:
        seed_everything(mixed(torch.initial_seed() if seed is None else seed, peers.data_rank, -2))


def with_ranks(peers: Peers, loop: dict[str, Any]) -> dict[str, Any]:
    """The state of a loop, with that of each process; a meeting."""
    if peers.world_size == 1:
        return loop
    return {**loop, "ranks": peers.gather({name: loop[name] for name in OWN})}


def whole(peers: Peers, value: Any) -> Any:
    """A state with every tensor whole that processes share: on the host of the first one.

    A meeting, where there are such; of the others only what has no part is kept.
    """
    if isinstance(value, dict):
        return {key: whole(peers, item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(whole(peers, item) for item in value)
    if isinstance(value, Tensor) and type(value) not in (Tensor, nn.Parameter, nn.Buffer):
        full = peers.unshard(value.detach())
        return full.cpu() if peers.rank == 0 else full.new_empty(0)
    return value


def in_parts(peers: Peers, state: Any, like: Mapping[str, Any], name: str = "") -> Any:
    """A state in which each tensor is shared out as that of its name in a model is.

    Args:
        peers: the processes.
        state: that of a model, or of a plugin that keeps tensors by the names of parameters.
        like: tensors of the model, by name.
        name: where in a mapping the state stands.
    """
    if isinstance(state, Mapping):
        return {key: in_parts(peers, item, like, str(key)) for key, item in state.items()}
    of_model = like.get(name)
    if isinstance(state, Tensor) and isinstance(of_model, Tensor) and state.shape == of_model.shape:
        return peers.part(state, of_model)
    return state


def optimizer_in_parts(peers: Peers, state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """The state of an optimizer, each tensor of a parameter's shape shared out like that."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return {
        **state,
        "state": {
            index: {
                name: peers.part(value, parameters[index])
                if isinstance(value, Tensor) and value.shape == parameters[index].shape
                else value
                for name, value in entry.items()
            }
            for index, entry in state["state"].items()
        },
    }


def of_this_rank(run: Loop, loop: dict[str, Any], source: str) -> dict[str, Any]:
    """The state of a loop as this process goes on with it.

    Raises:
        CheckpointError: it stands where this number of processes cannot go on.
    """
    peers, ranks = run.peers, loop.get("ranks") or [{name: loop[name] for name in OWN}]
    if len(ranks) == peers.data_size:
        return {**loop, **ranks[peers.data_rank]}
    position = _counted_again(run, loop["position"], len(ranks), source)
    own = ranks[min(peers.data_rank, len(ranks) - 1)]["position"]
    if peers.data_rank >= len(ranks):
        seed_apart(peers, mixed(loop["global_step"], run.trainer.seed or 0, -3))
        random = run.accelerator.random_state()
    else:
        random = own["random"]
    logger.warning(
        "%s was written by %d processes, this run has %d: it goes on behind the same samples; "
        "random numbers (dropout, noise) are others from here on", source, len(ranks),
        peers.data_size,
    )  # fmt: skip
    return {
        **loop,
        "position": {**position, "random": random},
        "records": _shared_out(loop["records"], [each["records"] for each in ranks], peers),
    }


def _counted_again(run: Loop, saved: dict[str, Any], before: int, source: str) -> dict[str, Any]:
    """A place in the data that was counted by so many processes, as those of now count it."""
    now = run.peers.data_size
    if saved["batches"] * before % now and not saved["over"]:
        raise CheckpointError(
            f"{source} stands behind {saved['batches'] * before} batches of its epoch (of "
            f"{before} processes together), which {now} processes cannot share out evenly; keep "
            f"the batches of one step the same: accumulate={saved['accumulate']} was used with "
            f"{before}"
        )
    together = saved["accumulate"] * before
    if together != run.accumulate * now:
        logger.warning(
            "%s was made with %d batches in a step (%d processes, accumulate=%d), this run has %d: "
            "another training from here on; learning rates are left as they are", source,
            together, before, saved["accumulate"], run.accumulate * now,
        )  # fmt: skip
    samples = saved["samples"]
    return {
        **saved,
        "batches": -(-saved["batches"] * before // now),
        "validated_at": saved["validated_at"] * before // now,
        "samples": None if samples is None else samples * before // now,
        "accumulate": run.accumulate,
        "length": None,
        "last_batch": [],
    }


def _shared_out(
    common: dict[str, Any], records: list[dict[str, Any]], peers: Peers
) -> dict[str, Any]:
    """The sums of a pass: all of them in the first process, none in the others."""
    sums: dict[str, list[float]] = {}
    for each in records if peers.data_rank == 0 else ():
        for name, (total, weight) in each["sums"].items():
            whole = sums.setdefault(name, [0.0, 0])
            whole[0] += total
            whole[1] += weight
    return {**common, "sums": sums}

"""The sums of a pass over data, of all processes that read a part of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from trainbus.devices.peers import Peers
from trainbus.errors import UsageError

Sums = dict[str, list[float]]


def together(
    peers: Peers,
    sums: Sums,
    reductions: Mapping[str, Callable[[float, float], float]],
    meters: Sequence[str],
) -> Sums:
    """The sums of all processes, one meeting for all names; one that is missing weighs nothing.

    Args:
        peers: the processes.
        sums: of this one: the sum of each name, and its weight.
        reductions: what some names have instead of a sum.
        meters: names of objects that this process measured with, which meet each other themselves.

    Raises:
        UsageError: some processes have meters that others do not; it names them, on all.
    """
    told = peers.gather({"sums": sums, "meters": sorted(meters)})
    of_meters = [each["meters"] for each in told]
    if any(each != of_meters[0] for each in of_meters):
        listed = "; ".join(f"rank {rank}: {names}" for rank, names in enumerate(of_meters))
        raise UsageError(
            "the processes have logged different metric objects in this pass, which would wait "
            f"for each other ({listed}); log them in each step, whatever the batch"
        )
    whole: Sums = {}
    for each in told:
        for name, (total, weight) in each["sums"].items():
            if name not in whole:
                whole[name] = [total, weight]
            elif (how := reductions.get(name)) is not None:
                whole[name] = [how(whole[name][0], total), 1]
            else:
                whole[name][0] += total
                whole[name][1] += weight
    return whole

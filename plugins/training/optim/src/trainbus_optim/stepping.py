"""Numbers of all tensors, and what a GradScaler says, brought to each bucket's device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from trainbus_optim.buckets import Bucket


def guard(bucket: Bucket, scale: Tensor | None, found: Tensor | None) -> None:
    """Hand what a GradScaler found to the kernel, on the device of the parameters."""
    device = bucket.parameters[0].device
    bucket.run.scale = None if scale is None else scale.to(device, non_blocking=True)
    bucket.run.found_inf = None if found is None else found.to(device, non_blocking=True)


def sum_up(buckets: list[Bucket], index: int, number: int, function: Callable[..., Any]) -> None:
    """A number of all tensors, brought to each bucket's device."""
    first = buckets[0].run.totals(index)[number]
    device = buckets[0].parameters[0].device
    lists: list[list[Tensor]] = [[] for _ in first.sources]
    for each in buckets:
        own = each.run.totals(index)[number]
        for values, name in zip(lists, own.sources, strict=True):
            values += [value.to(device) for value in each.run.value(name)]
    shared = [buckets[0].run.value(name) for name in first.shared]
    numbers = [buckets[0].run.number(place) for place in first.numbers]
    made = function(*lists, *shared, *numbers)
    for each in buckets:
        own = each.run.totals(index)[number]
        if own.target is not None and made is not None:
            each.run.place(own.target, made.to(each.parameters[0].device))

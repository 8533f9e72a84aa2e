"""What the parts of a batch are, and how they are taken out of it and put back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from trainbus import UsageError
from trainbus.errors import nearest

#: What a part of a batch can be. "other" is left as it is.
KINDS = ("image", "mask", "points", "boxes", "category", "categories", "number", "other")


def check_kinds(kinds: Sequence[str]) -> None:
    """Refuse kinds that are unknown, or without an image among them."""
    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(
                f"kinds={list(kinds)!r}: there is no kind {kind!r}{nearest(kind, KINDS)} "
                f"There are {', '.join(KINDS)}"
            )
    if "image" not in kinds:
        raise UsageError(f"kinds={list(kinds)!r}: no part is an 'image', and nothing is augmented")


def leaves(batch: Any) -> list[Any]:
    """The parts of a batch in order: the values of mappings, dataclasses and sequences."""
    from trainbus import batches  # it imports torch

    # Parts are what can be put back.
    return list(batches.leaves(batch, whole=lambda value: not batches.is_rebuilt(value)))


def rebuilt(batch: Any, parts: Iterable[Any]) -> Any:
    """A batch like this one, of the same types, with other parts."""
    from trainbus import batches

    rest = iter(parts)
    return batches.rebuilt(batch, lambda value: None if batches.is_rebuilt(value) else next(rest))


def kinds_of(batch: Any, named: Mapping[str, str]) -> list[str]:
    """The kinds of the parts of a mapping or a dataclass, by name; those not named are "other"."""
    from trainbus.batches import is_record

    if isinstance(batch, Mapping):
        values: dict[Any, Any] = dict(batch)
    elif is_record(batch):
        values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    else:
        raise UsageError(
            f"kinds={dict(named)!r} names parts, but the batch is a {type(batch).__name__}; give a "
            "list, as in kinds=['image', 'category']"
        )
    for key in named:
        if key not in values:
            raise UsageError(
                f"kinds={dict(named)!r}: the batch has no {key!r}{nearest(key, map(str, values))} "
                f"It has {', '.join(map(str, values))}"
            )
    return [
        named.get(key, "other") for key, value in values.items() for _ in range(len(leaves(value)))
    ]


def guessed(batch: Any) -> list[str]:
    """The kinds of a batch of which nobody said them: an image, and a category where it seems so.

    Raises:
        UsageError: it is a mapping, or the target moves with the image.
    """
    if isinstance(batch, Mapping):
        raise UsageError(
            f"the batch has the parts {', '.join(map(str, batch))}: say what they are, as in "
            "kinds={'photo': 'image', 'label': 'category'}"
        )
    parts = leaves(batch)
    kinds = ["image"]
    for place, part in enumerate(parts[1:], 1):
        dimensions = getattr(part, "ndim", 0)
        whole = dimensions > 0 and not part.is_floating_point()
        size = tuple(getattr(parts[0], "shape", ()))[-2:]
        if dimensions >= 3 and tuple(part.shape[-2:]) == size:
            raise UsageError(
                f"part {place} of the batch is as large as the image, {size[0]} x {size[1]}: say "
                "what the parts are, as in kinds=['image', 'mask'], so that it moves with the "
                "image; or 'other' for what is to stay"
            )
        kinds.append("category" if place == 1 and whole and dimensions == 1 else "other")
    return kinds

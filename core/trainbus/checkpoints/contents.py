"""What the files of a checkpoint hold: the shape of its manifest and of each part.

What a file holds otherwise is refused before a run is changed. Values that a later version adds
are let be.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trainbus.errors import CheckpointError
from trainbus.storage.untrusted import (
    Shape,
    Unfit,
    anything,
    choice,
    either,
    fields,
    listed,
    mapping,
    maybe,
    number,
    one_of,
    pair,
    text,
    whole,
)

_SECTION = mapping(key=either(text(), whole()))
_NUMBER: Shape = number


def _random(value: Any, where: str) -> None:
    """Fits the random states of a process: generators of this kind take them."""
    needed = {"python": listed(length=3), "torch": one_of(Tensor)}
    fields(needed, {"device": one_of(Tensor), "device_type": text(100)})(value, where)
    try:
        random.Random().setstate(value["python"])
        torch.Generator().set_state(value["torch"])
        numpy = sys.modules.get("numpy")
        if numpy is not None and "numpy" in value:
            name, words, *rest = value["numpy"]
            numpy.random.RandomState().set_state((name, words.numpy().astype("uint32"), *rest))
    except Exception as error:  # of any kind
        raise Unfit(f"{where} is no state of random generators: {error}") from None


MANIFEST = fields(
    {
        "written": text(100),
        "about": fields(
            {},
            {
                "run": text(),
                "status": text(100),
                "epoch": whole(),
                "global_step": whole(),
                "batches": whole(),
                "order": whole(),
                "measured_last": one_of(bool),
                "arguments": mapping(),
            },
        ),
        "parts": mapping(
            fields({"sha256": text(64, "[0-9a-f]{64}")}), key=text(100, r"\w[\w .-]*")
        ),
    }
)

_POSITION = fields(
    {
        "epoch": whole(),
        "batches": whole(),
        "validated_at": whole(),
        "over": choice("", "train_epoch", "validation", "epoch"),
        "ends_pass": one_of(bool),
        "random": _random,
        "generators": listed(),
        "pass_start": either(
            fields({"random": _random, "generators": listed(), "workers_stayed": one_of(bool)}),
            choice({}),
        ),
        "valid_generators": listed(listed()),
        "loader": maybe(mapping(key=anything)),
        "last_batch": listed(text()),
        "batch_size": maybe(whole(1)),
        "samples": maybe(whole()),
        "length": maybe(whole()),
        "accumulate": whole(1),
    },
    {"validated_step": whole()},
)
_RECORDS = fields(
    {
        "sums": mapping(pair(_NUMBER, _NUMBER)),
        "latest": mapping(_NUMBER),
        "measured": mapping(whole()),
    }
)
_LOOP = fields(
    {
        "global_step": whole(),
        "skipped_steps": whole(),
        "records": _RECORDS,
        "position": _POSITION,
        "optimizers": listed(
            fields(
                {
                    "class": text(),
                    "names": listed(listed(text())),
                    "given": listed(mapping()),
                }
            )
        ),
        "made_with": listed(text()),
        "task": _SECTION,
    },
    # Of each process, where there were several.
    {"ranks": listed(fields({"position": _POSITION, "records": _RECORDS}))},
)
_OPTIMIZER = fields(
    {
        "state": mapping(mapping(), key=whole()),
        "param_groups": listed(fields({"params": listed(whole())})),
    }
)
#: By part.
_PARTS: Mapping[str, Shape] = {
    "model": mapping(),
    "optimizers": listed(_OPTIMIZER),
    "loop": _LOOP,
    "plugins": mapping(_SECTION),
}


def check(parts: Mapping[str, Any], source: str, only: Sequence[str] = tuple(_PARTS)) -> None:
    """Compare parts with what they have to be. Raises `CheckpointError`, which names the field."""
    try:
        fields({name: _PARTS[name] for name in only})(parts, "it")
    except Unfit as error:
        raise CheckpointError(f"{source} does not hold the state of a run: {error}") from None

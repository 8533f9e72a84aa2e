"""Random generators that a loader, a sampler or a dataset keeps as its own."""

from __future__ import annotations

import random
import sys
from typing import Any

import torch

from trainbus import batches
from trainbus.errors import CheckpointError


def of(loader: object) -> list[Any]:
    """The generators of a loader, its samplers, its dataset and all that they wrap.

    Of torch, of Python and of NumPy, wherever they are kept as attributes.
    """
    found: dict[int, Any] = {}
    for part in batches.parts(loader):
        for value in batches.attributes(part):
            if is_generator(value):
                found.setdefault(id(value), value)
    return list(found.values())


def states_of(loader: object) -> list[Any]:
    """Their states, in plain values."""
    return [state_of(each) for each in of(loader)]


def put_back(loader: object, states: list[Any]) -> None:
    """Put back what `states_of` told. Raises `CheckpointError` for what does not fit."""
    for generator, state in zip(of(loader), states, strict=False):
        restore(generator, state, "the loader")


def restore(generator: Any, state: Any, owner: str) -> None:
    """Put back the state of one generator. Raises `CheckpointError`, which names its owner."""
    try:
        set_state(generator, state)
    except Exception as error:  # of any kind
        kind = type(generator).__name__
        raise CheckpointError(
            f"the checkpoint has no state for the {kind} of {owner}: {error}"
        ) from error


def is_generator(value: Any) -> bool:
    """Whether it is a random generator of torch, Python or NumPy."""
    if isinstance(value, random.SystemRandom):  # it has no state
        return False
    if isinstance(value, (torch.Generator, random.Random)):
        return True
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(
        value, (numpy.random.Generator, numpy.random.RandomState)
    )


def state_of(generator: Any) -> Any:
    """The state of a generator of torch, Python or NumPy, in plain values."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return generator.getstate()
    if hasattr(generator, "bit_generator"):
        return _without_arrays(generator.bit_generator.state)
    return _without_arrays(generator.get_state(legacy=False))


def set_state(generator: Any, state: Any) -> None:
    """Put back what `state_of` told."""
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    elif hasattr(generator, "bit_generator"):
        generator.bit_generator.state = _with_arrays(state)
    else:
        generator.set_state(_with_arrays(state))


def seed(generator: Any, number: int) -> None:
    """Seed a generator of torch, Python or NumPy."""
    if isinstance(generator, torch.Generator):
        generator.manual_seed(number)
    elif hasattr(generator, "bit_generator"):
        generator.bit_generator.state = type(generator.bit_generator)(number).state
    elif isinstance(generator, random.Random):
        generator.seed(number)
    else:
        generator.seed(number % 2**32)


def _without_arrays(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _without_arrays(value) for key, value in state.items()}
    return torch.from_numpy(state.astype("int64")) if hasattr(state, "astype") else state


def _with_arrays(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _with_arrays(value) for key, value in state.items()}
    return state.numpy().astype("uint64") if isinstance(state, torch.Tensor) else state

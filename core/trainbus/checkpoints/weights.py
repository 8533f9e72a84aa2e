"""The weights of a model alone: to a file and back, whole, and without executing what it holds."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainbus.checkpoints import archive, contents, sections
from trainbus.checkpoints.foreign_weights import (
    Loaded,
    Rename,
    in_directory,
    tensors_in,
    unwrapped,
    with_names,
)
from trainbus.errors import CheckpointError
from trainbus.storage.files import make_directory, replacing
from trainbus.storage.untrusted import mapping

logger = logging.getLogger("trainbus")

_SUFFIX = ".safetensors"


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write the weights of a model to one file, whole or not at all.

    Args:
        model: its `state_dict` is written.
        path: `*.safetensors` for that format, any other name for one of torch.

    Raises:
        CheckpointError: it cannot be written.
    """
    path = Path(path)
    try:
        make_directory(path.parent)
        with replacing(path) as beside:
            if path.suffix == _SUFFIX:
                _write_safetensors(beside, model.state_dict())
            else:
                archive.save(archive.plain_tensors(model.state_dict(), path.name), beside)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"cannot write {path}: {error}") from error


def load_weights(
    model: nn.Module,
    path: str | Path,
    *,
    strict: bool = True,
    rename: Rename | None = None,
    prefix: str = "",
) -> Loaded:
    """Read weights into a model: all of them, or none and an error.

    What wrappers put in front of names (`module.`, `model.`, `_orig_mod.`) is left out, or put
    there, where the names of the model are otherwise.

    Args:
        model: every name and shape must be that of the file.
        path: a checkpoint's directory, a file of safetensors, or one of torch, also where the
            weights lie in a mapping inside (a `.ckpt` of Lightning); or a directory of Hugging
            Face, in one file or several. Of a checkpoint those weights are taken with which the
            model was validated: with `ema`, the average.
        strict: with False what fits by name and shape is taken, and the rest is told.
        rename: how names of the file begin, and how instead: `{"backbone.": "encoder."}`; or a
            function of a name that gives another, or None to leave it out.
        prefix: only names that begin so are taken, without it: `"encoder."`.

    Returns:
        What was taken, missing, left over, and of another shape.

    Raises:
        CheckpointError: it is missing, damaged, holds code, or does not fit; the message names
            the keys and shapes that differ. With `strict=False`: nothing fits.
    """
    # Shapes are compared before the numbers are read, which go from the file into the model.
    weights = with_names(read_weights(path, mapped=True), rename, prefix)
    own = model.state_dict()
    if not weights.keys() >= own.keys():
        weights = unwrapped(weights, own)
    weights = _with_tied(model, weights)
    found = _compared(own, weights)
    if strict and not found.is_whole:
        raise CheckpointError("\n  ".join([f"{path} does not fit the model:", *found.problems]))
    if own and not found.taken:
        some = ", ".join(list(weights)[:3]), ", ".join(list(own)[:3])
        raise CheckpointError(
            f"nothing of {path} fits the model: the file has {some[0]}, ...; the model has "
            f"{some[1]}, ..."
        )
    model.load_state_dict({name: weights[name] for name in found.taken}, strict=strict)
    if not found.is_whole:
        logger.warning("weights of %s: %s", path, found)
    return found


def _with_tied(model: nn.Module, weights: dict[str, Any]) -> dict[str, Any]:
    """The weights, with those that the model has under several names and the file under one."""
    names: dict[tuple[Any, ...], list[str]] = {}
    for name, value in _tensors(model.state_dict()):
        if value.numel() and value.data_ptr():
            names.setdefault((value.data_ptr(), value.shape, value.stride()), []).append(name)
    tied = {
        name: weights[known]
        for same in names.values()
        for name in same
        if name not in weights and (known := next((n for n in same if n in weights), None))
    }
    return {**weights, **tied}


def read_weights(path: str | Path, mapped: bool = False) -> dict[str, Any]:
    """The weights of a checkpoint or a file, on the CPU; see `load_weights`.

    With `mapped` the numbers stay in the file until they are looked at.
    """
    path = archive.place(path)
    if not path.exists():
        raise CheckpointError(f"there is no file {str(path)!r}")
    if files := in_directory(path):
        return {name: value for file in files for name, value in _of_file(file, mapped).items()}
    return _of_checkpoint(path, mapped) if path.is_dir() else _of_file(path, mapped)


def _of_file(path: Path, mapped: bool) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"there is no file {str(path)!r}")
    if path.suffix == _SUFFIX:
        return _read_safetensors(path)
    return tensors_in(archive.load(path, str(path), mapped), str(path))


def check_fit(model: nn.Module, weights: Mapping[str, Any], source: str) -> None:
    """Raise `CheckpointError` with the names and shapes that differ."""
    found = _compared(model.state_dict(), weights)
    if not found.is_whole:
        raise CheckpointError("\n  ".join([f"{source} does not fit the model:", *found.problems]))


def _compared(own: Mapping[str, Any], weights: Mapping[str, Any]) -> Loaded:
    here = {name: _form(value) for name, value in own.items()}
    there = {name: _form(value) for name, value in weights.items()}
    both = [name for name in here if name in there]
    return Loaded(
        tuple(name for name in both if here[name] == there[name]),
        tuple(name for name in here if name not in there),
        tuple(name for name in there if name not in here),
        tuple(
            f"{name}: {there[name]} in the file, {here[name]} in the model"
            for name in both
            if here[name] != there[name]
        ),
    )


def _form(value: Any) -> Any:
    """What has to be the same for a value to be copied; of tensors mostly the shape."""
    if not isinstance(value, Tensor):
        return "no tensor"
    shape, kind = tuple(value.shape), value.layout
    return shape if kind is torch.strided and not value.is_quantized else (shape, str(value.dtype))


def _tensors(state: Mapping[str, Any]) -> list[tuple[str, Tensor]]:
    return [(name, value) for name, value in state.items() if isinstance(value, Tensor)]


def _of_checkpoint(path: Path, mapped: bool) -> dict[str, Any]:
    only = ("model", "plugins")
    parts = archive.read(path, only, mapped=mapped)
    contents.check(parts, str(path), only)
    model: dict[str, Any] = parts["model"]
    validated: dict[str, Any] = {}
    for name, section in parts["plugins"].items():
        weights = section.get("weights", {})
        sections.check(weights, mapping(), f"{name}, its weights")
        validated |= {key: value for key, value in weights.items() if isinstance(value, Tensor)}
    # A tensor with two names (tied weights) is in a plugin's section under one of them.
    by_place = {
        model[name].data_ptr(): value
        for name, value in validated.items()
        if isinstance(model.get(name), Tensor) and value.numel()
    }
    return {
        name: by_place.get(value.data_ptr(), value) if isinstance(value, Tensor) else value
        for name, value in model.items()
    }


def _write_safetensors(path: Path, state: Mapping[str, Any]) -> None:
    """Write each tensor once; further names of it go into the metadata, as `save_model` does."""
    safetensors = _safetensors()
    tensors: dict[str, Tensor] = {}
    names: dict[tuple[Any, ...], str] = {}
    metadata = {"format": "pt"}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"{name} is a {type(value).__name__}; a file of safetensors holds tensors only"
            )
        place = (value.data_ptr(), value.shape, value.stride(), value.dtype)
        if value.numel() and place in names:
            metadata[name] = names[place]
            continue
        names[place] = name
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
    try:
        safetensors.save_file(tensors, path, metadata=metadata)
    except OSError:
        raise
    except Exception as error:  # the library has one of its own, also for a full disk
        raise OSError(str(error)) from error


def _read_safetensors(path: Path) -> dict[str, Any]:
    safetensors = _safetensors()
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except Exception as error:  # the library has an exception of its own, and torch others
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    metadata.pop("format", None)
    return weights | {name: weights[kept] for name, kept in metadata.items() if kept in weights}


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError:
        raise CheckpointError(
            "files of safetensors need its package: pip install safetensors"
        ) from None
    return safetensors.torch

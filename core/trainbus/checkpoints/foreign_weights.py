"""Weights as other programs write them: nested, under other names, in several files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from trainbus.errors import CheckpointError, UsageError
from trainbus.storage.untrusted import Unfit, fields, mapping, text

Rename = Mapping[str, str] | Callable[[str], str | None]

#: Under which names other programs keep the tensors, the likeliest first.
INSIDE = ("state_dict", "model_state_dict", "model", "module", "net")
#: What wrappers put in front of names: the task of a run, DataParallel, torch.compile.
WRAPPERS = ("model.", "module.", "_orig_mod.")
#: What torch.compile puts into them, wherever it wrapped a part.
_COMPILED = "_orig_mod."
#: Files of Hugging Face: the list of several files, or the only one.
_LISTS = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SINGLE = ("model.safetensors", "pytorch_model.bin")
_INDEX = fields({"weight_map": mapping(text(200, r"\w[\w.-]*"), key=text())})


@dataclass(frozen=True)
class Loaded:
    """What of a file went into a model, by names.

    Attributes:
        taken: tensors that the model has now.
        missing: tensors that the model has of its own, for the file has none of that name.
        unexpected: tensors of the file that the model has no place for.
        differing: tensors that both have, in two shapes: how, in words.
    """

    taken: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether model and file have the same names and shapes."""
        return not (self.missing or self.unexpected or self.differing)

    @property
    def problems(self) -> list[str]:
        """What differs, a line each."""
        return [
            *(f"only in the model: {name}" for name in self.missing),
            *(f"only in the file: {name}" for name in self.unexpected),
            *self.differing,
        ]

    def __str__(self) -> str:
        lines = [f"{len(self.taken)} tensors taken", *self.problems]
        return "\n  ".join(lines)


def in_directory(path: Path) -> list[Path]:
    """The files of a model of Hugging Face in a directory, or those that an index lists."""
    index = path if path.name in _LISTS else None
    if index is None:
        index = next((path / name for name in _LISTS if (path / name).is_file()), None)
    if index is None:
        single = next((path / name for name in _SINGLE if (path / name).is_file()), None)
        return [] if single is None else [single]
    try:
        content = json.loads(index.read_text("utf-8"))
        _INDEX(content, "it")
    except (OSError, ValueError, RecursionError, Unfit) as error:
        raise CheckpointError(f"{index} is no list of files of weights: {error}") from error
    return [index.parent / name for name in sorted(set(content["weight_map"].values()))]


def tensors_in(content: Any, source: str) -> dict[str, Any]:
    """The weights by name in what a file holds, also where they lie in a mapping inside.

    Raises:
        CheckpointError: there are none.
    """
    inner = content
    for _ in range(3):  # {"model": {"state_dict": {...}}}
        if not isinstance(inner, Mapping) or any(isinstance(v, Tensor) for v in inner.values()):
            break
        inner = next((inner[key] for key in INSIDE if isinstance(inner.get(key), Mapping)), None)
    if isinstance(inner, Mapping) and all(isinstance(name, str) for name in inner):
        return dict(inner)
    held = f"a mapping of {', '.join(map(repr, list(content)[:8]))}" * isinstance(content, Mapping)
    raise CheckpointError(
        f"{source} holds {held or f'a {type(content).__name__}'}, and no weights by name"
    )


def with_names(weights: Mapping[str, Any], rename: Rename | None, prefix: str) -> dict[str, Any]:
    """Weights under the names that a caller gives them.

    Args:
        weights: by name.
        rename: how names begin, and how instead: `{"backbone.": "encoder."}`; or a function of a
            name that gives another, or None to leave it out.
        prefix: of all names only those that begin so are taken, without it.
    """
    if not isinstance(prefix, str):
        raise UsageError(f"load_weights(prefix={prefix!r:.80}): give a text, 'encoder.'")
    found = {
        name.removeprefix(prefix): value
        for name, value in weights.items()
        if name.startswith(prefix)
    }
    if prefix and not found:
        some = ", ".join(list(weights)[:4])
        raise UsageError(f"load_weights(prefix={prefix!r}): the names begin otherwise: {some}, ...")
    if rename is None:
        return found
    change = _by_beginnings(rename) if isinstance(rename, Mapping) else rename
    if not callable(change):
        raise UsageError(
            f"load_weights(rename={rename!r:.80}): give {{'old.': 'new.'}}, or a function of a name"
        )
    names = {name: change(name) for name in found}
    return {new: found[old] for old, new in names.items() if new is not None}


def _by_beginnings(changes: Mapping[str, str]) -> Callable[[str], str]:
    def changed(name: str) -> str:
        for old in sorted(changes, key=len, reverse=True):
            if name.startswith(old):
                return changes[old] + name[len(old) :]
        return name

    return changed


def unwrapped(weights: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Weights under the names that a model has, without what wrappers put in front, or with it.

    Names are changed only where that makes more of them fit.

    Args:
        weights: by the names of a file.
        own: those of the model.
    """

    def fitting(candidate: Mapping[str, Any]) -> int:
        return sum(name in own for name in candidate)

    plain = {name.replace(_COMPILED, ""): value for name, value in weights.items()}
    candidates = [dict(weights), plain]
    shorter: Mapping[str, Any] = plain
    while inside := next((p for p in WRAPPERS if any(n.startswith(p) for n in shorter)), None):
        shorter = {n.removeprefix(inside): v for n, v in shorter.items() if n.startswith(inside)}
        candidates.append(dict(shorter))
    candidates += [{outer + n: v for n, v in plain.items()} for outer in WRAPPERS]
    return max(candidates, key=fitting)  # of equals the first, whose names are nearer

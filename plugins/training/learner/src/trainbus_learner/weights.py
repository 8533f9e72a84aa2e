"""Weights to begin with: what an earlier training left, put into a model as far as it fits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from trainbus import CheckpointError, UsageError
from trainbus.checkpoints import archive, weights as files
from trainbus.checkpoints.foreign_weights import unwrapped
from trainbus_learner import description
from trainbus_learner.description import DESCRIPTION, FILES
from trainbus_learner.errors import ExportError

#: A count that old files do not have, and that nothing depends on.
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class Found:
    """Tensors by name, where they are from, and the classes that they know, if that is said."""

    tensors: Mapping[str, Tensor]
    source: str
    classes: Sequence[Any] | None = None


@dataclass(frozen=True)
class Taken:
    """What of some weights went into a model.

    Attributes:
        source: where they are from.
        taken: names of the tensors that the model has now.
        new: names of those that it has of its own, for nothing fitted.
        unused: names of those that the model has no place for.
        why: why they are new, if that is not for their shape.
    """

    source: str
    taken: Sequence[str]
    new: Sequence[str]
    unused: Sequence[str]
    why: str = ""

    def __str__(self) -> str:
        """In a line."""
        text = f"weights from {self.source}"
        if self.new:
            text += f"; {len(self.new)} tensors of the head are new{self.why}"
        else:
            text += ", the head's too"
        return text + (f"; {len(self.unused)} of the file have no place" if self.unused else "")

    def __repr__(self) -> str:
        lists = {"new": self.new, "unused": self.unused}
        named = (f"{name}: {_some(those)}" for name, those in lists.items() if those)
        return "\n".join([f"{self} ({len(self.taken)} tensors taken)", *named])


def read(path: str | Path) -> Found:
    """The tensors of an export, of a file, of a checkpoint or of a run's newest checkpoint.

    Nothing that they hold is executed.

    Args:
        path: a directory of `Learner.export` in the format "weights"; a file of
            `torch.save(model.state_dict())` or safetensors; a directory of a checkpoint, or of a
            run that kept some.

    Raises:
        UsageError: there is no such thing, or it holds no tensors by name.
    """
    place, classes = Path(path).expanduser(), None
    try:
        if (place / DESCRIPTION).is_file():
            place, classes = _of_export(place)
        elif (place / "checkpoints").is_dir():
            newest = archive.newest_valid(place / "checkpoints")
            if newest is None:
                raise UsageError(f"weights={str(path)!r}: the run has no checkpoint that is whole")
            place = newest
        elif not archive.place(place).exists():
            raise UsageError(f"weights={str(path)!r}: there is no such file or directory")
        found: Any = files.read_weights(place)
    except (CheckpointError, ExportError) as error:
        raise UsageError(
            f"weights={str(path)!r} cannot be read as the tensors of a model: {error}"[:500]
        ) from None
    if not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise UsageError(
            f"weights={str(path)!r} holds no tensors by name; write it with "
            "learner.save(path), learner.export(path) or torch.save(model.state_dict(), path)"
        )
    return Found(found, str(path), classes)


def _of_export(folder: Path) -> tuple[Path, Sequence[Any] | None]:
    """The file of an export, and the classes that it knows."""
    about = description.read(folder)
    if about["kind"] != "weights":
        raise ExportError(
            f"it is an export in the format {about['kind']!r}, a program whose weights have no "
            "names; training goes on from one in the format 'weights'"
        )
    return folder / FILES["weights"], about.get("classes")


def take(
    model: nn.Module,
    found: Found,
    body: Collection[str],
    answers: Collection[str] = (),
    classes: Sequence[Any] | None = None,
    name: str = "",
) -> Taken:
    """Put weights into a model: all of its body, and what fits of the rest.

    Args:
        model: it gets them in place.
        found: see `read`.
        body: names of the tensors that have to fit.
        answers: names of those that hold an output for each class: they are left as they are where
            the classes are others, or stand in another order.
        classes: those of the model, if they have names.
        name: what messages call the model; its class by default.

    Raises:
        UsageError: they are of another architecture; nothing was changed.
    """
    own = model.state_dict()
    given = unwrapped(found.tensors, own)
    wanted = [each for each in body if not each.endswith(_COUNTER)]
    missing = [each for each in wanted if each not in given]
    differ = [each for each in wanted if each in given and given[each].shape != own[each].shape]
    if missing or differ:
        example = missing[0] if missing else _differing(differ[0], given, own)
        raise UsageError(
            f"{found.source} holds weights of another architecture than "
            f"{name or type(model).__name__}: of {len(wanted)} tensors {len(missing)} are missing "
            f"and {len(differ)} have another shape, {example} for example"
        )
    others = None not in (classes, found.classes) and list(classes or ()) != found.classes
    fitting = {
        each: tensor
        for each, tensor in given.items()
        if each in own and own[each].shape == tensor.shape and not (others and each in answers)
    }
    model.load_state_dict(fitting, strict=False)
    new = [each for each in own if each not in fitting and not each.endswith(_COUNTER)]
    unused = [each for each in given if each not in own]
    return Taken(found.source, list(fitting), new, unused, ": its classes are others" * others)


def body_of(model: nn.Module, groups: Sequence[Sequence[nn.Parameter]]) -> list[str]:
    """The names of the tensors before the head: of all groups but the last one.

    With one group the head is the last layer that has parameters.
    """
    head = {id(parameter) for parameter in groups[-1]} if len(groups) > 1 else None
    last = set(last_layer(model))
    found = []
    for path, module in model.named_modules():
        own = dict(module.named_parameters(path, recurse=False))
        names = [*own, *(each for each, _ in module.named_buffers(path, recurse=False))]
        if not own:  # buffers alone: numbers of the data, which may be others
            continue
        in_head = last >= own.keys() if head is None else any(id(p) in head for p in own.values())
        found += [] if in_head else names
    return [name for name in found if name in model.state_dict()]


def last_layer(model: nn.Module) -> list[str]:
    """The names of the parameters of the last layer that has some."""
    layers = [
        [each for each, _ in module.named_parameters(path, recurse=False)]
        for path, module in model.named_modules()
    ]
    return next((names for names in reversed(layers) if names), [])


def _differing(name: str, given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    return f"{name} with {tuple(given[name].shape)} in place of {tuple(own[name].shape)}"


def _some(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")

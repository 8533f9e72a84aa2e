"""Writing a model so that it can be used elsewhere: weights and a description, and no code."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainbus import CheckpointError, save_weights
from trainbus.errors import nearest
from trainbus.storage.files import make_directory, replacing
from trainbus_learner.description import (
    DESCRIPTION,
    FILES,
    FORMAT,
    TENSORS,
    labels_of,
    sha256,
)
from trainbus_learner.errors import ExportError
from trainbus_learner.fitter import Fitter
from trainbus_learner.snapshots import evaluating, kept
from trainbus_learner.task import BytesToFloats, name_of, scales_bytes


def write(learner: Fitter, path: Path, format: str, overwrite: bool) -> Path:
    """See `Learner.export`. It is written beside its place, flushed to the disk and renamed."""
    if format not in FILES:
        raise ExportError(
            f"export(format={format!r}): no such format{nearest(format, FILES)} There are "
            f"{', '.join(FILES)}"
        )
    if path.exists() and not (overwrite and (path / DESCRIPTION).is_file()):
        what = "give another path" if overwrite else "give another path, or overwrite=True"
        raise ExportError(
            f"export: {str(path)!r} exists{'' if not overwrite else ' and is no export'}; {what}"
        )
    if learner.source.batch_transforms:
        names = ", ".join(type(each).__name__ for each in learner.source.batch_transforms)
        raise ExportError(
            f"export: the batch transforms of the data ({names}) are applied outside of the model "
            "and would be missing; make them a part of the model"
        )
    inputs = _example(learner)
    model = copy.deepcopy(learner.model).cpu()
    exported = model if scales_bytes(model) else BytesToFloats(model)
    description = _describe(learner, format, inputs)
    try:
        with replacing(path) as beside:
            make_directory(beside)
            file = beside / FILES[format]
            with evaluating(exported):
                output = exported(*inputs)
                description["outputs"] = [_shape_of(output)]
                if format == "weights":
                    save_weights(model, file)
                else:
                    convert = _program if format == "torch.export" else _onnx
                    names, write_to = _with_dynamic_sizes(convert, exported, inputs)
                    description["dynamic"] = names
                    write_to(file)
            if tensors := getattr(learner.source.recipe, "tensors", dict)():
                from safetensors.torch import save

                (beside / TENSORS).write_bytes(save(tensors))
            description["files"] = {each.name: sha256(each) for each in sorted(beside.iterdir())}
            text = json.dumps(description, indent=2, ensure_ascii=False)
            (beside / DESCRIPTION).write_text(text, "utf-8")
    except (OSError, CheckpointError) as error:
        reason = error.__cause__ or error
        raise ExportError(f"export: cannot write {str(path)!r}: {reason}") from error
    return path


def _example(learner: Fitter) -> tuple[Tensor, ...]:
    """Zeros of the shape of two inputs, on the CPU; the loader stands where it stood.

    An archive of torch.export holds its example: it is to be nothing of the data.
    """
    source = learner.source
    loader = source.train if source.valid is None else source.valid
    batch = loader.first() if hasattr(loader, "first") else _first(loader)
    inputs, _ = source.split(batch)
    if not all(isinstance(each, Tensor) for each in inputs):
        raise ExportError("export: the inputs of the model are not tensors")
    # Two and not one: torch.export takes a size of 1 for a constant.
    return tuple(torch.zeros(2, *each.shape[1:], dtype=each.dtype) for each in inputs)


def _first(loader: Any) -> Any:
    with kept(nn.Identity(), [loader]):
        return next(iter(loader))


def _describe(learner: Fitter, format: str, inputs: tuple[Tensor, ...]) -> dict[str, Any]:
    source, model = learner.source, learner.model
    try:
        recipe = None if source.recipe is None else source.recipe.state()
        if (reader := getattr(source.recipe, "reader", None)) is not None:
            recipe = {"reader": reader, "state": recipe}
        json.dumps(recipe)
    except (TypeError, ValueError) as error:
        raise ExportError(f"export: the recipe of the data cannot be kept: {error}") from error
    packages = ("trainbus", "trainbus-data", "trainbus-learner")
    described = learner.model_description
    return {
        "format": FORMAT,
        "kind": format,
        "what": (
            "A model exported by trainbus-learner. Load it with trainbus_learner.load(directory). "
            f"The file {FILES[format]} alone holds {_needs(format)}. `inputs` are what it takes, "
            "`classes` the meaning of its outputs in their order, `activation` what makes "
            "probabilities of them."
        ),
        "versions": {**{name: version(name) for name in packages}, "torch": str(torch.__version__)},
        "model": {
            "class": f"{type(model).__module__}.{type(model).__qualname__}",
            "scales_bytes": scales_bytes(model),
            **({} if described is None else {"build": dict(described)}),
        },
        "inputs": [
            {
                "kind": kind,
                "shape": ["batch", *each.shape[1:]],
                "dtype": str(each.dtype).removeprefix("torch."),
            }
            for kind, each in zip(_kinds(source.input_kinds, len(inputs)), inputs, strict=True)
        ],
        "classes": labels_of(source.target),
        "activation": _activation(source.target.kind),
        "loss": name_of(learner.loss),
        "recipe": recipe,
        "target": None if recipe is not None else source.target.state(),
    }


def _needs(format: str) -> str:
    return {
        "weights": "the tensors of the model by name (safetensors)",
        "torch.export": "the whole model: torch.export.load(file).module() needs only torch",
        "onnx": "the whole model, for any runtime of ONNX",
    }[format]


def _kinds(kinds: tuple[str, ...], count: int) -> list[str]:
    return [*kinds, *["tensor"] * count][:count]


def _activation(kind: str) -> str:
    return {"category": "softmax", "mask": "softmax", "categories": "sigmoid"}.get(kind, "none")


def _shape_of(output: Any) -> list[Any]:
    if not isinstance(output, Tensor):
        raise ExportError(
            f"export: the model gives a {type(output).__name__}; only models that give one tensor "
            "can be exported"
        )
    return ["batch", *output.shape[1:]]


# --- the formats ---------------------------------------------------------------------------------


#: Writes what a model was made into to a file.
WriteTo = Callable[[Path], object]


def _with_dynamic_sizes(
    convert: Callable[..., WriteTo], model: nn.Module, inputs: tuple[Tensor, ...]
) -> tuple[list[str], WriteTo]:
    """Convert with as many sizes left open as the model allows; returns the names of those.

    Height and width of images are left open where the model takes any; else they are fixed, and
    the batch alone is open. Nothing is written here: what fails is the model's fault.
    """
    images = all(each.ndim == 4 for each in inputs)
    reason: Exception | None = None
    for names in [["batch", "height", "width"], ["batch"]] if images else [["batch"]]:
        try:
            write_to = convert(model, inputs, names)
            _try_sizes(model, inputs, names)
            return names, write_to
        except ExportError:
            raise
        except Exception as error:  # the exporter raises many kinds
            reason = error
    first = next(iter(str(reason).strip().splitlines()), "")
    inner = model.model if isinstance(model, BytesToFloats) else model
    raise ExportError(
        f"export: {type(inner).__name__} cannot be exported as a graph: {type(reason).__name__}: "
        f"{first:.300}. format='weights' works for every model"
    ) from reason


def _try_sizes(model: nn.Module, inputs: tuple[Tensor, ...], names: list[str]) -> None:
    """Other sizes must work in the model itself, else leaving them open promises too much."""
    if "height" in names:
        model(*(each.repeat(1, 1, 1, 2)[..., : each.shape[3] + 2] for each in inputs))


def _program(model: nn.Module, inputs: tuple[Tensor, ...], names: list[str]) -> WriteTo:
    program = torch.export.export(model, inputs, dynamic_shapes=_dynamic(model, inputs, names))
    # In memory first: torch's own writer ends the process on a full disk.
    buffer = BytesIO()
    torch.export.save(program, buffer)
    return lambda file: file.write_bytes(buffer.getbuffer())


def _onnx(model: nn.Module, inputs: tuple[Tensor, ...], names: list[str]) -> WriteTo:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"export(format='onnx') needs {error.name}: pip install 'trainbus-learner[onnx]'"
        ) from error
    program = torch.onnx.export(
        model,
        inputs,
        dynamo=True,
        verbose=False,
        input_names=[f"input_{i}" for i in range(len(inputs))] if len(inputs) > 1 else ["input"],
        output_names=["output"],
        dynamic_shapes=_dynamic(model, inputs, names),
    )
    assert program is not None
    return lambda file: program.save(str(file), external_data=False)


def _dynamic(model: nn.Module, inputs: tuple[Tensor, ...], names: list[str]) -> Any:
    places = {"batch": 0, "height": 2, "width": 3}
    one = {places[name]: torch.export.Dim.DYNAMIC for name in names}
    shapes = tuple(dict(one) for _ in inputs)
    first = next(iter(inspect.signature(model.forward).parameters.values()))
    # What is taken as *inputs is one argument, a tuple.
    return (shapes,) if first.kind is first.VAR_POSITIONAL else shapes

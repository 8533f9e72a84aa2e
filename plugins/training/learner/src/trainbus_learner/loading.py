"""Reading an exported model, without executing anything that it holds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainbus import CheckpointError, load_weights
from trainbus.storage.files import present
from trainbus_learner import archives, description
from trainbus_learner.description import FILES, TENSORS
from trainbus_learner.errors import ExportError
from trainbus_learner.plain import PlainTarget
from trainbus_learner.predictor import Predictor
from trainbus_learner.task import BytesToFloats

#: Where installed distributions name the functions that build their models, and those that make a
#: predictor of items that are not read block by block: (run, state, tensors, about).
BUILDERS, READERS = "trainbus.models", "trainbus.readers"


def load(
    path: str | Path, model: nn.Module | None = None, device: str | torch.device = "cpu"
) -> Predictor:
    """Read what `Learner.export` wrote; the result has `predict` and `predictions`.

    Nothing that the files hold is executed or imported. Weights are put into a model that is given,
    or that is built by a function which an installed distribution offers in the entry point group
    `trainbus.models`; the file only names it.

    Args:
        path: the directory of the export.
        model: of the architecture that was trained, for a format "weights" without a description
            of its model; it gets the weights, in place.
        device: where it is to run; onnx runs where onnxruntime chooses.

    Raises:
        ExportError: it is missing, damaged, foreign, too new, or its model is not known.
    """
    path = present(Path(path))
    about = description.read(path)
    kind = about["kind"]
    file = path / FILES[kind]
    device = torch.device(device)
    if kind == "weights":
        run: Callable[..., Any] = _Module(_with_weights(path, file, about, model), device)
    elif model is not None:
        raise ExportError(f"load(model=...): {path} holds a whole {kind} model; leave it out")
    elif kind == "torch.export":
        run = _Module(_program(file), device)
    else:
        run = _onnx(file)
    if about["recipe"] is None:
        encode, target, recipe = _tensors, PlainTarget.from_state(about["target"]), None
    elif "reader" in about["recipe"]:
        return _by_reader(path, about, run)
    else:
        recipe = _recipe(path, about["recipe"])
        encode, target = partial(_encoded, recipe), recipe.target
    return Predictor(run, encode, target, recipe, about)


class _Module:
    """A module in evaluation mode, on a device."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self.module = module.to(device)
        self.device = device

    def __call__(self, *inputs: Tensor) -> Any:
        with torch.no_grad():
            return self.module(*(each.to(self.device) for each in inputs))


def _with_weights(
    path: Path, file: Path, about: dict[str, Any], model: nn.Module | None
) -> nn.Module:
    if model is None:
        model = _built(path, about["model"])
    try:
        load_weights(model, file)
    except CheckpointError as error:
        raise ExportError(
            f"{path}: the weights are of {about['model']['class']} and do not fit "
            f"{type(model).__name__}: {_short(error)}"
        ) from error
    model.eval()
    return model if about["model"]["scales_bytes"] else BytesToFloats(model).eval()


def _built(path: Path, model: dict[str, Any]) -> nn.Module:
    """The model by its builder, which has to be one that an installed distribution offers."""
    if "build" not in model:
        raise ExportError(
            f"{path} holds the weights of a {model['class']} without a description that it could "
            "be built by; give one to fill: load(path, model=...), or export it as 'torch.export'"
        )
    name, options = model["build"].get("builder"), model["build"].get("options", {})
    offered = list(entry_points(group=BUILDERS))
    found: list[EntryPoint] = [each for each in offered if name in (each.name, each.value)]
    if not found:
        known = ", ".join(each.value for each in offered) or "none"
        raise ExportError(
            f"{path}: its model is built by {name!r}, which no installed distribution offers in "
            f"the entry point group {BUILDERS!r} (offered: {known}). A name in a file is never "
            "imported by itself: install what provides it, or give the model: load(path, model=...)"
        )
    try:
        built = found[0].load()(**options)
    except Exception as error:
        raise ExportError(
            f"{path}: {name} cannot build its model from {options!r:.200}: {_short(error)}"
        ) from error
    if not isinstance(built, nn.Module):
        raise ExportError(f"{path}: {name} gave a {type(built).__name__}, and no torch.nn.Module")
    return built


def _program(file: Path) -> nn.Module:
    archive = archives.checked(file)
    try:
        return torch.export.load(archive).module()
    except Exception as error:
        raise ExportError(f"{file} cannot be read: {_short(error)}") from error


def _onnx(file: Path) -> Callable[..., Tensor]:
    try:
        import onnxruntime  # type: ignore[import-untyped]
    except ImportError as error:
        raise ExportError(
            "load: an onnx model needs onnxruntime: pip install 'trainbus-learner[onnx]'"
        ) from error
    try:
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(f"{file} cannot be read: {_short(error)}") from error
    names = [each.name for each in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        given = {name: each.numpy() for name, each in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, given)[0])

    return run


def _by_reader(path: Path, about: dict[str, Any], run: Callable[..., Any]) -> Predictor:
    """The predictor of an application that reads items in its own way."""
    name = about["recipe"]["reader"]
    found = list(entry_points(group=READERS, name=name))
    if not found:
        known = ", ".join(each.name for each in entry_points(group=READERS)) or "none"
        raise ExportError(
            f"{path}: its items are read by {name!r}, which no installed distribution offers in "
            f"the entry point group {READERS!r} (offered: {known}): install what provides it"
        )
    try:
        tensors = safetensors_in(path / TENSORS) if TENSORS in about["files"] else {}
        made: Predictor = found[0].load()(run, about["recipe"]["state"], tensors, about)
    except Exception as error:
        raise ExportError(
            f"{path}: how its items are read is not known: {_short(error)}"
        ) from error
    return made


def safetensors_in(file: Path) -> dict[str, Tensor]:
    """The tensors of a file, by name."""
    from safetensors.torch import load as loaded

    return loaded(file.read_bytes())


def _recipe(path: Path, state: dict[str, Any]) -> Any:
    from trainbus_data import Recipe

    try:
        return Recipe.from_state(state)
    except Exception as error:
        raise ExportError(f"{path}: how its items are read is not known: {error}") from error


def _encoded(recipe: Any, item: Any) -> tuple[Tensor, ...]:
    encoded = recipe.encode_input(item)
    return encoded if isinstance(encoded, tuple) else (encoded,)


def _tensors(item: Any) -> tuple[Tensor, ...]:
    try:
        return tuple(
            torch.as_tensor(part) for part in (item if isinstance(item, tuple) else (item,))
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise ExportError(
            "this model was trained with plain loaders, and knows tensors only: one input without "
            "the dimension of the batch"
        ) from error


def _short(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]

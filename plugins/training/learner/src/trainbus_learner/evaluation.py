"""Passes over data without training: validation, outputs, test-time augmentation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from trainbus import StopRun, Task, UsageError, hookimpl
from trainbus.arguments import check_number, check_whole
from trainbus.batches import move
from trainbus_learner.fitter import Fitter
from trainbus_learner.predictor import Prediction, Predictor
from trainbus_learner.rehearsal import rehearsing, silence
from trainbus_learner.snapshots import evaluating, kept

if TYPE_CHECKING:
    from trainbus import Run

#: A loader, or the name of a part of the data.
Part = Iterable[Any] | Literal["train", "valid", "test"] | None
Augmenter = Callable[[Sequence[Any], Sequence[str], torch.Generator | None], Sequence[Any]]


def validate(learner: Fitter, loader: Part) -> dict[str, float]:
    """See `Learner.validate`."""
    loader = validation_of(learner, loader, "validate")
    with silence():
        trainer = rehearsing(learner.all_plugins(), learner.options)
        found = trainer.validate(learner.task, loader)
    return {name.removeprefix("valid/"): value for name, value in found.items()}


def validation_of(learner: Fitter, loader: Part, verb: str) -> Iterable[Any]:
    """The loader that was given, or the part of the learner's data that was named.

    Raises:
        UsageError: there is none.
    """
    if loader is None:
        raise UsageError(
            f"{verb}(None): these data have no test part, if that was data.test; without an "
            "argument it is the validation data"
        )
    if not isinstance(loader, str):
        return loader
    if loader not in ("train", "valid", "test"):
        raise UsageError(f"{verb}({loader!r}): give 'valid', 'test', 'train', or a loader")
    if loader == "train":
        return _in_order(learner, verb)
    found: Iterable[Any] | None = getattr(learner.source, loader)
    if found is None and loader == "test":
        raise UsageError(f"{verb}('test'): these data have no test part")
    if found is None:
        raise UsageError(
            f"{verb}: the learner has no validation data; give a loader, {verb}(loader), or a pair "
            "(training loader, validation loader) to the learner"
        )
    return found


def _in_order(learner: Fitter, verb: str) -> Iterable[Any]:
    """The items of training, each once, in their order and without random transforms."""
    data = learner.data
    if data is None:
        raise UsageError(f"{verb}('train'): give the training loader, in an order that stays")
    loader: Iterable[Any] = data.part("train", range(len(data.train_items)))
    return loader


def forward(learner: Fitter, *inputs: Any) -> Any:
    """The outputs for a batch of inputs that is anywhere, after the batch transforms."""
    source = learner.source
    batch = move(inputs, learner.device)
    with evaluating(learner.task):
        for transform in source.batch_transforms:
            batch = tuple(transform(batch, source.input_kinds))
        return learner.task(*batch)


def outputs(
    learner: Fitter, loader: Iterable[Any], step: Callable[[tuple[Any, ...]], Any] | None = None
) -> Iterator[tuple[tuple[Any, ...], Any, Any]]:
    """For each batch its inputs, target and outputs, with every plugin that changes computing.

    Args:
        learner: whose model.
        loader: of (input, ..., target) batches.
        step: gives the outputs for the inputs; by default the model does.
    """
    task = _Watched(learner, step or (lambda inputs: learner.task(*inputs)))
    with silence():
        yield from rehearsing(learner.all_plugins(), learner.options).predict(task, loader)


class _Watched(Task):
    """Gives the batch together with what the model makes of it."""

    def __init__(self, learner: Fitter, step: Callable[[tuple[Any, ...]], Any]) -> None:
        super().__init__()
        self.task = learner.task
        self._split, self._step = learner.source.split, step

    def predict_step(self, batch: Any, run: Run) -> Any:
        """Inputs, target, outputs."""
        inputs, target = self._split(batch)
        return inputs, target, self._step(inputs)


def seen_batch(learner: Fitter, placed: bool = True) -> Any:
    """A training batch: as the model receives it, or as the loader gives it. Nothing moves on."""
    source, plugins = learner.source, learner.all_plugins()
    catch = _Catch(placed)
    with silence(), kept(learner.task, [source.train], plugins):
        rehearsing(plugins, learner.options, catch, dry_run=1, accumulate=1).fit(
            learner.task, source.train
        )
    return catch.batch


class _Catch:
    """Keeps a batch, and ends the run before it is learned from."""

    plugin_name = "learner_catch"

    def __init__(self, placed: bool) -> None:
        self._placed = placed
        self.batch: Any = None

    @hookimpl(tryfirst=True)
    def place_batch(self, run: Run) -> None:
        """Keep what the loader gave; the others place it."""
        self.batch = run.batch

    @hookimpl(trylast=True)
    def on_train_batch_start(self, run: Run) -> None:
        """Keep what the others made of it."""
        if self._placed:
            self.batch = run.batch
        raise StopRun("a batch was wanted")


# --- losses of single samples --------------------------------------------------------------------


def each_loss(loss: Callable[..., Any], output: Tensor, target: Any) -> Tensor:
    """The loss of each sample of a batch (N,), for any loss that gives a mean over the batch."""
    count = len(output)
    unreduced: Callable[..., Any] | None = None
    if isinstance(getattr(loss, "reduction", None), str):
        unreduced = copy.copy(loss)
        unreduced.reduction = "none"  # type: ignore[attr-defined]
    elif getattr(loss, "__module__", "") == "torch.nn.functional":
        unreduced = partial(loss, reduction="none")
    if unreduced is not None:
        values: Tensor = unreduced(output, target)
        if values.ndim and len(values) == count:
            return values.reshape(count, -1).mean(dim=1)
    one = [loss(output[i : i + 1], _row(target, i)) for i in range(count)]
    return torch.stack([value.reshape(()) for value in one])


def _row(target: Any, index: int) -> Any:
    if isinstance(target, Tensor):
        return target[index : index + 1]
    return tuple(part[index : index + 1] for part in target)


# --- test-time augmentation ----------------------------------------------------------------------


def tta(
    learner: Fitter,
    items: Iterable[Any] | Literal["valid"],
    n: int,
    augmenter: Augmenter | None,
    weight: float,
    seed: int,
) -> list[Prediction] | dict[str, float]:
    """See `Learner.tta`."""
    check_whole(1, UsageError, "tta", n=n)
    check_number(0, UsageError, "tta", most=1, weight=weight)
    if items is None or (isinstance(items, str) and items != "valid"):
        raise UsageError(
            f"tta({items!r}): give items to predict, or nothing to measure the validation data"
        )
    kind = learner.source.target.kind
    if getattr(learner.source.target, "in_picture", False):
        raise UsageError(
            f"tta: the target is of the kind {kind!r}, which moves with its image: the mean over "
            "moved images would be of other places. Test-time augmentation is for labels and "
            "numbers"
        )
    augment = augmenter or _of_plugins(learner)
    generator = torch.Generator().manual_seed(seed)
    kinds = learner.source.input_kinds
    if "image" not in kinds:  # loaders do not say what they give
        kinds = ("image", *kinds[1:])

    def look(inputs: tuple[Any, ...]) -> Any:
        unchanged = learner.task(*inputs)
        mean = torch.zeros_like(_probable(kind, unchanged))
        for _ in range(n):
            seen = augment(inputs, kinds, generator)
            mean += _probable(kind, learner.task(*seen)) / n
        return _improbable(kind, torch.lerp(mean, _probable(kind, unchanged), weight))

    if isinstance(items, str):
        return measured(learner, validation_of(learner, "valid", "tta"), look)

    def answer(*inputs: Any) -> Any:
        with evaluating(learner.task):
            return look(tuple(move(inputs, learner.device)))

    source = learner.source
    predictor = Predictor(answer, source.encode, source.target, source.recipe)
    return list(predictor.predictions(items))


def measured(
    learner: Fitter, loader: Iterable[Any], look: Callable[[tuple[Any, ...]], Any]
) -> dict[str, float]:
    """Loss and metrics of a loader's items, where `look` gives the outputs for inputs."""
    with silence(), learner.task.answering(look):
        trainer = rehearsing(learner.all_plugins(), learner.options)
        found = trainer.validate(learner.task, loader)
    return {name.removeprefix("valid/"): value for name, value in found.items()}


def _probable(kind: str, output: Tensor) -> Tensor:
    """Probabilities, whose mean is taken; numbers are what they are."""
    if kind == "category":
        return output.softmax(dim=1)
    return output.sigmoid() if kind == "categories" else output


def _improbable(kind: str, probabilities: Tensor) -> Tensor:
    """Outputs that have these probabilities, for the losses and metrics that take outputs."""
    if kind == "category":
        return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()
    return probabilities.logit(eps=1e-7) if kind == "categories" else probabilities


def _of_plugins(learner: Fitter) -> Augmenter:
    """What the learner's own plugin `augment` does to a batch."""
    for each in learner.plugins:
        found = getattr(each, "augmenter", None)
        if callable(found):
            # What mixes images of a batch would show the model another item.
            alone = [each for each in found.transforms if not getattr(each, "mixes", False)]
            augmenter: Augmenter = type(found)(alone, padding=found.padding)
            return augmenter
    raise UsageError(
        "tta: there is nothing to augment with; give augmenter=, "
        "trainbus_augment.Augmenter(trainbus_augment.standard()) for example, or a plugin that has "
        "an `augmenter`"
    )

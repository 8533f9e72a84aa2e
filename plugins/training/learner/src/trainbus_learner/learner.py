"""Learner: the verbs of training, as a thin layer over Trainer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trainbus import save_weights
from trainbus_data.words import names_checked
from trainbus_learner import (
    baselines,
    defaults,
    evaluation,
    export as exporting,
    interpretation,
    searching,
    show,
)
from trainbus_learner.baselines import Comparison
from trainbus_learner.fitter import Fitter
from trainbus_learner.predictor import Prediction, Predictor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from trainbus_learner.batch_size import BatchSizes
    from trainbus_learner.interpretation import Interpretation
    from trainbus_learner.lr_finder import LearningRates


class Learner(Fitter):
    """Trains a model on data, with what it needs for that chosen by rule, and all of it yours.

    `summary()` says what was chosen and why; the header of a run says it in short. Runs are made
    by a `Trainer`: every plugin works in them, and they go to `run_dir`. Besides what is named,
    `progress` is switched on if it is installed; checkpoints are written if `checkpoint` is named,
    or a fit is called with `resume=`.

    Args:
        data: a `Data` of trainbus_data; or (training loader, validation loader), with `loss`.
        model: called with the inputs of a batch. Inputs in uint8 come as floats in [0, 1], unless
            a module in it does that itself.
        loss: a function of (output, target), or for classes a name, "focal" or "cross_entropy"; by
            default the block of the target has one.
        class_weights: what an error counts, by the class of the target: {label: weight}, or
            "balanced" for the inverse of how often classes occur in training.
        metrics: names, or functions by name; by default the block of the target has some.
        optimizer: makes an optimizer of groups of parameters:
            `functools.partial(torch.optim.SGD, momentum=0.9)`; or the name of an installed one,
            `"muon"` of trainbus-optim. AdamW by default.
        lr: the learning rate of a fit that is given none: a number, a pair (lowest, highest) that
            is spread over the groups, or a list with one for each.
        groups: gives lists of parameters or modules for the model, the body first, the head last.
        pretrained: whether the body knows something that `fine_tune` is to keep.
        weights: of an earlier training, to begin with: see `load_weights`.
        model_description: how an export says which model it is: {"builder": "module:function",
            "options": {...}}; the builder is one that an installed distribution offers in the
            entry point group `trainbus.models`.
        plugins, seed, precision, accelerator, run_dir, trainer: as in `Trainer`.

    Raises:
        UsageError: something of it cannot work; the message says what would.
    """

    # --- trying out ------------------------------------------------------------------------------

    @names_checked()
    def find_lr(
        self,
        start: float = 1e-7,
        stop: float = 10.0,
        steps: int = 100,
        divergence: float = 4.0,
        suggest: str = "median",
    ) -> LearningRates:
        """Try out learning rates (Smith, 2015); everything is as it was before, also on Ctrl-C.

        Args:
            start: the first learning rate; all groups have the same.
            stop: the last one.
            steps: optimizer steps in between, growing by the same factor.
            divergence: ends when the smoothed loss is this many times the best.
            suggest: the rule of the suggestion: "valley", "steepest", "minimum/10", or "median",
                the one of these three that lies between the others.
        """
        return searching.find_lr(self, start, stop, steps, divergence, suggest)

    def find_batch_size(
        self, start: int = 8, maximum: int | None = None, steps: int = 5, gain: float = 1.1
    ) -> BatchSizes:
        """Double the batch until memory is exhausted or speed stops to rise; all is put back.

        Whole training steps are measured, without loading. Take the suggestion with
        `Learner(data.with_batch_size(n), ...)`.

        Args:
            start: the first size.
            maximum: the largest size; by default the samples of the training data, at most 8192.
            steps: measured for each size.
            gain: a size is worth it if it makes this many times the samples per second.
        """
        return searching.find_batch_size(self, start, maximum, steps, gain)

    # --- looking at it -------------------------------------------------------------------------

    def validate(self, loader: evaluation.Part = "valid") -> dict[str, float]:
        """The loss and the metrics on the validation data: {"loss": ...}. Nothing is recorded.

        Args:
            loader: another one, of (input, target) batches; or "test" or "train" for that part.
        """
        return evaluation.validate(self, loader)

    def baselines(
        self,
        loader: evaluation.Part = "valid",
        *,
        names: Sequence[str] | None = None,
        rows: int = 200_000,
    ) -> Comparison:
        """The classical answers beside this one: same split, same loss and metrics, with times.

        The mean or how often classes occur ("constant"), a linear model ("linear"), boosted trees
        for columns ("trees", with scikit-learn), and what installed distributions offer in the
        entry point group `trainbus.baselines`: functions of a `Problem`. They are fitted on the
        training part alone.

        Args:
            loader: what is measured, as in `validate`.
            names: of the baselines; by default all that suit the data.
            rows: at most so many of training are given to them.
        """
        return baselines.compare(self, loader, names, rows, lambda: self.validate(loader))

    def predict(self, item: Any) -> Prediction:
        """Predict one item: a file, an image, or whatever the data were made of.

        With plain loaders it is a tensor: one input without the dimension of the batch. The model
        runs as it is, without plugins.
        """
        return self.predictor().predict(item)

    def predictions(self, items: Iterable[Any], batch_size: int = 64) -> Iterator[Prediction]:
        """Predict a stream of items, in order, a batch at a time."""
        return self.predictor().predictions(items, batch_size)

    def predictor(self) -> Predictor:
        """What `predict` asks; it goes on with the present weights."""
        forward = partial(evaluation.forward, self)
        source = self.source
        later = bool(source.batch_transforms)
        return Predictor(forward, source.encode, source.target, source.recipe, moved_later=later)

    def tta(
        self,
        items: Iterable[Any] | Literal["valid"] = "valid",
        *,
        n: int = 4,
        augmenter: evaluation.Augmenter | None = None,
        weight: float = 0.25,
        seed: int = 0,
    ) -> Any:
        """Predict with test-time augmentation: the mean over `n` augmented looks and the plain one.

        Args:
            items: predict these, a list of `Prediction`; "valid" evaluates the validation
                data, a dictionary as `validate` gives it.
            n: augmented looks at each input.
            augmenter: called with (inputs, kinds, generator), gives the inputs augmented:
                `trainbus_augment.Augmenter(standard())`; by default the plugin `augment` has it.
            weight: of the plain look, out of 1 (0.25 as in fastai).
            seed: of the generator.
        """
        return evaluation.tta(self, items, n, augmenter, weight, seed)

    def show_batch(self, count: int = 9) -> Figure:
        """A training batch as the model receives it, augmented."""
        return show.batch(self, count)

    def show_results(self, count: int = 9) -> Figure:
        """Validation items from all over the data, with targets and what is predicted for them."""
        return show.results(self, count)

    def interpret(self, loader: evaluation.Part = "valid", worst: int = 36) -> Interpretation:
        """What the model gets wrong in the validation data.

        Args:
            loader: another one, of (input, target) batches; or "test" or "train" for that part.
            worst: how many items with the greatest losses are kept with their inputs.
        """
        return interpretation.interpret(self, loader, worst)

    def summary(self) -> str:
        """The model, its groups, and what was chosen and why."""
        lines = [f"{type(self.model).__name__}: {defaults.counted(self.model.parameters())}"]
        rates = self.groups.rates(self.lr)
        for name, rate, group in zip(self.groups.names, rates, self.groups.groups, strict=True):
            lines.append(f"  {name}: {defaults.counted(group)}, learning rate {rate:.3g}")
        width = max(map(len, self.choices))
        lines += [f"{topic:<{width}}  {text}" for topic, text in self.choices.items()]
        plugins = [each if isinstance(each, str) else type(each).__name__ for each in self.plugins]
        lines.append(f"{'plugins':<{width}}  {', '.join(plugins) or 'none named'}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        parts = "" if self.data is None else f", train {len(self.data.train_items)}"
        parts += "" if self.data is None else f", valid {len(self.data.valid_items)}"
        target = self.source.target
        of = getattr(target, "vocab", None)
        wanted = f"{type(target).__name__} of {len(of)}" if of else type(target).__name__
        count = defaults.counted(self.model.parameters())
        return f"{type(self).__name__}({self.task.run_name}, {count}, {wanted}{parts})"

    # --- to keep -------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write the weights of the model to one file, which `load_weights` and `weights=` take.

        What predicts without the data is written by `export`; what goes on where a run was, by
        `fit(..., resume=)`.

        Args:
            path: `*.safetensors` for that format, any other name for one of torch. What is there
                is replaced, whole or not at all.

        Raises:
            CheckpointError: it cannot be written.
        """
        path = Path(path)
        save_weights(self.model, path)
        return path

    def export(
        self,
        path: str | Path,
        format: Literal["weights", "torch.export", "onnx"] = "weights",
        overwrite: bool = False,
    ) -> Path:
        """Write the model to a directory that `load` reads: no pickle of it, and no code.

        Args:
            path: the directory to make.
            format: "weights" (safetensors; the model is built again by `model_description`, or
                given to `load`), "torch.export" (needs only torch to run) or "onnx".
            overwrite: replace an export that is there.

        Raises:
            ExportError: the path is taken, or the model cannot be exported so.
        """
        return exporting.write(self, Path(path), format, overwrite)

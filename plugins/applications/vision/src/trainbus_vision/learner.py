"""ImageLearner: a learner whose model is made for the images and the target of its data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from trainbus import UsageError
from trainbus.plugins.selection import name_of
from trainbus_learner import Learner, Taken, defaults
from trainbus_learner.description import labels_of
from trainbus_vision import gradcam
from trainbus_vision.model import ImageModel, groups, image_model
from trainbus_vision.normalize import channel_stats

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Images below this height or width are not augmented unless `augment` says so.
_SMALLEST_AUGMENTED = 64
#: The highest rate of a cycle that trains from scratch a network with batch norm.
_SCRATCH_LR = 3e-3


class ImageLearner(Learner):
    """Classifies images, labels their pixels, or finds numbers or points in them.

    The target of the data says which: a category or several, numbers, points; or a mask, for which
    the model is a U-Net. `summary()` says what was chosen, and why.

    Args:
        data: a `Data` of trainbus_data whose input is an image: `mnist(...)`, `image_folder(...)`.
        arch: a network of torchvision or timm by name, "small_cnn", or a module; see `image_model`.
        pretrained: start with pretrained weights. None for: if images have at least 64 pixels and
            the weights are at hand or can be fetched.
        weights: a file with pretrained weights, in place of what the library provides; or what a
            learner trained: an export, a file of weights or a checkpoint, as in `load_weights`.
        augment: True for `trainbus_augment.standard()`, a list of its transforms, or False. None
            for: the standard ones for images of at least 64 pixels, none for smaller ones, of which
            some (digits, letters) must not be mirrored. Points are not mirrored: left would be
            right.
        head: a module in place of the usual head; "new" and "whole" for a module as `arch`.
        dropout: of the head.
        lr: the learning rate; by default 3e-3 where a network with batch norm begins from scratch,
            else as in `Learner`.
        plugins: as in `Learner`.
        options: of `Learner`: loss, metrics, optimizer, seed, precision, run_dir, ...

    Raises:
        UsageError: something of it cannot work; says what would.
    """

    def __init__(
        self,
        data: Any,
        arch: str | nn.Module = "resnet18",
        *,
        pretrained: bool | None = None,
        weights: str | Path | None = None,
        augment: bool | Sequence[Any] | None = None,
        head: nn.Module | Literal["new", "whole"] | None = None,
        dropout: float | None = None,
        lr: Any = None,
        plugins: Sequence[str | object] = (),
        **options: Any,
    ) -> None:
        images = images_of(data)
        channels, size = images.shape[1], (images.shape[2], images.shape[3])
        if data.target.outputs is None:
            raise UsageError(
                f"{data.target!r} does not say how many outputs it needs; ImageLearner makes "
                "models for categories, numbers, points and masks. Give another target, or a model "
                "of your own to trainbus_learner.Learner"
            )
        with seeded(options.get("seed")):
            model = image_model(
                arch,
                data.target.outputs,
                channels,
                size,
                pixels=data.target.kind == "mask",
                pretrained=pretrained,
                weights=weights,
                stats=channel_stats([images]),
                head=head,
                dropout=dropout,
                classes=labels_of(data.target),
            )
        mirror = getattr(data.target, "flip_pairs", ()) is not None
        augmentation, about = augmentation_for(augment, size, plugins, data.target.kind, mirror)
        usual = lr is None and not model.pretrained and _has_batch_norm(model)
        description = model.description
        super().__init__(
            data,
            model,
            lr=_SCRATCH_LR if usual else lr,
            groups=groups,
            pretrained=model.pretrained,
            model_description=None
            if description is None
            else {"builder": "trainbus_vision.model:rebuild", "options": description},
            plugins=[*augmentation, *plugins],
            **options,
        )
        self._arch = arch if isinstance(arch, str) else type(arch).__name__
        self.task.run_name = defaults.title(self.arch, data)
        self.choices = {**self._about(model, images, about), **self.choices}
        self._lr_of_scratch = usual
        if usual:
            self.choices["learning rate"] = (
                f"{_SCRATCH_LR:g} (usual for a network with batch norm that begins from scratch)"
            )

    @property
    def arch(self) -> str:
        """The name of the network."""
        return self._arch

    def gradcam(self, item: Any, label: Any = None) -> gradcam.Heat:
        """Where an image speaks for a label: by default for the most probable one.

        Args:
            item: a file, an image, or whatever the data were made of.
            label: another one; of numbers the index of one.

        Raises:
            UsageError: the target is a mask or points, or the model has no maps.
        """
        return gradcam.heats_of(self, [item], 1, label)[0][0]

    def show_gradcam(self, of: Any = None, count: int = 4, label: Any = None) -> Figure:
        """Images with what speaks for a label in red: of items, or of the worst.

        Args:
            of: an item, a list of items, or what `interpret` gave, of which the worst are shown;
                by default those of the validation data.
            count: at most so many.
            label: for all; by default the most probable one of each.
        """
        of = self.interpret(worst=count) if of is None else of
        return gradcam.draw(self, *gradcam.heats_of(self, of, count, label))

    def _begin_from(self, taken: Taken) -> None:
        """The rate of a network that begins from scratch is that of this one no more."""
        super()._begin_from(taken)
        self.model.pretrained = True
        if self._lr_of_scratch:
            self._lr_of_scratch = False
            self.lr, self._lr_given = defaults.LR, None
            self.choices["learning rate"] = f"{defaults.LR:g} ({defaults.USUAL})"

    def _about(self, model: ImageModel, images: Tensor, augmentation: str) -> dict[str, str]:
        """What was chosen for the images, by topic."""
        known = "ImageNet" if model.pretrained else "the data"
        return {
            "network": self._network(images),
            "weights": model.why,
            "normalization": f"{model.normalize} (of {known})",
            "augmentation": augmentation,
        }

    def _network(self, images: Tensor) -> str:
        target = self.source.target
        network = f"{self.arch} as a U-Net" if target.kind == "mask" else self.arch
        size = " x ".join(map(str, images.shape[1:]))
        white = self.source.recipe.input.options().get("white")
        pixels = f"0..1, white is {white:g}" if white else "0..1"
        pixels = "bytes" if images.dtype == torch.uint8 else pixels
        return f"{network} for {size} in {pixels}, {target.outputs} outputs"

    def _about_data(self) -> dict[str, str]:
        """The size of the images, which may be another one."""
        return {"network": self._network(images_of(self.data))}

    def _header(self, schedule: str) -> dict[str, str]:
        """As of any learner, and the network; `summary` has the reasons."""
        begins = "pretrained" if self.pretrained else "trained from scratch"
        return {
            "network": f"{self.choices['network']}, {begins}",
            **super()._header(schedule),
        }


def images_of(data: Any) -> Tensor:
    """The images of a training batch, as the model gets them."""
    recipe = getattr(data, "recipe", None)
    if recipe is None:
        raise UsageError(
            f"ImageLearner(data={type(data).__name__}): give a Data, which knows what its images "
            "and targets are: mnist('data'), image_folder('photos'), or one of trainbus_data; for "
            "your own loaders there is trainbus_learner.Learner"
        )
    if recipe.kinds[0] != "image" or recipe.inputs != 1:
        raise UsageError(
            f"ImageLearner needs data with an image as the one input; these have "
            f"{', '.join(recipe.kinds[: recipe.inputs])}"
        )
    images: Tensor = data.one_batch("train")[0]
    return images


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Weights of chance by the seed of the learner; the generator is left as it was."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def augmentation_for(
    augment: bool | Sequence[Any] | None,
    size: tuple[int, int],
    plugins: Sequence[str | object],
    kind: str,
    mirror: bool = True,
) -> tuple[list[Any], str]:
    """The plugin that augments, if any, and what to say of it.

    Args:
        augment: what was asked for.
        size: height and width of the images.
        plugins: those of the learner.
        kind: of the target.
        mirror: whether a mirrored target is one still.
    """
    named = "augment" in map(name_of, plugins)
    if named:
        if augment is not None:
            raise UsageError("give augment=, or the plugin augment; here are both")
        return [], "by the plugin named"
    if augment is False:
        return [], "none: augment=False"
    if augment is None and min(size) < _SMALLEST_AUGMENTED:
        return [], (
            f"none: images of {size[0]} x {size[1]} pixels are smaller than {_SMALLEST_AUGMENTED}; "
            "augment=True augments them"
        )
    from trainbus_augment import Augment, standard

    if augment is None or augment is True:
        why = "" if augment else f"; photos of {size[0]} x {size[1]}: augment=False for none"
        what = "mirror, turn, enlarge, tilt, light"
        if kind == "boxes":
            said = "mirror, enlarge, light; nothing is turned, for boxes would grow with it"
            return [Augment(standard(rotate=0, warp=0))], f"the one for boxes: {said}{why}"
        if not mirror:
            what = (
                "turn, enlarge, tilt, light, and no mirror, which would make a left point a right "
                "one: Points(flip_pairs=[(0, 1)]) says which are exchanged"
            )
        return [Augment(standard(flip=mirror))], f"the standard one: {what}{why}"
    if not isinstance(augment, Sequence) or isinstance(augment, str):
        raise UsageError(
            f"augment={augment!r:.60}: give True, False, or a list of transforms of "
            "trainbus_augment"
        )
    transforms = list(augment)
    return [Augment(transforms)], ", ".join(map(repr, transforms))[:200]


def _has_batch_norm(model: ImageModel) -> bool:
    return any(isinstance(module, nn.BatchNorm2d) for module in model.modules())

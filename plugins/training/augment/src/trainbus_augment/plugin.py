"""The plugin: augments each training batch, with random numbers that a checkpoint keeps."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from trainbus import PluginError, UsageError, hookimpl
from trainbus_augment import kinds as parts_of

if TYPE_CHECKING:
    import torch

    from trainbus import Run
    from trainbus_augment.transforms import Transform

logger = logging.getLogger("trainbus")


class Augment:
    """Augment each batch of training on the device it is on; validation is left alone.

    Args:
        transforms: in order, in place of the options that make them. Without it the options make
            them in this order: flips to lighting and `size` (see `standard`), `policy`, `erase`,
            `mixup`, `cutmix`, `smoothing`.

    One image at a time, where it is and how it looks:
        flip: mirror left and right: true for half of the images, or a probability.
        vertical: the same for top and bottom.
        rotate: the largest angle in degrees.
        zoom: the largest factor; 1 for none.
        warp: the largest tilt.
        lighting: the largest change of brightness and of contrast.
        size: resize to this, height and width or one number for both.
        min_scale: the least part of the area that a random crop to `size` keeps.
        policy: "randaugment", "trivialaugment" or "autoaugment", after the others.
        padding: what is outside of an image.

    The finished images and their targets:
        erase: the probability of erasing a part of an image.
        mixup: alpha of MixUp (0.4, for example); 0 for none.
        cutmix: alpha of CutMix (1.0, for example); 0 for none. With both, each image gets
            each with a probability of one half.
        smoothing: of the labels, 0.1 for example.
        classes: how many there are: mixed and smoothed targets are probabilities. By default as
            many as the data say.

    The batches and the random numbers:
        kinds: what the parts of a batch are: a list, or for batches that are mappings or
            dataclasses a table. By default the `kinds` of the training loader; without them an
            image and a category.
        flip_pairs: points that are each other's left and right, [[0, 1]] for two eyes; by default
            those that the data name. Where nobody names any, not even none ([]), the options
            mirror no points: a left eye would be called right.
        seed: by default drawn from torch's generator when a fit begins.
    """

    def __init__(
        self,
        transforms: Sequence[Any] | None = None,
        flip: bool | float = True,
        vertical: bool | float = False,
        rotate: float = 10.0,
        zoom: float = 1.1,
        warp: float = 0.2,
        lighting: float = 0.2,
        size: int | tuple[int, int] | None = None,
        min_scale: float = 1.0,
        policy: Literal["randaugment", "trivialaugment", "autoaugment"] | None = None,
        erase: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        smoothing: float = 0.0,
        classes: int | None = None,
        padding: Literal["reflection", "border", "zeros"] = "reflection",
        kinds: list[str] | tuple[str, ...] | dict[str, str] | None = None,
        flip_pairs: list[list[int]] | None = None,
        seed: int | None = None,
    ) -> None:
        # Torch is imported with the transforms: here, and not with the module.
        from trainbus_augment.augmenter import Augmenter
        from trainbus_augment.presets import mixing, policy_named, standard

        shaped = {
            "flip": flip, "vertical": vertical, "rotate": rotate, "zoom": zoom, "warp": warp,
            "lighting": lighting, "size": size, "min_scale": min_scale,
        }  # fmt: skip
        more = {"policy": policy, "erase": erase, "mixup": mixup, "cutmix": cutmix,
                "smoothing": smoothing, "classes": classes}  # fmt: skip
        try:
            if transforms is None:
                made: list[Transform] = standard(**shaped)  # type: ignore[arg-type]
                made += policy_named(policy) if policy else []
                made += mixing(erase, mixup, cutmix, smoothing, classes)
            else:
                _refuse_both(shaped | more)
                made = list(transforms)
            if kinds is not None:
                parts_of.check_kinds(list(kinds.values() if isinstance(kinds, dict) else kinds))
            self.augmenter = Augmenter(made, padding, flip_pairs or ())
        except UsageError as error:
            raise PluginError(str(error)) from error
        #: As it was given; `augmenter` is it with what the data say.
        self._given, self._by_options = self.augmenter, transforms is None
        self._loader: Any = None
        self.kinds = kinds
        self.flip_pairs = flip_pairs
        self.seed = seed
        self.generator: torch.Generator | None = None

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """What is done, in order."""
        return self.augmenter.transforms

    @hookimpl
    def on_run_start(self, run: Run) -> None:
        """Tell what is done, and stay out of the way where that is nothing."""
        names = [type(each).__name__ for each in self.transforms]
        if run.stage == "train":
            run.header["augment"] = ", ".join(names) or "nothing"
        if not names:
            run.bus.pause(run.bus.name_of(self), "on_train_batch_start")

    @hookimpl
    def on_fit_start(self, run: Run) -> None:
        """Begin the random numbers, other ones in each process of a run."""
        import torch

        seed = self.seed
        if seed is None:
            seed = int(torch.randint(2**62, ()))
        self.generator = torch.Generator().manual_seed((seed + run.rank) % 2**63)

    # A plugin that converts batches is to convert what comes out.
    @hookimpl(before=["amp"])
    def on_train_batch_start(self, run: Run) -> None:
        """Augment the batch."""
        batch = run.batch
        parts = parts_of.leaves(batch)
        if isinstance(self.kinds, dict):
            kinds = parts_of.kinds_of(batch, self.kinds)
        else:
            kinds = list(self.kinds or _kinds_of_loader(run.loader) or parts_of.guessed(batch))
        if run.loader is not self._loader:
            self._fit_to(run.loader, kinds)
        run.batch = parts_of.rebuilt(batch, self.augmenter(parts, kinds, self.generator))

    def _fit_to(self, loader: Any, kinds: Sequence[str]) -> None:
        """Take from the blocks of the data what was not said: classes, and pairs of points."""
        from trainbus.batches import innermost

        self._loader = loader
        classes, pairs = None, self.flip_pairs
        for block in getattr(innermost(loader), "blocks", ()):
            if block.kind == "category":
                classes = block.outputs
            elif block.kind == "points" and pairs is None:
                pairs = block.flip_pairs
        mirror = not (self._by_options and "points" in kinds and pairs is None)
        self.augmenter = self._given.fitted(classes, pairs, mirror)
        if len(self.transforms) < len(self._given.transforms):
            logger.warning(
                "points are not mirrored: left would be called right; flip_pairs=[[0, 1]] of the "
                "points (or of the plugin augment) says which are exchanged, flip_pairs=[] that "
                "none are"
            )

    def state_dict(self) -> dict[str, Any]:
        """The state of the random numbers."""
        return {"generator": None if self.generator is None else self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the saved random numbers."""
        import torch

        if state["generator"] is not None:
            self.generator = torch.Generator()
            self.generator.set_state(state["generator"])


def _refuse_both(options: dict[str, Any]) -> None:
    """Transforms, and options that would make others, contradict each other."""
    import inspect

    parameters = inspect.signature(Augment).parameters
    for name, value in options.items():
        if value != parameters[name].default:
            raise UsageError(
                f"transforms and {name}={value!r} are both given: with transforms put it into the "
                "list, as in [*standard(), MixUp(0.4, classes=10)]"
            )


def _kinds_of_loader(loader: Any) -> list[str] | None:
    """The kinds that a loader, or the one that it wraps, has; what is unknown here is "other"."""
    from trainbus.batches import innermost  # it imports torch

    kinds = getattr(innermost(loader), "kinds", None)
    if not isinstance(kinds, Iterable) or isinstance(kinds, str):
        return None
    return [kind if kind in parts_of.KINDS else "other" for kind in kinds] or None

"""DetectionLearner: a learner that finds things in images, with a box and a label for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trainbus import UsageError
from trainbus_learner import Learner, Taken, weights as starting_weights
from trainbus_learner.task import LearnerTask
from trainbus_vision.boxes import Detections
from trainbus_vision.detectors import Detector, detector, groups, take
from trainbus_vision.learner import augmentation_for, images_of, seeded

if TYPE_CHECKING:
    from trainbus import Run
    from trainbus_data import Data

Size = int | Sequence[int]
_LOSS = "the detector's own: of classes and places"


def detection(
    images: Sequence[Any],
    boxes: Sequence[Any] | Callable[[Any], Any],
    labels: Sequence[Any] | Callable[[Any], Any],
    size: Size | None = 320,
    vocab: Sequence[Any] | None = None,
    **options: Any,
) -> Data:
    """Images, each with any number of boxes and a label for each of them.

    Args:
        images: paths, arrays, PIL images.
        boxes: for each image K x 4 numbers, (x1, y1, x2, y2) in pixels of the image as it is
            given; or a function of an image. An image without any has an empty list.
        labels: for each image K labels, in the order of its boxes; or a function of an image.
        size: height and width that images are brought to, filled with black where their
            proportions are others, so that no box is cut off; boxes follow.
        vocab: all labels; by default those of the training part.
        options: of `trainbus_data.DataBlock.data`: batch_size, num_workers, memory, ...; `split`
            and `item_transforms` as in `trainbus_data.Data.from_lists`.

    Raises:
        UsageError: the lists have different lengths.
    """
    from trainbus_data import DataBlock, Labels
    from trainbus_vision.geometry import Boxes
    from trainbus_vision.images import Image
    from trainbus_vision.transforms import Resize

    columns = [
        [each(image) for image in images] if callable(each) else each for each in (boxes, labels)
    ]
    if not len(images) == len(columns[0]) == len(columns[1]):
        raise UsageError(
            f"{len(images)} images, boxes for {len(columns[0])} and labels for {len(columns[1])}; "
            "give a list of each for every image, an empty one where there is nothing"
        )
    transforms = [*options.pop("item_transforms", ())]
    block = DataBlock(
        options.pop("blocks", (Image(), Boxes(), Labels(vocab))),
        split=options.pop("split", None),
        input=itemgetter(0),
        label=[itemgetter(1), itemgetter(2)],
        item_transforms=[*transforms, *([] if size is None else [Resize(size, "pad")])],
    )
    return block.data(list(zip(images, *columns, strict=True)), **options)


class DetectionTask(LearnerTask):
    """A detector, which has its own loss."""

    def training_step(self, batch: Any, run: Run) -> Tensor:
        """The sum of the detector's losses, logged as `loss`."""
        (images,), target = self.source.split(batch)
        loss = self._own_loss(images, target)
        run.log(loss=loss)
        return loss

    def validation_step(self, batch: Any, run: Run) -> Any:
        """The boxes found; the loss and the metrics are logged."""
        (images,), target = self.source.split(batch)
        output = self.forward(images)
        run.log(loss=self._own_loss(images, target))
        for name in self.metrics:
            self.log_metric(name, output, target, run)
        return output

    def _own_loss(self, images: Tensor, target: Tensor) -> Tensor:
        losses = self.model.losses(self.in_models_type(images), target)
        return torch.stack([*losses.values()]).sum()


class DetectionLearner(Learner):
    """Finds things in images: a box, a label and a score for each; its verbs are a learner's.

    A target is boxes with labels: `detection(images, boxes, labels)`, or blocks
    `(Image(), Boxes(), Labels())`. `validate` gives the mean average precision of COCO (`map`, and
    `map_50` at an IoU of 0.5), `predict` boxes in pixels of the photo, and `interpret` the images
    with the most mistakes.

    Args:
        data: a `Data` of trainbus_data whose items are an image, boxes and labels.
        arch: a detector of torchvision by name, "small_fcos" for small images and a start from
            scratch, or a module as torchvision has them.
        pretrained: begin with the weights that torchvision publishes; None for: where images have
            at least 64 pixels and the weights are at hand or can be fetched.
        weights: a file with such weights; or what a learner trained, as in `load_weights`.
        augment: True, a list of transforms of trainbus_augment, or False. None for: mirrored,
            enlarged and in another light, from 64 pixels on. Nothing is turned or tilted, which
            makes boxes larger than what is in them.
        lr, plugins: as in `Learner`.
        options: of `Learner`: metrics, optimizer, seed, run_dir, ...

    Raises:
        UsageError: something of it cannot work; says what would.
    """

    task: DetectionTask
    model: Detector
    _task_class = DetectionTask

    def __init__(
        self,
        data: Any,
        arch: str | nn.Module = "fasterrcnn_mobilenet_v3_large_fpn",
        *,
        pretrained: bool | None = None,
        weights: str | Path | None = None,
        augment: bool | Sequence[Any] | None = None,
        plugins: Sequence[str | object] = (),
        **options: Any,
    ) -> None:
        if "loss" in options or "class_weights" in options:
            raise UsageError("DetectionLearner(loss=...): a detector has its own; leave it out")
        images = images_of(data)
        if not isinstance(data.target, Detections):
            raise UsageError(
                f"DetectionLearner needs boxes with labels as its target; these data have "
                f"{', '.join(data.kinds[1:])}. detection(images, boxes, labels) makes them, or "
                "blocks=(Image(), Boxes(), Labels())"
            )
        classes, size = data.target.vocab, (images.shape[2], images.shape[3])
        with seeded(options.get("seed")):
            model = detector(arch, classes, images.shape[1], size, pretrained, weights)
        augmentation, about = augmentation_for(augment, size, plugins, "boxes")
        described = model.description
        super().__init__(
            data,
            model,
            groups=groups,
            pretrained=model.pretrained,
            model_description=None
            if described is None
            else {"builder": "trainbus_vision.detectors:rebuild", "options": described},
            plugins=[*augmentation, *plugins],
            **options,
        )
        self.arch = arch if isinstance(arch, str) else type(arch).__name__
        self.choices = {
            **self._about_data(), "weights": model.why, "augmentation": about, **self.choices,
        }  # fmt: skip

    def _choose_measures(self) -> None:
        super()._choose_measures()
        self.choices["loss"] = _LOSS

    def _taken_from(self, found: starting_weights.Found) -> Taken:
        return take(self.model, found, self.source.target.vocab)

    def _about_data(self) -> dict[str, str]:
        shape = " x ".join(map(str, images_of(self.data).shape[1:]))
        return {"network": f"{self.arch} for {shape}, {len(self.source.target.vocab)} labels"}

    def _header(self, schedule: str) -> dict[str, str]:
        begins = "pretrained" if self.pretrained else "trained from scratch"
        return {
            "network": f"{self.choices['network']}, {begins}",
            **super()._header(schedule),
        }

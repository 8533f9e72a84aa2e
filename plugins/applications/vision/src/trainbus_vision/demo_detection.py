"""`trainbus demo detection`: a detector learns to find shapes in noise, and leaves its pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image as Pillow, ImageDraw

from trainbus.storage.files import replacing, shown
from trainbus_data import Data, splits
from trainbus_learner import load
from trainbus_vision.detection_learner import DetectionLearner, detection

#: What there is to be found.
SHAPES = ("circle", "square", "triangle")


def scene(draw: np.random.Generator, side: int = 64) -> tuple[Any, list[list[float]], list[str]]:
    """An image of noise with one to three shapes that do not overlap: image, boxes, labels."""
    image = Pillow.fromarray(draw.integers(60, 120, (side, side, 3), dtype=np.uint8))
    pen, boxes, labels = ImageDraw.Draw(image), [], []
    for _ in range(draw.integers(1, 4)):
        size = int(draw.integers(side // 6, side // 3))
        left, top = (int(place) for place in draw.integers(0, side - size, 2))
        box = [left, top, left + size, top + size]
        if any(_overlap(box, other) for other in boxes):
            continue
        label = SHAPES[draw.integers(len(SHAPES))]
        color = tuple(int(part) for part in draw.integers(130, 256, 3))
        _shape(pen, label, box, color)
        boxes.append(box)
        labels.append(label)
    return image, boxes, labels


def _overlap(one: list[int], other: list[int]) -> bool:
    apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    return not apart


def _shape(pen: Any, label: str, box: list[int], color: tuple[int, ...]) -> None:
    left, top, right, bottom = box[0], box[1], box[2] - 1, box[3] - 1  # the last pixel is in it
    if label == "circle":
        pen.ellipse((left, top, right, bottom), fill=color)
    elif label == "square":
        pen.rectangle((left, top, right, bottom), fill=color)
    else:
        pen.polygon([((left + right) / 2, top), (left, bottom), (right, bottom)], fill=color)


def shapes(count: int = 240, seed: int = 0, **options: Any) -> Data:
    """Images with shapes, of which the last fifth is for validation.

    Args:
        count: images.
        seed: of what is on them.
        options: of `detection`.
    """
    draw = np.random.default_rng(seed)
    images, boxes, labels = zip(*(scene(draw) for _ in range(count)), strict=True)
    options.setdefault("split", splits.by_index(range(count - count // 5, count)))
    return detection(
        images, boxes, labels, size=64, vocab=SHAPES, **{"memory": True, "num_workers": 0} | options
    )


def train(run_dir: str, seed: int, epochs: int = 8) -> None:
    """Train a small detector, look at what it finds, export it, and predict with that."""
    data = shapes(seed=seed)
    learner = DetectionLearner(data, "small_fcos", seed=seed, run_dir=run_dir)
    run = learner.fit_one_cycle(epochs, lr=5e-3)
    found = learner.interpret()
    print(found.report())
    pictures = {
        "batch": learner.show_batch(),
        "results": learner.show_results(),
        "worst": found.plot_worst(4),
    }
    for name, figure in pictures.items():
        with replacing(run.dir / f"{name}.png") as beside:
            figure.savefig(beside, dpi=120, format="png")
    exported = learner.export(run.dir / "export")
    image, _, _ = scene(np.random.default_rng(seed + 1))
    measured = learner.validate()
    print(f"mAP {measured['map']:.1%}, at an IoU of 0.5 {measured['map_50']:.1%}")
    print(f"loaded again from {exported}: {load(exported).predict(image)}")
    print(f"look at {shown(run.dir)}: {', '.join(f'{name}.png' for name in pictures)}")

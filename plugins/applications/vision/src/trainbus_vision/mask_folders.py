"""Where the masks of images are: in a folder like theirs, or in the usual folders beside them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trainbus import UsageError
from trainbus_data.splits import STAGES

logger = logging.getLogger("trainbus")
#: What folders of images are called that have masks beside them, and those of masks.
_IMAGES = ("images", "image", "imgs", "img", "jpegimages", "leftimg8bit")
_MASKS = ("masks", "mask", "labels", "annotations", "annots", "segmentationclass", "gtfine")
#: What is put behind the name of a folder of images for that of their masks (CamVid: trainannot).
_BEHIND = ("annot", "_annot", "_labels", "_masks", "_mask", "masks", "-masks", "_gt")


def found_pairs(root: Path) -> tuple[list[Path], list[Path], Any]:
    """The images of a data set, their masks, and a split where its folders are parts.

    Either `train` and `trainannot` with `val`, `test` likewise, or `images` and `masks`, both of
    which may have folders train, val and test.

    Raises:
        UsageError: there are no such folders.
    """
    from trainbus_data import splits
    from trainbus_vision.images import find_images

    if not root.is_dir():
        raise UsageError(f"segmentation({str(root)!r}): there is no such folder")
    names = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
    stages: dict[str, tuple[Path, Path]] = {}
    for name, path in names.items():
        masks = next((names[name + end] for end in _BEHIND if name + end in names), None)
        if name in STAGES and masks is not None:
            stages[STAGES[name]] = (path, masks)
    if "train" in stages:
        return _of_stages(stages)
    images = next((names[name] for name in _IMAGES if name in names), None)
    masks = next((names[name] for name in _MASKS if name in names), None)
    if images is None or masks is None:
        raise UsageError(
            f"{root}: there is neither train with trainannot (or train_masks) nor images with "
            f"masks, but {', '.join(names) or 'no folder'}: give both, segmentation(images, masks)"
        )
    logger.warning("images of %s, with masks of %s", images, masks)
    found = find_images(images)
    inside = {path.relative_to(images).parts[0].lower() for path in found}
    split = splits.by_folder(images) if inside <= set(STAGES) and len(inside) > 1 else None
    return found, partners(found, images, masks), split


def _of_stages(stages: dict[str, tuple[Path, Path]]) -> tuple[list[Path], list[Path], Any]:
    from trainbus_data import splits
    from trainbus_vision.images import find_images

    images: list[Path] = []
    masks: list[Path] = []
    parts: dict[str, list[int]] = {"train": [], "valid": [], "test": []}
    for stage, (folder, others) in stages.items():
        logger.warning("images of %s, with masks of %s: %s", folder, others, stage)
        found = find_images(folder)
        parts[stage] = list(range(len(images), len(images) + len(found)))
        images += found
        masks += partners(found, folder, others)
    return images, masks, _fixed(parts, splits.random())


def _fixed(parts: dict[str, list[int]], drawn: Callable[..., Any]) -> Callable[..., Any]:
    """The parts that the folders are; without a validation part one is drawn from training."""

    def split(items: Sequence[Any], label: Callable[[Any], Any]) -> tuple[list[int], ...]:
        train, valid = parts["train"], parts["valid"]
        if not valid:
            inner = drawn([items[index] for index in train], label)
            train, valid = ([train[index] for index in part] for part in inner[:2])
        return (train, valid, parts["test"]) if parts["test"] else (train, valid)

    return split


def partners(images: Any, root: Path | None, folder: Path) -> list[Path]:
    """For each image the mask of the same name in a folder, and in the same place of it."""
    if not folder.is_dir():
        raise UsageError(f"masks={str(folder)!r}: there is no such folder")
    masks: dict[Path, Path] = {}
    for path in sorted(folder.rglob("[!.]*")):
        name = path.relative_to(folder).with_suffix("")
        if not path.is_file():
            continue
        if name in masks:
            raise UsageError(f"masks: {masks[name]} and {path} are both called as one image is")
        masks[name] = path
    places = [Path(image).relative_to(root or "") if root else Path(image) for image in images]
    names = [place.with_suffix("") for place in places]
    if root is None or not set(names) <= masks.keys():
        names = [Path(name.name) for name in names]
    missing = [image for image, name in zip(images, names, strict=True) if name not in masks]
    if missing:
        raise UsageError(
            f"{len(missing)} of {len(images)} images have no mask in {folder}, {missing[0]} for "
            f"example; a mask is called as its image is, {Path(missing[0]).stem}.png for example, "
            "in the same folder under it"
        )
    first: dict[Path, Any] = {}
    for image, name in zip(images, names, strict=True):
        if first.setdefault(name, image) != image:
            raise UsageError(
                f"{first[name]} and {image} would have one mask, {masks[name]}; put masks into "
                "folders as their images are, or give a list"
            )
    return [masks[name] for name in names]

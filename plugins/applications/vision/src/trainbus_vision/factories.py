"""Data for the usual tasks: `trainbus_data` with blocks of images, and a size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainbus import UsageError
from trainbus_vision.mask_folders import found_pairs, partners

if TYPE_CHECKING:
    from trainbus_data import Data

Size = int | Sequence[int]
#: Height and width that photos are brought to, if nothing else is said.
_SIZE = 224


def image_folder(path: str | Path, size: Size | None = _SIZE, **options: Any) -> Data:
    """Images in folders that are their classes: `path/CLASS/FILE`, or `path/train/CLASS/FILE`.

    Args:
        path: the folder.
        size: height and width that images are brought to, or one number for both; None to leave
            them as they are.
        options: of `trainbus_data.Data.from_folder`: split, label, blocks, batch_size, ...
    """
    from trainbus_data import Data

    return Data.from_folder(path, size=size, **options)


def image_table(
    table: Any,
    image: str | None = None,
    label: str | Sequence[str] | None = None,
    size: Size | None = _SIZE,
    delimiter: str | None = None,
    **options: Any,
) -> Data:
    """Images named in a table, each with a label, several labels (`delimiter`), or numbers.

    A column of numbers with fractions is learned as a number, which is said; of whole numbers it is
    asked where they may be either.

    Args:
        table: a DataFrame, a mapping of columns, or a CSV or Parquet file.
        image: the column with the names of the files; the first by default.
        label: the column with the label, or several with numbers; the second by default.
        size: height and width that images are brought to; None to leave them as they are.
        delimiter: what separates several labels in one column.
        options: of `trainbus_data.Data.from_table`: folder, suffix, split, blocks, ...
    """
    from trainbus_data import Data

    return Data.from_table(table, image, label, size=size, delimiter=delimiter, **options)


def image_tensors(
    train: Sequence[Any],
    valid: Sequence[Any] | None = None,
    test: Sequence[Any] | None = None,
    **options: Any,
) -> Data:
    """Images in memory with a label each, as tensors or arrays.

    Args:
        train: (images, labels). Images are N x H x W, N x C x H x W or N x H x W x C, uint8, or
            floats in 0..1.
        valid: the same; by default a part of train.
        test: the same.
        options: of `trainbus_data.Data.from_tensors`: split, batch_size, blocks, ...
    """
    from trainbus_data import Data

    return Data.from_tensors(train, valid, test, **options)


def segmentation(
    images: str | Path | Sequence[Any],
    masks: str | Path | Sequence[Any] | Callable[[Any], Any] | None = None,
    codes: Sequence[str] | int | None = None,
    ignore: int | str | None = None,
    size: Size | None = _SIZE,
    **options: Any,
) -> Data:
    """Images, each with a mask that holds the code of a class for each pixel.

    Args:
        images: a list, or a folder, in which all images are taken; without masks a data set as it
            comes, with folders images and masks, or train and trainannot, val and valannot.
        masks: a list in the same order; a folder, in which masks lie and are called as their images
            are, whatever the suffix (images/a/1.jpg and masks/a/1.png), or in it alone where no
            two images have one name; or a function of an image's path.
            None to look for both in the usual folders of a data set, which is said.
        codes: names of the classes in the order of their codes, or their number; by default as
            many as the masks of the training part have.
        ignore: a code, or the name of one, that counts neither in the loss nor in the metrics.
        size: height and width that images and masks are brought to; None to leave them as they
            are.
        options: of `trainbus_data.Data.from_lists`: split, batch_size, item_transforms, ...

    Raises:
        UsageError: an image has no mask.
    """
    from trainbus_data import Data
    from trainbus_vision.images import Image, Mask, find_images

    root = None
    if masks is None:
        if not isinstance(images, (str, Path)):
            raise UsageError("segmentation: a list of images needs masks=, a list or a folder")
        options.setdefault("name", Path(images).resolve().name)
        images, masks, split = found_pairs(Path(images))
        options.setdefault("split", split)
    elif isinstance(images, (str, Path)):
        root = Path(images)
        images = find_images(root)
        options.setdefault("name", root.resolve().name)
    if isinstance(masks, (str, Path)):
        masks = partners(images, root, Path(masks))
    options.setdefault("blocks", (Image(), Mask(codes, ignore)))
    return Data.from_lists(images, masks, size=size, **options)


def keypoints(
    images: Sequence[Any],
    points: Sequence[Any] | Callable[[Any], Any],
    size: Size | None = _SIZE,
    flip_pairs: Sequence[Sequence[int]] | None = None,
    **options: Any,
) -> Data:
    """Images, each with points as (x, y) in pixels of the image as it is given.

    Args:
        images: paths, arrays, PIL images.
        points: for each image K x 2 numbers, or a function of an image; a missing point is None or
            NaN.
        size: height and width that images are brought to, filled with black where their
            proportions are others, so that no point is cut off; points follow.
        flip_pairs: points that are each other's left and right, [(0, 1)] for two eyes, or [] for
            none: then the default augmentation mirrors, and exchanges them.
        options: of `trainbus_data.Data.from_lists`: split, batch_size, ...
    """
    from trainbus_data import Data
    from trainbus_vision.geometry import Points
    from trainbus_vision.images import Image

    options.setdefault("blocks", (Image(), Points(flip_pairs=flip_pairs)))
    return Data.from_lists(images, points, size=size, **options)

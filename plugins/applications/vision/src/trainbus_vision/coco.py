"""Data sets in the format of COCO (Lin et al., 2014): a JSON with images and annotations."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from trainbus import UsageError
from trainbus.errors import nearest

if TYPE_CHECKING:
    from trainbus_data import Data

logger = logging.getLogger("trainbus")
Row = dict[str, Any]
_TARGETS = ("labels", "boxes", "masks", "keypoints")


def coco(
    annotations: str | Path,
    images: str | Path,
    target: Literal["labels", "boxes", "masks", "keypoints"] = "labels",
    size: int | Sequence[int] | None = 224,
    *,
    valid: str | Path | None = None,
    valid_images: str | Path | None = None,
    **options: Any,
) -> Data:
    """Images with the annotations of a JSON file in the format of COCO.

    Args:
        annotations: the JSON file of training (`instances_train2017.json`).
        images: the folder with its images.
        target: "labels" are the categories of an image, any number of them; "boxes" are boxes with
            their labels, without crowds; "masks" have the code of a category for each pixel, 0 for
            none; "keypoints" are those of the largest annotation, images without any left out.
        size: height and width that images are brought to; nothing of places is cut off.
        valid: the JSON file of validation; without it a part of training is.
        valid_images: the folder with its images; by default the same.
        options: of `trainbus_data.DataBlock.data`: batch_size, num_workers, ...; and split.

    Raises:
        UsageError: a file is not there, or is no such JSON.
    """
    from trainbus_data import DataBlock, splits
    from trainbus_vision.images import Image

    if target not in _TARGETS:
        raise UsageError(
            f"coco(target={target!r}): give {', '.join(_TARGETS)}{nearest(str(target), _TARGETS)}"
        )
    names, joints, rows = _read(Path(annotations), Path(images), target)
    split = options.pop("split", None) or splits.random()
    if valid is not None:
        more = _read(Path(valid), Path(valid_images or images), target)
        if more[:2] != (names, joints):
            raise UsageError(f"{valid} has other categories than {annotations}")
        split = splits.by_index(range(len(rows), len(rows) + len(more[2])))
        rows = rows + more[2]
    blocks, labels = _blocks(target, names, joints)
    item_transforms = options.pop("item_transforms", ())
    image = Image()
    if size is not None:
        kinds = ("image", *(block.kind for block in blocks))
        whole = image.sized(size) if target == "labels" else image.sized_whole(size, kinds)
        item_transforms = (*item_transforms, whole)
    block = DataBlock(
        (image, *blocks), split=split, input=itemgetter("file"), label=labels,
        item_transforms=item_transforms,
    )  # fmt: skip
    options.setdefault("name", Path(annotations).stem)
    return block.data(rows, **options)


def _blocks(target: str, names: list[str], joints: list[str]) -> tuple[list[Any], list[Any]]:
    """The blocks of the targets, and what gives each of a row."""
    from trainbus_data import Categories, Labels
    from trainbus_vision.geometry import Boxes, Points
    from trainbus_vision.images import Mask

    if target == "labels":
        return [Categories(names)], [itemgetter("labels")]
    if target == "boxes":
        return [Boxes(), Labels(names)], [itemgetter("boxes"), itemgetter("box_labels")]
    if target == "masks":
        return [Mask(["background", *names])], [drawn]
    return [Points(len(joints), flip_pairs=_left_and_right(joints))], [itemgetter("points")]


def _read(path: Path, folder: Path, target: str) -> tuple[list[str], list[str], list[Row]]:
    """The names of the categories and of the key points, and a row for each image."""
    if not path.is_file():
        raise UsageError(f"coco({str(path)!r}): there is no such file")
    try:
        found = json.loads(path.read_text("utf-8"))
        categories = sorted(found["categories"], key=itemgetter("id"))
        names = [str(each["name"]) for each in categories]
        code = {each["id"]: place for place, each in enumerate(categories)}
        by_image: dict[Any, list[Row]] = defaultdict(list)
        for each in found["annotations"]:
            by_image[each["image_id"]].append(each)
        joints = next((each["keypoints"] for each in categories if each.get("keypoints")), [])
        if target == "keypoints" and not joints:
            raise UsageError(f"{path} names no key points in its categories")
        rows, odd = [], 0
        for image in found["images"]:
            row, dropped = _row(image, by_image[image["id"]], folder, names, code, target)
            odd += dropped
            if row is not None:
                rows.append(row)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UsageError(
            f"{path} is no JSON in the format of COCO, with images, annotations and categories: "
            f"{type(error).__name__}: {error}"
        ) from None
    if odd:
        logger.warning("%s: %d boxes without an area are left out", path, odd)
    if len(rows) < len(found["images"]):
        left = len(found["images"]) - len(rows)
        logger.warning("%s: %d images without key points are left out", path, left)
    return names, joints, rows


def _row(
    image: Row, given: list[Row], folder: Path, names: list[str], code: dict[Any, int], target: str
) -> tuple[Row | None, int]:
    """What is kept of an image, and how many boxes had no area; None for one to leave out."""
    row: Row = {
        "file": folder / image["file_name"],
        "labels": sorted({names[code[each["category_id"]]] for each in given}),
    }
    odd = 0
    if target == "boxes":
        single = [each for each in given if not each.get("iscrowd")]
        boxes = [each for each in single if min(each["bbox"][2:]) > 0]
        odd = len(single) - len(boxes)
        row["boxes"] = [[x, y, x + w, y + h] for x, y, w, h in (each["bbox"] for each in boxes)]
        row["box_labels"] = [names[code[each["category_id"]]] for each in boxes]
    elif target == "masks":
        row["size"] = (int(image["height"]), int(image["width"]))
        row["shapes"] = [
            (code[each["category_id"]] + 1, each["segmentation"])
            for each in sorted(given, key=lambda each: -each.get("area", 0))
        ]
    elif target == "keypoints":
        persons = [each for each in given if any(each.get("keypoints", ()))]
        if not persons:
            return None, 0
        flat = max(persons, key=lambda each: each.get("area", 0))["keypoints"]
        triples = zip(flat[0::3], flat[1::3], flat[2::3], strict=True)
        # COCO has the centre of a pixel at whole numbers, trainbus at +0.5.
        row["points"] = [(x + 0.5, y + 0.5) if seen else None for x, y, seen in triples]
    return row, odd


def drawn(row: Row) -> np.ndarray[Any, Any]:
    """The mask of an image: codes H x W, the smaller things over the larger ones."""
    from PIL import Image, ImageDraw

    mask = Image.new("L" if max((c for c, _ in row["shapes"]), default=0) < 256 else "I",
                     row["size"][::-1])  # fmt: skip
    draw = ImageDraw.Draw(mask)
    for code, shape in row["shapes"]:
        if isinstance(shape, dict):
            mask.paste(code, mask=Image.fromarray(decoded_runs(shape) * np.uint8(255)))
            continue
        for polygon in shape:
            points = [(x - 0.5, y - 0.5) for x, y in zip(polygon[0::2], polygon[1::2], strict=True)]
            if len(points) > 2:
                draw.polygon(points, fill=code)
    return np.asarray(mask)


def decoded_runs(shape: Row) -> np.ndarray[Any, Any]:
    """A run-length encoding of COCO as H x W of 0 and 1: runs of 0 and 1 in turns, by columns.

    The compressed ones are texts of five bits a letter, each run from the third on as the
    difference to the run of the same value before it (`rleFrString` of COCO's mask API).
    """
    counts = shape["counts"]
    if isinstance(counts, (str, bytes)):
        counts = _uncompressed(counts if isinstance(counts, bytes) else counts.encode())
    height, width = shape["size"]
    values = np.repeat(np.arange(len(counts)) % 2, counts).astype(np.uint8)
    if len(values) != height * width:
        raise UsageError(f"runs of {len(values)} pixels for a mask of {height} x {width}")
    return values.reshape(width, height).T


def _uncompressed(text: bytes) -> list[int]:
    counts: list[int] = []
    at = 0
    while at < len(text):
        value, shift, more = 0, 0, True
        while more:
            letter = text[at] - 48
            value |= (letter & 0x1F) << shift
            more, at, shift = bool(letter & 0x20), at + 1, shift + 5
        if letter & 0x10:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    return counts


def _left_and_right(joints: list[str]) -> list[tuple[int, int]]:
    """The pairs of key points that are called left and right of the same."""
    place = {name: index for index, name in enumerate(joints)}
    return [
        (index, place[name.replace("left", "right")])
        for name, index in place.items()
        if "left" in name and name.replace("left", "right") in place
    ]

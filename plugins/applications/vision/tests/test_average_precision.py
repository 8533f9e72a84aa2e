"""mAP is the number that COCO's own program gives."""

import contextlib
import io
import math

import numpy as np
import pytest
import torch

from trainbus_vision import MeanAveragePrecision


def padded(rows, width):
    """N x K x width of lists of rows."""
    most = max(1, *map(len, rows))
    value = torch.full((len(rows), most, width), torch.nan)
    for number, those in enumerate(rows):
        if len(those):
            value[number, : len(those)] = torch.tensor(those, dtype=torch.float32)
    return value


def scenes(seed, images=12, classes=3):
    """Images with true boxes, and boxes that are near some of them, false, twice or equal."""
    draw = np.random.default_rng(seed)
    found, true = [], []
    for _ in range(images):
        corners = draw.integers(0, 60, (draw.integers(0, 6), 2))
        sides = draw.integers(5, 40, (len(corners), 2))
        codes = draw.integers(0, classes, len(corners))
        true.append(
            [
                [*low, *(low + side), code]
                for low, side, code in zip(corners, sides, codes, strict=True)
            ]
        )
        rows = []
        for box in true[-1] * 2:
            if draw.random() < 0.7:
                near = np.asarray(box[:4]) + draw.integers(-4, 5, 4) * (draw.random() < 0.8)
                code = box[4] if draw.random() < 0.8 else draw.integers(classes)
                rows.append([*near, code, round(float(draw.random()), 1)])
        for _ in range(draw.integers(0, 4)):
            low = draw.integers(0, 60, 2)
            rows.append([*low, *(low + 10), draw.integers(classes), float(draw.random())])
        found.append([row for row in rows if row[2] > row[0] and row[3] > row[1]])
    return padded(found, 6), padded(true, 5)


def by_pycocotools(found, true):
    """AP, AP at 0.5, and that of each class, by the program that defines them."""
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    images, annotations, results = [], [], []
    for number, (rows, wanted) in enumerate(zip(found, true, strict=True)):
        images.append({"id": number})
        for x1, y1, x2, y2, code in wanted[~wanted.isnan().any(1)].double().tolist():
            annotations.append({
                "id": len(annotations) + 1, "image_id": number, "category_id": int(code),
                "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0,
            })  # fmt: skip
        for x1, y1, x2, y2, code, score in rows[~rows.isnan().any(1)].double().tolist():
            results.append({
                "image_id": number, "category_id": int(code), "score": score,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
            })  # fmt: skip
    codes = sorted({each["category_id"] for each in annotations})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO()
        truth.dataset = {
            "info": {}, "images": images, "annotations": annotations,
            "categories": [{"id": code} for code in codes],
        }  # fmt: skip
        truth.createIndex()
        evaluated = evaluation.COCOeval(truth, truth.loadRes(results), "bbox")
        evaluated.evaluate()
        evaluated.accumulate()
        evaluated.summarize()
    precision = evaluated.eval["precision"][:, :, :, 0, 2]
    each = [float(precision[:, :, number].mean()) for number in range(precision.shape[2])]
    return evaluated.stats[0], evaluated.stats[1], each


def measured(found, true, **options):
    metric = MeanAveragePrecision(**options)
    for rows in range(0, len(found), 5):  # in batches
        metric.update(found[rows : rows + 5], true[rows : rows + 5])
    return metric


@pytest.mark.parametrize("seed", range(8))
def test_it_is_what_pycocotools_gives(seed):
    """With boxes found twice, scores and overlaps that are equal, and images without boxes."""
    found, true = scenes(seed)
    average, at_half, each = by_pycocotools(found, true)
    metric = measured(found, true)
    assert float(metric.compute()) == pytest.approx(average, abs=1e-6)
    assert list(metric.per_class().values()) == pytest.approx(each, abs=1e-9)
    half = measured(found, true, thresholds=(0.5,)).compute()
    assert float(half) == pytest.approx(at_half, abs=1e-6)


def test_many_boxes_of_an_image_are_cut_as_there():
    """The 100 most certain of a class count."""
    draw = np.random.default_rng(0)
    corners = draw.integers(0, 500, (150, 2))
    true = [[*low, *(low + 20), 0] for low in corners]
    found = [[*box, float(draw.random())] for box in true]
    rows, wanted = padded([found], 6), padded([true], 5)
    average, _, _ = by_pycocotools(rows, wanted)
    assert float(measured(rows, wanted).compute()) == pytest.approx(average, abs=1e-6)


def test_what_is_right_is_one_and_what_is_missed_counts():
    true = padded([[[0, 0, 10, 10, 0], [20, 20, 30, 30, 1]]], 5)
    right = torch.cat((true, torch.ones(1, 2, 1)), dim=2)
    assert measured(right, true).compute() == 1
    assert measured(right[:, :1], true).compute() == 0.5
    assert measured(padded([[]], 6), true).compute() == 0


def test_a_box_in_the_middle_is_found_at_some_thresholds():
    """An IoU of 0.72: found at 0.50 to 0.70, five of the ten."""
    true = padded([[[0, 0, 10, 10, 0]]], 5)
    found = padded([[[0, 0, 10, 7.2, 0, 0.9]]], 6)
    assert float(measured(found, true).compute()) == pytest.approx(0.5)


def test_over_nothing_it_is_nan_and_begins_again():
    metric = measured(padded([[[0, 0, 9, 9, 0, 0.5]]], 6), padded([[]], 5))
    assert math.isnan(metric.compute())
    metric.reset()
    true = padded([[[0, 0, 10, 10, 0]]], 5)
    metric.update(torch.cat((true, torch.ones(1, 1, 1)), dim=2), true)
    assert metric.compute() == 1

"""Data sets as they come: folders of masks, JSON of COCO, columns of 0 and 1."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from trainbus import UsageError
from trainbus_data import Categories, Category, DataError, Number
from trainbus_vision import coco, image_table, segmentation
from trainbus_vision.coco import decoded_runs


def picture(path, mode="RGB", value=0):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Pillow.new(mode, (12, 8), value if mode == "L" else (value,) * 3).save(path)


def test_camvid_has_a_folder_of_masks_behind_each_of_images(caplog):
    """train and trainannot, val and valannot, test and testannot are the parts."""
    for stage, count in (("train", 6), ("val", 3), ("test", 2)):
        for number in range(count):
            picture(f"camvid/{stage}/{stage}{number}.png")
            picture(f"camvid/{stage}annot/{stage}{number}.png", "L", number % 2)
    data = segmentation("camvid", codes=2, size=8, num_workers=0)
    assert [len(data.items(stage)) for stage in ("train", "valid", "test")] == [6, 3, 2]
    image, mask = data.valid_items[1]
    assert (image, mask) == (Path("camvid/val/val1.png"), Path("camvid/valannot/val1.png"))
    assert "masks of camvid/trainannot" in caplog.text
    assert data.name == "camvid"


def test_images_and_masks_beside_each_other_with_parts_in_both():
    for stage, count in (("train", 6), ("val", 3)):
        for number in range(count):
            picture(f"city/images/{stage}/{number}.png")
            picture(f"city/masks/{stage}/{number}.png", "L", 1)
    data = segmentation("city", codes=2, size=8, num_workers=0)
    assert (len(data.train_items), len(data.valid_items)) == (6, 3)
    assert data.valid_items[0][1] == Path("city/masks/val/0.png")


def test_folders_without_masks_are_an_error_that_names_what_is_looked_for():
    picture("photos/a/0.png")
    with pytest.raises(UsageError, match=r"neither train with trainannot .* but a: give both"):
        segmentation("photos", codes=2)


@pytest.fixture
def annotated():
    """Eight images with two animals each, one of which has key points."""
    for number in range(8):
        picture(f"pictures/{number}.png")
    annotations = []
    for number in range(8):
        annotations.append({
            "id": 2 * number, "image_id": number, "category_id": 7, "area": 12,
            "bbox": [1, 2, 4, 3], "segmentation": [[1, 2, 5, 2, 5, 5, 1, 5]],
            "keypoints": [1, 2, 2, 0, 0, 0, 4, 3, 1],
        })  # fmt: skip
        annotations.append({
            "id": 2 * number + 1, "image_id": number, "category_id": 3, "area": 4,
            "bbox": [8, 4, 2, 2],
            "segmentation": {"counts": [68, 2, 6, 2, 18], "size": [8, 12]},
        })  # fmt: skip
    found = {
        "images": [
            {"id": n, "file_name": f"{n}.png", "height": 8, "width": 12} for n in range(8)
        ],
        "categories": [
            {"id": 7, "name": "dog", "keypoints": ["left_eye", "right_eye", "nose"]},
            {"id": 3, "name": "cat"},
        ],
        "annotations": annotations,
    }  # fmt: skip
    Path("coco.json").write_text(json.dumps(found))
    return found


def test_labels_of_coco(annotated):
    data = coco("coco.json", "pictures", size=8, num_workers=0)
    assert data.vocab == ["cat", "dog"]  # in the order of their ids
    assert data.one_batch()[1].tolist()[0] == [1.0, 1.0]


def test_boxes_of_coco_are_corners_with_labels(annotated):
    data = coco("coco.json", "pictures", "boxes", size=None, num_workers=0)
    _, boxes, labels = data.one_batch()
    assert boxes[0].tolist() == [[1, 2, 5, 5], [8, 4, 10, 6]]
    assert [data.vocab[code] for code in labels[0]] == ["dog", "cat"]


def test_masks_of_coco_are_drawn_of_polygons_and_runs(annotated):
    data = coco("coco.json", "pictures", "masks", size=None, num_workers=0)
    assert data.vocab == ["background", "cat", "dog"]
    mask = data.one_batch()[1][0]
    assert (mask[2:5, 1:5] == 2).all()
    assert (mask[4:6, 8:10] == 1).all()
    assert set(mask.unique().tolist()) == {0, 1, 2}


def test_key_points_of_coco_know_their_pairs(annotated):
    """A point that was not seen is missing; left and right are known by their names."""
    data = coco("coco.json", "pictures", "keypoints", size=None, num_workers=0)
    points = data.one_batch()[1][0]
    assert points[[0, 2]].tolist() == [[1.5, 2.5], [4.5, 3.5]]
    assert points[1].isnan().all()
    assert data.target.flip_pairs == ((0, 1),)


def test_validation_of_coco_is_a_file_of_its_own(annotated):
    Path("valid.json").write_text(json.dumps({**annotated, "images": annotated["images"][:2]}))
    data = coco("coco.json", "pictures", valid="valid.json", size=8, num_workers=0)
    assert (len(data.train_items), len(data.valid_items)) == (8, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [("[]", "no JSON in the format of COCO"), ("{", "no JSON in the format of COCO")],
)
def test_what_is_no_coco_is_refused(text, message):
    Path("bad.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        coco("bad.json", "pictures")
    with pytest.raises(UsageError, match=r"did you mean 'boxes'\?"):
        coco("bad.json", "pictures", "boxs")


def test_compressed_runs_of_a_known_text():
    """The example in the source of COCO's API."""
    found = decoded_runs({"counts": "61X13mN000`0", "size": [9, 10]})
    runs = [6, 1, 40, 4, 5, 4, 5, 4, 21]
    assert found.T.flatten().tolist() == np.repeat(np.arange(9) % 2, runs).tolist()


def rows_of(**columns):
    files = []
    for number in range(8):
        picture(f"t/{number}.png")
        files.append(f"t/{number}.png")
    return {"file": files, **columns}


def test_columns_of_zeros_and_ones_are_labels(caplog):
    """Any number of a row: several labels; one of each row: a category. It is said once."""
    table = rows_of(cat=[1, 0] * 4, dog=[1, 1] * 4, fox=[0, 0] * 3 + [1, 0])
    data = image_table(table, "file", ["cat", "dog", "fox"], size=8, num_workers=0)
    assert isinstance(data.target, Categories)
    assert data.target.encode(["cat", "fox"]).tolist() == [1, 0, 1]
    assert data.one_batch()[1].sum(1).min() >= 1
    assert "hold 0 and 1: they are labels, of which a row has any number" in caplog.text
    one = image_table(rows_of(cat=[1, 0] * 4, dog=[0, 1] * 4), "file", ["cat", "dog"], size=8)
    assert isinstance(one.target, Category)
    assert one.vocab == ["cat", "dog"]


def test_columns_of_numbers_stay_numbers():
    table = rows_of(x=[0.5, 1] * 4, y=[1, 0] * 4)
    assert isinstance(image_table(table, "file", ["x", "y"], size=8).target, Number)


def test_blocks_for_such_columns_name_them():
    from trainbus_vision import Image

    table = rows_of(cat=[1, 0] * 4, dog=[1, 1] * 4)
    named = (Image(), Categories(["cat", "dog"]))
    data = image_table(table, "file", ["cat", "dog"], size=8, blocks=named, num_workers=0)
    assert set(map(tuple, data.one_batch()[1].tolist())) == {(1.0, 1.0), (0.0, 1.0)}
    with pytest.raises(DataError, match="leave blocks out, or name them"):
        image_table(table, "file", ["cat", "dog"], size=8, blocks=(Image(), Categories()))
    wrong = rows_of(cat=[1, 2] * 4, dog=[1, 1] * 4)
    with pytest.raises(DataError, match="the column 'cat' holds 2, and not 0 or 1"):
        image_table(wrong, "file", ["cat", "dog"], size=8, blocks=named)

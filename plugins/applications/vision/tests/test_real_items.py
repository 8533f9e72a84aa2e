"""Real photos and masks, where there are any."""

import torch

from trainbus_data import Data, splits
from trainbus_vision import Image, Mask, find_images, image_folder


def test_photos(real):
    """Folders train and val of photos of many sizes."""
    data = image_folder(real / "hymenoptera-160", size=96, batch_size=32)
    assert data.vocab == ["ants", "bees"]
    assert (len(data.train_items), len(data.valid_items)) == (244, 153)
    assert data.unreadable() == []
    x, y = next(iter(data.train))
    assert (x.shape, x.dtype) == ((32, 3, 96, 96), torch.uint8)
    assert set(y.tolist()) == {0, 1}


def test_masks(real):
    """CamVid: 11 classes, and void, which is ignored."""
    root = real / "camvid-160"
    files = [file for stage in ("train", "val") for file in find_images(root / stage)]

    def mask_of(path):
        return path.parent.with_name(f"{path.parent.name}annot") / f"{path.stem}.png"

    data = Data.from_lists(
        files, mask_of, (Image(), Mask(ignore=11)), split=splits.by_folder(root), batch_size=8
    )
    assert data.target.outputs == 11
    x, y = data.one_batch()
    assert (x.shape, y.shape, y.dtype) == ((8, 3, 120, 160), (8, 120, 160), torch.int64)
    output = torch.randn(8, 11, 120, 160)
    assert data.target.loss()(output, y).isfinite()
    for metric in data.target.metrics().values():
        metric.update(output, y)
        assert 0 < metric.compute() < 0.2

"""Mask, Points and Boxes: what a pixel, a dot and a frame are."""

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from trainbus_data import Data, DataError, block_from_state
from trainbus_vision import Boxes, Image, Mask, Points, keypoints, segmentation

NAN = float("nan")


def test_mask_reads_grey_and_palette(tmp_path):
    """The values of a grey image, and the indices of a palette, not its colours."""
    codes = np.array([[0, 1], [2, 1]], dtype=np.uint8)
    grey = Pillow.fromarray(codes)
    palette = grey.copy()
    palette.putpalette([255, 0, 0, 0, 255, 0, 9, 9, 9])
    grey.save(tmp_path / "grey.png")
    palette.save(tmp_path / "palette.png")
    for raw in (codes, torch.from_numpy(codes), tmp_path / "grey.png", tmp_path / "palette.png"):
        encoded = Mask(3).encode(raw)
        assert encoded.dtype == torch.int64
        assert encoded.tolist() == codes.tolist()


def test_mask_finds_its_classes():
    """Without names: as many as the greatest code, what is ignored left out."""
    block = Mask(ignore=255)
    block.setup([np.array([[0, 3], [255, 1]])])
    assert block.outputs == 4
    named = Mask(["road", "sky", "void"], ignore=2)
    assert named.outputs == 2


def test_mask_refuses_codes_and_colours():
    """A code without a class, and an image with colours."""
    with pytest.raises(DataError, match="the code 7, but there are 3 classes"):
        Mask(3).encode(np.array([[7]]))
    with pytest.raises(DataError, match="one code for each pixel"):
        Mask(3).encode(Pillow.new("RGB", (2, 2)))
    with pytest.raises(DataError, match="the greatest code in the masks is 255"):
        Mask().setup([np.array([[0, 255]])])


def test_mask_loss_and_metrics_leave_out_what_is_ignored():
    """Neither counts the pixels of the code to ignore."""
    block = Mask(2, ignore=5)
    target = torch.tensor([[[0, 1, 5, 5]]])
    output = torch.tensor([[[[9.0, -9, 9, -9]], [[-9.0, 9, -9, 9]]]])
    assert block.loss()(output, target) < 1e-3
    for metric in block.metrics().values():
        metric.update(output, target)
        assert metric.compute() == 1.0


def test_mean_iou_is_that_of_the_whole_pass():
    """Counted over all batches, class by class; a class that never occurs is left out."""
    metric = Mask(3).metrics()["mean_iou"]
    targets = [torch.tensor([[[0, 0, 0, 1]]]), torch.tensor([[[1, 1, 1, 1]]])]
    given = [torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[1, 1, 1, 0]]])]
    for target, prediction in zip(targets, given, strict=True):
        output = torch.nn.functional.one_hot(prediction, 3).permute(0, 3, 1, 2).float()
        metric.update(output, target)
    # class 0: 2 of 4 pixels, class 1: 4 of 6; class 2 never
    assert metric.per_class()[:2].tolist() == pytest.approx([2 / 4, 4 / 6])
    assert metric.compute() == pytest.approx((2 / 4 + 4 / 6) / 2)
    metric.reset()
    metric.update(output, target)
    assert metric.per_class()[1] == pytest.approx(3 / 4)


def test_points_are_scaled_for_the_loss_and_back():
    """-1 is the left or upper edge, 1 the right or lower one; activation makes pixels again."""
    block = Points(2, size=(100, 200))
    target = torch.tensor([[[0.0, 0.0], [200.0, 50.0]]])
    output = torch.tensor([[-1.0, -1.0, 1.0, 0.0]])
    assert block.loss()(output, target) == 0
    assert torch.equal(block.activation(output), target)
    assert block.outputs == 4


def test_missing_points_do_not_count():
    """Neither in the loss, nor in its gradient, nor in the metric."""
    block = Points(2, size=(100, 100))
    target = block.batch([block.encode([(50, 50), None])])
    output = torch.tensor([[0.0, 0.1, 9.0, 9.0]], requires_grad=True)
    loss = block.loss()(output, target)
    assert loss.item() == pytest.approx(0.1**2 / 2)
    loss.backward()
    assert output.grad[0, 2:].tolist() == [0, 0]
    metric = block.metrics()["pixel_distance"]
    metric.update(output.detach(), target)
    assert metric.compute() == pytest.approx(5.0)


def test_points_of_another_count_are_refused():
    """Each image has the same points."""
    block = Points()
    block.setup([[(1, 2), (3, 4)]])
    assert "1 points, where 2 are expected" in block.problem([(1, 2)])
    with pytest.raises(DataError, match="size of the images is not known"):
        block.loss()


def test_boxes_are_padded():
    """NaN follows where other images of the batch have more boxes."""
    block = Boxes()
    batch = block.batch([block.encode([(0, 0, 2, 2), (1, 1, 3, 3)]), block.encode([])])
    assert batch.shape == (2, 2, 4)
    assert batch[1].isnan().all()
    assert block.decode(batch[1]) == []
    assert "second corner" in block.problem([(5, 5, 1, 1)])
    with pytest.raises(DataError, match="has no loss of its own"):
        block.loss()


@pytest.mark.parametrize("block", [Mask(["a", "b"], ignore=1), Points(3, (5, 6)), Boxes()])
def test_state_makes_an_equal_block(block):
    """What a fresh process needs is in the state."""
    assert block_from_state(block.state()).state() == block.state()


def test_codes_that_are_none_are_found_behind_one_that_is_ignored():
    """Whatever the code to ignore is: greater, negative, or in the middle."""
    block = Mask(["road", "car"], ignore=255)
    assert block.encode(np.array([[0, 1], [255, 1]])).tolist() == [[0, 1], [255, 1]]
    with pytest.raises(DataError, match=r"the code 30, but there are 2 classes .*ignored: 255"):
        block.encode(np.array([[0, 1], [30, 255]]))
    negative = Mask(2, ignore=-1)
    assert negative.encode(np.array([[0, -1]])).tolist() == [[0, -1]]
    with pytest.raises(DataError, match="the code -2, 7"):
        negative.encode_all(np.array([[[0, -1, -2, 7]]]))
    with pytest.raises(DataError, match="holds the code -1, which is no class; ignore=-1"):
        Mask().setup([np.array([[0, 1, -1]])])


@pytest.mark.parametrize("kind", ["bool", "int8", "uint16", "int64", "float32", ">i4"])
def test_codes_may_have_any_type(kind):
    """Floats too, if they are whole numbers."""
    codes = np.array([[0, 1], [1, 0]]).astype(kind)
    assert Mask(2).encode(codes).tolist() == [[0, 1], [1, 0]]
    assert Mask(2).encode_all(codes[None]).dtype == torch.int64
    tensor = torch.from_numpy(codes.astype(codes.dtype.newbyteorder("=")))
    assert Mask(2).encode_all(tensor[None, None]).tolist() == [[[0, 1], [1, 0]]]


@pytest.mark.parametrize("value", [0.5, float("nan"), float("inf")])
def test_fractions_are_no_codes(value):
    for encode, shape in ((Mask(2).encode, (1, 2)), (Mask(2).encode_all, (1, 1, 2))):
        with pytest.raises(DataError, match="codes are whole numbers"):
            encode(np.array([1.0, value]).reshape(shape))


def test_a_mask_of_another_size_than_its_image_is_refused():
    """Without a transform that would see it, and in memory."""
    image, mask = torch.zeros(8, 3, 6, 6, dtype=torch.uint8), torch.zeros(8, 6, 5).long()
    with pytest.raises(DataError, match="the mask: 6 x 5 pixels, but those of its image are 6 x 6"):
        Data.from_tensors((image, mask), blocks=(Image(), Mask(2)))
    data = segmentation(list(image), list(mask), codes=2, size=None, num_workers=0)
    with pytest.raises(DataError, match=r"item \d of valid: the mask: 6 x 5 pixels"):
        data.one_batch("valid")


def test_masks_that_are_ignored_everywhere_have_a_loss_of_zero():
    """A batch that has nothing to say; its gradient is zero, too."""
    output = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = Mask(3, ignore=255).loss()(output, torch.full((2, 4, 4), 255))
    loss.backward()
    assert loss == 0
    assert (output.grad == 0).all()


def test_points_outside_of_their_image_are_refused():
    """All of an item: they are in another order or scale. One of several may be."""
    images = [np.zeros((40, 60, 3), dtype=np.uint8)] * 20
    with pytest.raises(DataError, match=r"2 of 2 points are outside .* \(60 x 40\), \(20, 5"):
        keypoints(images, [[(20.0, 55.0), (10.0, 50.0)]] * 20, size=32, num_workers=0)
    some = keypoints(images, [[(20.0, 30.0), (10.0, 50.0)]] * 20, size=32, num_workers=0)
    assert some.one_batch()[1].shape == (8, 2, 2)
    stacked = torch.zeros(20, 3, 40, 60, dtype=torch.uint8)
    points = torch.tensor([[[20.0, 55.0]]]).expand(20, 1, 2)
    with pytest.raises(DataError, match=r"train, the points: 16 of 16 points are outside"):
        Data.from_tensors((stacked, points), blocks=(Image(), Points()))


def test_points_and_boxes_in_parts_of_the_size_are_refused():
    """0..1 is one pixel."""
    for block, raws in ((Points(), [[(0.2, 0.9)], [(0.5, 1.0)]]), (Boxes(), [[(0, 0, 1, 0.5)]])):
        with pytest.raises(DataError, match="they are in pixels of their image"):
            block.setup(raws)


def test_boxes_without_area_or_labels_are_refused():
    """A box of one line, and another number of labels than of boxes."""
    from trainbus_data import Labels

    assert "second corner" in Boxes().problem([(1, 1, 1, 5)])
    images = [np.zeros((8, 8, 3), dtype=np.uint8)] * 10
    rows = {"image": images, "boxes": [[(0, 0, 4, 4)]] * 10, "labels": [["a", "b"]] * 10}
    data = Data.from_table(
        rows, "image", ["boxes", "labels"], blocks=(Image(), Boxes(), Labels()), num_workers=0
    )
    with pytest.raises(DataError, match="2 labels for 1 boxes"):
        data.one_batch()

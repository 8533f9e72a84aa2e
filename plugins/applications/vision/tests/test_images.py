"""Image: each way an image is given becomes uint8, C x H x W, with the channels asked for."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from trainbus_data import DataError
from trainbus_vision import Image, decoding


@pytest.fixture
def colours():
    """An array of noise, 12 x 9 with 3 channels."""
    return np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)


def saved(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(width, height, depth, colour, rows):
    """A PNG of any bit depth, which Pillow does not write for colours."""

    def chunk(name, data):
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    raw = b"".join(b"\0" + row for row in rows)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )


def test_all_ways_to_give_an_image_agree(colours, tmp_path):
    """A path, its text, bytes, a PIL image, an array and a tensor are the same image."""
    picture = Pillow.fromarray(colours)
    picture.save(tmp_path / "a.png")
    tensor = torch.from_numpy(colours).permute(2, 0, 1)
    for raw in (
        tmp_path / "a.png", str(tmp_path / "a.png"), saved(picture), picture, colours, tensor
    ):  # fmt: skip
        encoded = Image().encode(raw)
        assert encoded.dtype == torch.uint8
        assert torch.equal(encoded, tensor)


def test_pillow_and_torchvision_read_the_same(colours, monkeypatch):
    """What reads a file makes no difference that one could see."""
    for kind in ("PNG", "JPEG"):
        data = saved(Pillow.fromarray(colours), kind)
        for channels in (1, 3):
            fast = Image(channels).encode(data).int()
            with monkeypatch.context() as patch:
                patch.setattr(decoding, "_torchvision", lambda: None)
                slow = Image(channels).encode(data).int()
            # Grey of a JPEG is its own brightness, before colours are cut to 0..255.
            assert (fast - slow).abs().float().mean() <= 1


def test_grey_is_spread_and_colours_are_mixed(colours):
    """One channel becomes three equal ones; three become one by the weights of BT.601."""
    grey = Image(3).encode(colours[..., 0])
    assert torch.equal(grey[0], grey[2])
    mixed = Image(1).encode(colours)
    expected = torch.from_numpy(np.array(Pillow.fromarray(colours).convert("L"))).int()
    assert mixed.shape == (1, 12, 9)
    assert (mixed[0].int() - expected).abs().max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_is_laid_on_white(colours, channels):
    """As a person sees it; the colours below transparent pixels are often nothing but black."""
    alpha = np.zeros((12, 9, 1), dtype=np.uint8)
    alpha[:6] = 255
    four = np.concatenate([colours, alpha], axis=2)
    for raw in (four, Pillow.fromarray(four), saved(Pillow.fromarray(four))):
        encoded = Image(channels).encode(raw)
        assert (encoded[:, 6:] == 255).all()
        assert (encoded[:, :6].int() - Image(channels).encode(colours)[:, :6].int()).abs().max() < 2


def test_16_bits_are_scaled():
    """65535 is white, for grey and for colours, not 255 and cut there."""
    grey = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    for raw in (grey, saved(Pillow.fromarray(grey))):
        assert Image(1).encode(raw).flatten().tolist() == [0, 1, 128, 255]
    pixels = np.array([[0, 25700, 65535]], dtype=">u2").tobytes()
    data = png(1, 1, 16, 2, [pixels])
    assert Image(3).encode(data).flatten().tolist() == [0, 100, 255]


def test_rotation_by_the_camera_is_applied(colours):
    """A photo that was taken upright is upright."""
    picture = Pillow.fromarray(colours)
    exif = picture.getexif()
    exif[0x0112] = 6
    assert Image().encode(saved(picture, "JPEG", exif=exif)).shape == (3, 9, 12)


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "BMP", "TIFF"])
def test_other_formats(colours, kind):
    """Pillow reads what torchvision is not asked for."""
    assert Image().encode(saved(Pillow.fromarray(colours), kind)).shape == (3, 12, 9)


def test_cmyk_and_black_and_white(colours):
    """Colours for print and images of one bit are images too."""
    picture = Pillow.fromarray(colours)
    assert Image().encode(saved(picture.convert("CMYK"), "JPEG")).shape == (3, 12, 9)
    assert set(Image(1).encode(saved(picture.convert("1"))).unique().tolist()) <= {0, 255}


def test_floats_from_0_to_1_are_scaled(colours):
    """An array of floats is an image if it is in 0..1."""
    assert torch.equal(Image().encode(colours / 255.0), Image().encode(colours))
    with pytest.raises(DataError, match=r"from 0 to 255; floats are 0\.\.1"):
        Image().encode(np.array([[0.0, 255.0]]))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "the file is empty"),
        (b"no image at all", "not an image that Pillow knows"),
        (3.5, "an image of the type float"),
        (np.zeros((3, 8, 8), dtype=np.uint8), "arrays are H x W or H x W x C"),
        (torch.zeros(5, 8, 8, dtype=torch.uint8), "it is C x H x W"),
    ],
)
def test_what_is_no_image_is_refused(raw, message):
    """Each with what was given, and what would be right."""
    with pytest.raises(DataError, match=message):
        Image().encode(raw)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_cut_off_file_is_refused(kind):
    """A file that ends in the middle is no grey image, it is an error."""
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    data = saved(Pillow.fromarray(noise), kind)
    with pytest.raises(DataError, match="damaged"):
        Image().encode(data[: len(data) // 2])


def test_decode_gives_what_went_in(colours):
    """An array as it is shown: H x W x C, or H x W when grey; floats are cut to 0..1."""
    assert (Image().decode(Image().encode(colours)) == colours).all()
    assert Image(1).decode(Image(1).encode(colours)).shape == (12, 9)
    assert Image(1).decode(torch.tensor([[[-1.0, 0.5, 3.0]]])).tolist() == [[0.0, 0.5, 1.0]]


def test_channels_are_one_or_three():
    """Others are an error at once."""
    with pytest.raises(DataError, match="1 for grey, 3 for colours"):
        Image(4)

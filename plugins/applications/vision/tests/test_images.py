"""Image: each way an image is given becomes uint8, C x H x W, with the channels asked for."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from trainbus_data import DataError, block_from_state
from trainbus_vision import Image, Mask, decoding


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


def test_the_same_pixels_in_any_integers_are_the_same_image(colours):
    """Their type is not their range: only uint16 says 16 bits; others are 0..255."""
    expected = Image().encode(colours)
    for kind in ("int64", "int32", "int16", "uint32", "uint64", ">i4"):
        assert torch.equal(Image().encode(colours.astype(kind)), expected)
    for kind in (torch.int64, torch.int32, torch.int16):
        tensor = torch.from_numpy(colours).permute(2, 0, 1).to(kind)
        assert torch.equal(Image().encode(tensor), expected)
        assert torch.equal(Image().encode_all(tensor[None])[0], expected)
    picture = Pillow.fromarray(colours[..., 0].astype(np.int32))
    assert torch.equal(Image(1).encode(picture), expected[:1])


@pytest.mark.parametrize("kind", ["uint16", ">u2"])
def test_16_bits_in_any_byte_order(kind):
    """65535 is white in arrays and tensors."""
    grey = np.array([[0, 257, 32768, 65535]], dtype=kind)
    assert Image(1).encode(grey).flatten().tolist() == [0, 1, 128, 255]
    assert Image(1).encode_all(grey[None]).flatten().tolist() == [0, 1, 128, 255]
    tensor = torch.from_numpy(grey.astype(np.uint16))
    assert Image(1).encode(tensor).flatten().tolist() == [0, 1, 128, 255]


def test_bool_is_black_and_white():
    """Not 0 and 1 of 255."""
    values = np.array([[False, True]])
    for given in (values, torch.from_numpy(values), Pillow.fromarray(values)):
        assert Image(1).encode(given).flatten().tolist() == [0, 255]


WRONG = {
    "floats to 255": (np.array([[0.0, 219.0]]), r"from 0 to 219; floats are 0..1; Image\(white=25"),
    "normalized": (np.array([[-1.5, 1.5]]), "floats are 0..1; give them as they were"),
    "NaN": (np.array([[0.5, np.nan]]), "floats are 0..1"),
    "12 bits": (np.array([[0, 4000]]), r"int64 from 0 to 4000; integers are 0..255 .*white=4095"),
    "signed": (np.array([[-1, 5]], dtype=np.int8), "int8 from -1 to 5; integers are 0..255"),
    "complex": (np.array([[1j]]), "complex"),
    "texts": (np.array([["a"]]), "give numbers"),
    "empty": (np.zeros((0, 4)), "without pixels"),
}


@pytest.mark.parametrize("case", WRONG)
def test_values_that_are_no_pixels_are_refused_however_they_are_given(case):
    """One array, one tensor, or all in memory: the same rule."""
    values, message = WRONG[case]
    tensors = [torch.from_numpy(values)] if values.dtype.kind != "U" else []
    for given in (values, *tensors):
        with pytest.raises(DataError, match=message):
            Image(1).encode(given)
        with pytest.raises(DataError, match=message):
            Image(1).encode_all(given[None])


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_any_precision_are_float32(kind):
    """As the model takes them."""
    assert Image(1).encode(torch.tensor([[0.0, 0.5, 1.0]], dtype=kind)).dtype == torch.float32


def test_white_keeps_all_bits():
    """12 bits in 16 become floats in 0..1, and bytes beside them, too; more is refused."""
    block = Image(1, white=4095)
    ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    for given in (ramp, saved(Pillow.fromarray(ramp)), ramp.astype(np.int64)):
        encoded = block.encode(given)
        assert encoded.dtype == torch.float32
        assert len(encoded.unique()) == 4096
        assert encoded.max() == 1
    assert block.encode(np.array([[255]], dtype=np.uint8)).item() == 1
    assert Image(1, white=255).encode(np.array([[51.0, 255.0]])).flatten().tolist() == [
        pytest.approx(0.2),
        1,
    ]
    with pytest.raises(DataError, match=r"from 0 to 5000; Image\(white=4095\)"):
        block.encode(np.array([[0, 5000]]))
    assert block_from_state(block.state()).state() == block.state()


def test_12_bits_in_16_are_said_once(caplog):
    """They become dark images; the option that says otherwise is named."""
    block = Image(1)
    for _ in range(2):
        block.encode(np.array([[0, 4000]], dtype=np.uint16))
    assert caplog.text.count("whose greatest value is 4000 become 0 to 16 of 255") == 1
    assert "Image(white=4095)" in caplog.text


def test_other_numbers_of_channels_are_kept(colours):
    """Satellites and depth: arrays, tensors and files with as many channels as asked for."""
    six = np.concatenate([colours, colours], axis=2)
    assert Image(6).encode(six).shape == (6, 12, 9)
    assert Image(6).encode_all(np.stack([six, six])).shape == (2, 6, 12, 9)
    four = six[..., :4]
    four_planes = torch.from_numpy(four.copy()).permute(2, 0, 1)
    for raw in (four, Pillow.fromarray(four), saved(Pillow.fromarray(four), "TIFF"), four_planes):
        assert torch.equal(Image(4).encode(raw), four_planes)  # alpha is a channel as any
    with pytest.raises(DataError, match=r"\(12, 9, 3\), for Image\(channels=4\)"):
        Image(4).encode(colours)
    with pytest.raises(DataError, match="1 for grey, 3 for colours, or more"):
        Image(0)


def test_six_channels_are_drawn(colours):
    """The first three of them."""
    from matplotlib.figure import Figure

    six = Image(6).encode(np.concatenate([colours, colours], axis=2))
    for channels in (2, 6):
        Image(channels).draw(Figure().add_subplot(), six[:channels])


def test_a_damaged_png_is_refused_and_ends_no_process(colours):
    """One wrong byte in the middle."""
    data = bytearray(saved(Pillow.fromarray(np.tile(colours, (9, 9, 1)))))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(DataError, match="the image is damaged"):
        Image().encode(bytes(data))


def test_a_small_file_that_says_it_is_large_is_refused_before_it_is_unpacked(tmp_path):
    file = tmp_path / "large.gif"
    Pillow.new("L", (32, 24)).save(file)
    data = bytearray(file.read_bytes())
    data[6:10] = struct.pack("<HH", 12_000, 12_000)
    file.write_bytes(data)
    with pytest.raises(DataError, match=r"12000 x 12000 pixels.*MAX_IMAGE_PIXELS is 89,478,485"):
        Image().encode(file)


@pytest.mark.parametrize("codes", [{0: "sky", 1: "road"}, "abc"])
def test_codes_that_are_no_list_of_names_are_refused(codes):
    with pytest.raises(DataError, match="give the names in a list"):
        Mask(codes)


def test_a_code_to_ignore_may_be_given_by_its_name():
    assert Mask(["sky", "road", "void"], ignore="void").ignore == 2
    with pytest.raises(DataError, match=r"ignore='viod'.*did you mean 'void'"):
        Mask(["sky", "road", "void"], ignore="viod")

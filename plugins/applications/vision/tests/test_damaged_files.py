"""Damaged files of each format: an error that names the file, and never the end of the process."""

import io
import json
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image as Pillow

from trainbus_data import Category, Data, DataError
from trainbus_vision import Image

#: Damages copies of an image in several ways, and reads them all as a data set is read.
PROGRAM = """
import io, json, random, sys
from pathlib import Path
import numpy as np
from PIL import Image as Pillow
from trainbus_data import Category, Data, DataError
from trainbus_vision import Image

count, draw = int(sys.argv[1]), random.Random(0)
noise = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)

def damaged(raw):
    raw, way = bytearray(raw), draw.randrange(5)
    if way == 0:
        for _ in range(draw.randint(1, 8)):
            raw[draw.randrange(len(raw))] = draw.randrange(256)
    elif way == 1:
        del raw[draw.randrange(len(raw)) :]
    elif way == 2:
        at = draw.randrange(len(raw)); raw[at : at + draw.randint(1, 64)] = bytes(64)
    elif way == 3:
        at = draw.randrange(len(raw)); raw[at:at] = draw.randbytes(draw.randint(1, 32))
    else:
        raw[draw.randrange(min(64, len(raw)))] ^= 1 << draw.randrange(8)
    return bytes(raw)

found = {}
for kind in sys.argv[2:]:
    file = io.BytesIO(); Pillow.fromarray(noise).save(file, kind); files = []
    for number in range(count):
        files.append(Path(f"{kind}-{number}.bin")); files[-1].write_bytes(damaged(file.getvalue()))
    try:
        Data.from_lists(files, [0, 1] * (count // 2), (Image(), Category()), unreadable="list")
        found[kind] = []
    except DataError as error:
        found[kind] = str(error).splitlines()[1:]
    for each in files:
        each.unlink()
print(json.dumps(found))
"""
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")


def errors_of(count, *formats):
    """The lines of the error of each format, read in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(count), *formats], capture_output=True, text=True
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_a_thousand_damaged_files_of(kind):
    """An error for each that names it; a process that ended would have another code than 0."""
    lines = errors_of(1000, kind)[kind]
    assert lines
    assert all(line.startswith("- item ") and f"({kind}-" in line for line in lines)


def test_one_wrong_byte_in_a_png_is_an_error_that_names_it():
    """libpng would end the process."""
    file = io.BytesIO()
    noise = np.random.default_rng(7).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    Pillow.fromarray(noise).save(file, "PNG")
    raw = bytearray(file.getvalue())
    raw[len(raw) // 2] ^= 0xFF
    with pytest.raises(DataError, match="the image is damaged"):
        Image().encode(bytes(raw))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_size_that_would_fill_the_memory_is_refused(kind):
    """65,500 x 65,500 pixels in a file of a few hundred bytes: nothing is allocated for them."""
    file = io.BytesIO()
    Pillow.new("RGB", (16, 16)).save(file, kind)
    raw = bytearray(file.getvalue())
    if kind == "JPEG":
        raw[(at := raw.index(b"\xff\xc0") + 5) : at + 4] = struct.pack(">HH", 65500, 65500)
    else:
        raw[16:24] = struct.pack(">II", 65500, 65500)
        raw[29:33] = struct.pack(">I", zlib.crc32(raw[12:29]))
    with pytest.raises(DataError, match=r"larger than is safe|damaged"):
        Image().encode(bytes(raw))


def test_good_files_beside_damaged_ones_are_read(tmp_path):
    """`unreadable="skip"` leaves out what is damaged, and nothing else."""
    files = [tmp_path / f"{number}.png" for number in range(10)]
    for file in files:
        Pillow.new("RGB", (8, 8)).save(file)
    files[3].write_bytes(files[3].read_bytes()[:-30])
    blocks = (Image(), Category())
    data = Data.from_lists(files, [0, 1] * 5, blocks, unreadable="skip", num_workers=0)
    assert len(data.train_items) + len(data.valid_items) == 9

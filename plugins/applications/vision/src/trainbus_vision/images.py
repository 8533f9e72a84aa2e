"""Images, and masks that hold a code for each pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainbus.errors import nearest
from trainbus_data.blocks import Block, Metric
from trainbus_data.cells import check_labels, is_missing
from trainbus_data.errors import DataError
from trainbus_data.sources import find_files
from trainbus_data.transforms import Kinds, Parts
from trainbus_vision import decoding
from trainbus_vision.metrics import MeanIoU, PixelAccuracy
from trainbus_vision.palette import color_of, palette_for
from trainbus_vision.pixels import Scale, channels_first, codes_of, to_channels
from trainbus_vision.transforms import Resize, Size

#: How the names of files with images end.
ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


def find_images(folder: str | Path, recurse: bool = True) -> list[Path]:
    """The images in a folder, sorted by their path; hidden files and folders are left out.

    Args:
        folder: where to look.
        recurse: in its folders too.

    Raises:
        DataError: there is no such folder, or no image in it.
    """
    return find_files(folder, ENDINGS, recurse)


class _Picture(Block):
    """What images and masks share: they are read from files, and have a size in pixels."""

    is_file = True
    endings = ENDINGS
    shape_hint = "bring all to one size, with size=224 or item_transforms=[Resize(224)]"

    def sized(self, size: Size) -> Resize:
        """`Resize`, which cuts off what is over."""
        return Resize(size)

    def sized_whole(self, size: Size, kinds: Kinds) -> Resize:
        """`Resize` that keeps all: black around, but masks, which have no class for that."""
        return Resize(size, "squish" if "mask" in kinds else "pad")


class Image(_Picture):
    """An image: uint8, C x H x W, in a batch N x C x H x W; floats in 0..1 where those are given.

    It is given as a path, bytes, a PIL image, an array (H x W or H x W x C) or a tensor
    (C x H x W). Bytes are 0..255, bool is black and white, uint16 is 0..65535, other integers are
    0..255, floats 0..1; what does not fit is refused. Grey is spread to three channels, colours
    are mixed to one, transparent parts laid on white; other numbers of channels are kept as they
    are. A rotation that a camera noted is applied.

    Args:
        channels: 3 (red, green, blue), 1 (grey), or as many as the images have.
        white: the value of white in images that are not in bytes: 4095 for 12 bits, 255 for floats
            in 0..255. They become floats in 0..1, and keep all bits.
    """

    kind = "image"

    def __init__(self, channels: int = 3, white: float | None = None) -> None:
        if channels < 1:
            raise DataError(f"Image(channels={channels}): 1 for grey, 3 for colours, or more")
        self.channels = channels
        self.scale = Scale(white)

    @classmethod
    def like(cls, images: Any) -> Image:
        """With the channels of a tensor or array of images; one where there is no dimension."""
        shape = tuple(getattr(images, "shape", ()))
        if len(shape) != 4:
            return cls(1)
        return cls(shape[1 if channels_first(shape, isinstance(images, Tensor)) else 3])

    @classmethod
    def of(cls, image: Any) -> Image:
        """With the channels of one image, if that is an array or a tensor of another number than
        grey and colours have.
        """
        shape = tuple(getattr(image, "shape", ()))
        if len(shape) != 3:
            return cls()
        given = shape[0 if isinstance(image, Tensor) else 2]
        return cls(given) if given > 4 else cls()

    def problem(self, raw: Any) -> str | None:
        """No image given."""
        return "the image is missing" if is_missing(raw) else None

    def prepare(self) -> None:
        """Import torchvision, which takes seconds."""
        decoding.prepare()

    def encode(self, raw: Any) -> Tensor:
        """Read it: C x H x W."""
        return decoding.read_image(raw, self.channels, self.scale)

    def encode_all(self, raws: Any) -> Tensor:
        """N x C x H x W of a tensor or array N x H x W, N x C x H x W or N x H x W x C."""
        if not isinstance(raws, (Tensor, np.ndarray)):
            return super().encode_all(raws)
        shape = tuple(raws.shape)
        if len(shape) not in (3, 4):
            raise DataError(f"images of shape {shape}; {self._shapes()}")
        images = self.scale(raws)
        if images.ndim == 3:
            images = images[:, None]
        elif not channels_first(shape, isinstance(raws, Tensor), self.channels):
            images = images.permute(0, 3, 1, 2).contiguous()
        try:
            return to_channels(images, self.channels)
        except DataError as error:
            raise DataError(f"images of shape {shape}: {error}; {self._shapes()}") from None

    def _shapes(self) -> str:
        return (
            f"Image({self.channels}) takes N x H x W, N x {self.channels} x H x W or N x H x W x "
            f"{self.channels}"
        )

    def corners(self, value: Tensor) -> Tensor:
        """The upper left and the lower right one, in pixels."""
        height, width = value.shape[-2:]
        return torch.tensor([[0.0, 0.0], [width, height]])

    def decode(self, value: Tensor) -> np.ndarray[Any, Any]:
        """An array H x W x C, H x W when grey: uint8, or floats cut to 0..1."""
        image = value.detach().cpu()
        if image.is_floating_point():
            image = image.float().clamp(0, 1)
        return (image[0] if image.shape[0] == 1 else image.permute(1, 2, 0)).numpy()

    def draw(self, axes: Any, value: Any, color: str | None = None) -> None:
        """Show it; of more than three channels the first three, of two the first."""
        array = self.decode(value) if isinstance(value, Tensor) else np.asarray(value)
        if array.ndim == 3 and array.shape[2] != 3:
            array = array[..., :3] if array.shape[2] > 3 else array[..., 0]
        white = 255 if array.dtype == np.uint8 else 1
        axes.imshow(array, cmap="gray" if array.ndim == 2 else None, vmin=0, vmax=white)
        axes.set_axis_off()

    def options(self) -> dict[str, Any]:
        """The channels, and white if it was given."""
        white = self.scale.white
        return {"channels": self.channels, **({} if white is None else {"white": white})}


class Mask(_Picture):
    """A class for each pixel: int64 codes H x W, in a batch N x H x W.

    It is given as a path, a PIL image, an array or a tensor: a grey image whose values, or a
    palette image whose indices are the codes. The loss is cross-entropy over the pixels.

    Args:
        codes: the names of the classes, in the order of their codes, or their number.
        ignore: a code, or the name of one, that counts neither in the loss nor in the metrics (11,
            "void", in CamVid).
    """

    kind = "mask"
    in_picture = True
    #: What is passed to the loss where nothing is to be ignored.
    _NOTHING = -100

    def __init__(
        self, codes: Sequence[str] | int | None = None, ignore: int | str | None = None
    ) -> None:
        if isinstance(codes, (str, Mapping)):
            raise DataError(
                f"Mask(codes={codes!r:.100}): give the names in a list, in the order of their codes"
            )
        self.vocab = [str(n) for n in range(codes)] if isinstance(codes, int) else list(codes or ())
        if isinstance(ignore, str):
            if ignore not in self.vocab:
                raise DataError(
                    f"Mask(ignore={ignore!r}): give a code, or one of the names in codes="
                    f"{nearest(ignore, self.vocab)}"
                )
            ignore = self.vocab.index(ignore)
        self.ignore = ignore
        if self.vocab:
            check_labels(self.vocab, "Mask")
            self._count()

    def _count(self) -> None:
        # The code to ignore needs no output where it is the last one.
        last = len(self.vocab) - 1
        self.outputs = last if self.ignore == last else len(self.vocab)

    def setup(self, raws: Iterable[Any]) -> None:
        """Without names: read all masks of the training part for the greatest code."""
        if self.vocab:
            return
        highest = -1
        for raw in raws:
            codes = self.encode(raw)
            if self.ignore is not None:
                codes = codes[codes != self.ignore]
            if (codes < 0).any():
                raise DataError(
                    f"a mask holds the code {int(codes.min())}, which is no class; ignore="
                    f"{int(codes.min())} if it marks what is not to count"
                )
            highest = max(highest, int(codes.max()) if codes.numel() else -1)
        if highest < 1:
            raise DataError("the masks of the training part hold fewer than two classes")
        if highest >= 255:
            raise DataError(
                f"the greatest code in the masks is {highest}; give codes=[...], and ignore="
                f"{highest} if it marks what is not to count"
            )
        self.vocab = [str(number) for number in range(highest + 1)]
        self._count()

    def problem(self, raw: Any) -> str | None:
        """No mask given."""
        return "the mask is missing" if is_missing(raw) else None

    def encode(self, raw: Any) -> Tensor:
        """Read it: int64, H x W."""
        return self._checked(decoding.read_codes(raw))

    def _checked(self, codes: Tensor) -> Tensor:
        if not self.vocab:
            return codes
        wrong = (codes < 0) | (codes >= len(self.vocab))
        if self.ignore is not None:
            wrong &= codes != self.ignore
        if wrong.any():
            found = sorted(set(codes[wrong].tolist()))[:5]
            raise DataError(
                f"the mask holds the code {', '.join(map(str, found))}, but there are "
                f"{len(self.vocab)} classes (0 to {len(self.vocab) - 1}, ignored: {self.ignore}); "
                f"codes={len(self.vocab)} and ignore= say what counts"
            )
        return codes

    def misfit(self, value: Tensor, parts: Parts, kinds: Kinds) -> str | None:
        """A mask of another size than its image."""
        image = parts[kinds.index("image")] if "image" in kinds else value
        if value.shape[-2:] == image.shape[-2:]:
            return None
        of = [f"{part.shape[-2]} x {part.shape[-1]}" for part in (value, image)]
        return f"{of[0]} pixels, but those of its image are {of[1]}"

    def tally(self, value: Tensor, parts: Parts, kinds: Kinds) -> dict[str, int]:
        """How many pixels count, and how many are ignored."""
        gone = 0 if self.ignore is None else int((value == self.ignore).sum())
        return {"ignored": gone, "counted": value.numel() - gone}

    def encode_all(self, raws: Any) -> Tensor:
        """N x H x W int64."""
        if isinstance(raws, (Tensor, np.ndarray)) and raws.ndim in (3, 4):
            codes = codes_of(raws)
            if codes.ndim == 4 and codes.shape[1] == 1:
                codes = codes[:, 0]
            if codes.ndim == 3:
                return self._checked(codes)
        return super().encode_all(raws)

    def decode(self, value: Tensor) -> np.ndarray[Any, Any]:
        """An array H x W of codes."""
        return value.detach().cpu().numpy()

    def restored(
        self, value: Tensor, corners: Tensor, size: tuple[float, float]
    ) -> np.ndarray[Any, Any]:
        """An array of codes in the size of the image as it was given.

        What the model did not see, for it was cut off, is the code to ignore, or -1.
        """
        rows, columns = (
            start + (torch.arange(int(length)) + 0.5) * ((end - start) / length)
            for length, (start, end) in zip(reversed(size), corners.T.flip(0).tolist(), strict=True)
        )
        height, width = value.shape
        inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
        at = rows.long().clamp(0, height - 1)[:, None], columns.long().clamp(0, width - 1)
        unseen = -1 if self.ignore is None else self.ignore
        return self.decode(torch.where(inside, value.cpu()[at], unseen))

    def draw(self, axes: Any, value: Any, color: str | None = None) -> None:
        """Lay the classes over what is there, each in its colour; what is ignored stays clear."""
        codes = self.decode(value) if isinstance(value, Tensor) else np.asarray(value)
        shown = np.ma.masked_where((codes == self.ignore) | (codes < 0), codes)
        name, colors = palette_for(self.outputs or 2)
        axes.imshow(
            shown % colors, cmap=name, alpha=0.55, interpolation="nearest", vmin=0, vmax=colors - 1
        )
        axes.set_axis_off()

    def write(self, label: Any, path: Path) -> Path:
        """A PNG whose indices are the codes, which `Mask` reads, and whose colours tell them apart.

        What the model did not see is the code to ignore, or 255; codes above that are 16-bit grey.
        """
        from PIL import Image as Pillow

        codes = np.asarray(label)
        path = path.with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        if codes.max(initial=0) > 255:
            Pillow.fromarray(np.where(codes < 0, 65535, codes).astype(np.uint16)).save(path)
            return path
        picture = Pillow.fromarray(np.where(codes < 0, 255, codes).astype(np.uint8), "L")
        known = range(len(self.vocab))
        colors = [
            color_of(code, self.outputs or 2) if code in known else (0, 0, 0) for code in range(256)
        ]
        picture.putpalette([part for color in colors for part in color])
        picture.save(path)
        return path

    def legend(self, values: Sequence[Any]) -> list[tuple[str, Any]]:
        """The classes that occur in masks, each with its colour."""
        found = sorted(
            {
                int(code)
                for value in values
                if value is not None
                for code in np.unique(value.cpu() if isinstance(value, Tensor) else value)
            }
        )
        counted = [code for code in found if 0 <= code < len(self.vocab) and code != self.ignore]
        classes = self.outputs or 2
        return [
            (self.vocab[code], (*(part / 255 for part in color_of(code, classes)), 0.55))
            for code in counted
        ]

    def loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Cross-entropy over the pixels; probabilities N x C x H x W are targets too."""
        return PixelLoss(self._NOTHING if self.ignore is None else self.ignore)

    def metrics(self) -> dict[str, Metric]:
        """The part of the pixels that is right, and the mean IoU, both over the whole pass."""
        classes = self._classes()
        return {
            "pixel_accuracy": PixelAccuracy(self.ignore),
            "mean_iou": MeanIoU(classes, self.ignore),
        }

    def activation(self, output: Tensor) -> Tensor:
        """Softmax over the classes: N x C x H x W."""
        return output.softmax(dim=-3)

    def read(self, probabilities: Tensor) -> Tensor:
        """The most probable class of each pixel: N x H x W."""
        return probabilities.argmax(dim=-3)

    def needs(self) -> str:
        """One output for each class."""
        names = ", ".join(map(repr, self.vocab[: self.outputs][:6]))
        return f"{self.outputs} outputs for each pixel, one for each class ({names}, ...)"

    def _classes(self) -> int:
        if self.outputs is None:
            raise DataError("Mask: the number of classes is not known yet; give codes=[...]")
        return self.outputs

    def options(self) -> dict[str, Any]:
        """Codes, and which is ignored."""
        return {"codes": self.vocab or None, "ignore": self.ignore}


class PixelLoss:
    """Cross-entropy over pixels: outputs N x C x H x W, masks N x H x W or probabilities."""

    def __init__(self, ignore: int) -> None:
        self.ignore = ignore

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean over the pixels that count; 0 where none does."""
        if target.is_floating_point():
            return functional.cross_entropy(output, target)
        total = functional.cross_entropy(
            output.float(), target, ignore_index=self.ignore, reduction="sum"
        )
        return total / self.counted(target).clamp(min=1)

    def counted(self, target: Tensor) -> Tensor:
        """How many pixels count."""
        return (target != self.ignore).sum()

    def __repr__(self) -> str:
        return f"PixelLoss(ignore={self.ignore})"

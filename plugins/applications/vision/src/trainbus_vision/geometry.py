"""Points and boxes, in pixels: x from the left, y from the top, the centre of a pixel at +0.5."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainbus_data.blocks import Block, Metric
from trainbus_data.errors import DataError
from trainbus_data.transforms import Kinds, Parts
from trainbus_vision.boxes import check_min_score, joined
from trainbus_vision.framing import checked_pairs
from trainbus_vision.metrics import PointDistance

_NAN = float("nan")


def _rows(raw: Any, width: int, what: str) -> Tensor:
    """K x width float32; a None among them is a missing one."""
    if isinstance(raw, (list, tuple)):
        raw = [[_NAN] * width if row is None else row for row in raw]
    values = torch.as_tensor(
        raw if isinstance(raw, Tensor) else np.asarray(raw, dtype=np.float32)
    ).float()
    if values.numel() == 0:
        return values.reshape(0, width)
    if values.ndim == 1 and values.numel() % width == 0:
        values = values.reshape(-1, width)
    if values.ndim != 2 or values.shape[1] != width:
        raise DataError(f"{what} of shape {tuple(values.shape)}; they are K x {width}, in pixels")
    return values


def _inside(places: Tensor, parts: Parts, kinds: Kinds) -> Tensor:
    """Whether each point, or the first corner of each box, is inside of its image."""
    if "image" not in kinds:
        return torch.ones(places.shape[:-1], dtype=torch.bool, device=places.device)
    height, width = parts[kinds.index("image")].shape[-2:]
    x, y = places[..., 0], places[..., 1]
    return (x >= 0) & (x <= width) & (y >= 0) & (y <= height)


class _InPicture(Block):
    """What lies in the picture of the input: it is there and right, or says what is wrong."""

    in_picture = True

    def setup(self, raws: Iterable[Any]) -> None:
        """Refuse places that are parts of the size of an image."""
        width = 4 if self.kind == "boxes" else 2
        highest = 0.0
        for raw in raws:
            if raw is not None and (rows := _rows(raw, width, self.kind)).numel():
                highest = max(highest, float(rows.nan_to_num(0.0).max()))
        if 0 < highest <= 1:
            raise DataError(
                f"all {self.kind} of the training part are in 0..{highest:.3g}; they are in pixels "
                "of their image, not in parts of its size: multiply by its width and height"
            )

    def misfit(self, value: Tensor, parts: Parts, kinds: Kinds) -> str | None:
        """Places of which an item has none inside of its image: in another order or scale."""
        if "image" not in kinds or not value.numel():
            return None
        height, width = parts[kinds.index("image")].shape[-2:]
        inside = _inside(value, parts, kinds)
        there = ~value.isnan().any(dim=-1)
        outside = there.any(dim=-1) & ~(inside & there).any(dim=-1)
        if not outside.any():
            return None
        rows = value[outside] if value.ndim == 3 else value
        lost = (there & outside[..., None]).sum().item() if value.ndim == 3 else there.sum().item()
        shown = ", ".join(f"{number:g}" for number in rows[~rows.isnan().any(dim=-1)][0].tolist())
        order = "(x, y)" if self.kind == "points" else "(x1, y1, x2, y2)"
        return (
            f"{lost} of {there.sum().item()} {self.kind} are outside of their image ({width} x "
            f"{height}), ({shown}) for example; {self.kind} are {order} in pixels, x to the right, "
            "and NaN is missing"
        )

    def problem(self, raw: Any) -> str | None:
        """Why it cannot be encoded: missing, or not in the numbers and the order it has to have."""
        try:
            self.encode(raw)
        except (DataError, TypeError, ValueError) as error:
            return str(error)
        return None


class Points(_InPicture):
    """Points of an image: (K, 2) float32 as (x, y) in pixels, in a batch N x K x 2.

    A missing point is NaN (or None); it counts neither in the loss nor in the metric. A model
    gives 2 K numbers: coordinates scaled so that -1 is the left (upper) edge of the image and 1
    the right (lower) one. The loss is the mean squared error of those; `activation` makes pixels.

    Args:
        count: points of each image, K; by default as many as the first of training has.
        size: (height, width) of the images that the model sees; by default learned from training.
        flip_pairs: points that are each other's left and right, [(0, 1)] for two eyes: transforms
            that mirror exchange them. [] if none are; None if nobody says, and then no default
            mirrors.
    """

    kind = "points"
    overlays = True

    def __init__(
        self,
        count: int | None = None,
        size: Sequence[int] | None = None,
        flip_pairs: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self.count = count
        self.flip_pairs = None if flip_pairs is None else checked_pairs(flip_pairs)
        self.size = None if size is None else (int(size[0]), int(size[1]))
        self.outputs = None if count is None else 2 * count

    def setup(self, raws: Iterable[Any]) -> None:
        """Count the points of the first image."""
        raws = list(raws)
        super().setup(raws)
        first = next((raw for raw in raws if raw is not None), None)
        if self.count is None and first is not None:
            self.count = len(_rows(first, 2, "points"))
            self.outputs = 2 * self.count

    def tally(self, value: Tensor, parts: Parts, kinds: Kinds) -> dict[str, int]:
        """How many points count, are missing, or are outside of their image."""
        there = ~value.isnan().any(dim=-1)
        outside = there & ~_inside(value, parts, kinds)
        return {
            "missing": int((~there).sum()), "outside of their image": int(outside.sum()),
            "counted": int((there & ~outside).sum()),
        }  # fmt: skip

    def see(self, parts: Parts, kinds: Kinds) -> None:
        """Take the size of the images."""
        if self.size is None and "image" in kinds:
            height, width = parts[kinds.index("image")].shape[-2:]
            self.size = (height, width)

    def restored(self, value: Tensor, corners: Tensor, size: tuple[float, float]) -> Any:
        """Points in pixels of the image as it was given."""
        scale = (corners[1] - corners[0]) / torch.tensor(size)
        return self.decode((value.cpu() - corners[0]) / scale)

    def fitted(self, target: Any, inputs: Sequence[Any]) -> Any:
        """Points of images of another size (a crop in training) in pixels of the usual one."""
        height, width = inputs[0].shape[-2:]
        if self.size in (None, (height, width)):
            return target
        scale = (self._image_size()[1] / width, self._image_size()[0] / height)
        return target * torch.tensor(scale, device=target.device)

    def encode(self, raw: Any) -> Tensor:
        """K x 2 float32."""
        if raw is None:
            raise DataError("the points are missing; a single missing point is None or NaN")
        points = _rows(raw, 2, "points")
        if self.count is not None and len(points) != self.count:
            raise DataError(
                f"{len(points)} points, where {self.count} are expected; a missing one is NaN"
            )
        return points

    def encode_all(self, raws: Any) -> Tensor:
        """N x K x 2 float32."""
        if isinstance(raws, (Tensor, np.ndarray)) and raws.ndim == 3:
            self.encode(raws[0])  # it refuses another shape, and another number of points
            return torch.as_tensor(raws).float()
        return super().encode_all(raws)

    def draw(self, axes: Any, value: Any, color: str | None = None) -> None:
        """A dot for each point; matplotlib has the centre of a pixel at whole numbers."""
        points = np.asarray(value.cpu() if isinstance(value, Tensor) else value, dtype=float) - 0.5
        axes.scatter(
            points[:, 0], points[:, 1], s=18, c=color or "tab:red", edgecolors="w", linewidths=0.6
        )

    def draw_both(self, axes: Any, target: Any, given: Any) -> None:
        """Targets green, predictions red, and a line between the two of each point."""
        ends = [np.asarray(each.cpu(), dtype=float) - 0.5 for each in (target, given)]
        for true, found in zip(*ends, strict=True):  # no line where one is missing
            axes.plot([true[0], found[0]], [true[1], found[1]], color="white", linewidth=1)
        super().draw_both(axes, target, given)

    def _image_size(self) -> tuple[int, int]:
        if self.size is None:
            raise DataError(
                "Points: the size of the images is not known yet; give size=(height, width), or "
                "let a Data be made with it"
            )
        return self.size

    def activation(self, output: Tensor) -> Tensor:
        """Pixels, N x K x 2, of what a model gives: N x 2K or N x K x 2 in -1..1."""
        height, width = self._image_size()
        x, y = output.reshape(len(output), -1, 2).unbind(dim=-1)
        return torch.stack(((x + 1) * (width / 2), (y + 1) * (height / 2)), dim=-1)

    def loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The mean squared error of the scaled coordinates of the points that are there."""
        return PointLoss(self._image_size())

    def metrics(self) -> dict[str, Metric]:
        """The mean distance in pixels."""
        return {"pixel_distance": PointDistance(self.activation)}

    def needs(self) -> str:
        """Two outputs for each point."""
        return f"{self.outputs} outputs, x and y of each of {self.count} points"

    def options(self) -> dict[str, Any]:
        """Count, size, and pairs if they were given."""
        size = None if self.size is None else list(self.size)
        pairs = {} if self.flip_pairs is None else {"flip_pairs": list(map(list, self.flip_pairs))}
        return {"count": self.count, "size": size, **pairs}


class PointLoss:
    """The mean squared error of points scaled to -1..1; missing ones (NaN) do not count.

    Args:
        size: (height, width) of the images.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Of N x 2K or N x K x 2 (scaled) and N x K x 2 (pixels); 0 where no point is there."""
        points = output.reshape(target.shape)
        there = ~target.isnan()
        x, y = target.nan_to_num().unbind(dim=-1)
        scaled = torch.stack((x * (2 / self.size[1]) - 1, y * (2 / self.size[0]) - 1), dim=-1)
        errors = torch.where(there, points - scaled, 0.0).square()
        return errors.sum() / there.sum().clamp(min=1)

    def counted(self, target: Tensor) -> Tensor:
        """How many coordinates count."""
        return (~target.isnan()).sum()

    def __repr__(self) -> str:
        return f"PointLoss(size={self.size})"


class Boxes(_InPicture):
    """Boxes in an image: (K, 4) float32 as (x1, y1, x2, y2) in pixels, in a batch N x K x 4.

    Where an image has fewer boxes than others of its batch, NaN follows. Their labels are a block
    of their own, `Labels`; both together are one target, `Detections`. There is no loss: it belongs
    to the model that finds boxes.

    Args:
        min_score: of a predicted box that is shown.
    """

    kind = "boxes"

    def __init__(self, min_score: float = 0.5) -> None:
        self.min_score = check_min_score(min_score)

    def together(self, others: Sequence[Block]) -> Block:
        """With labels one target."""
        return joined(self, others) or super().together(others)

    def options(self) -> dict[str, Any]:
        """The least score."""
        return {"min_score": self.min_score}

    def encode(self, raw: Any) -> Tensor:
        """K x 4 float32."""
        if raw is None:
            raise DataError("the boxes are missing; an image without any has an empty list")
        boxes = _rows(raw, 4, "boxes")
        if (boxes[:, 2:] <= boxes[:, :2]).any():
            raise DataError("a box whose second corner is not right of and below the first")
        return boxes

    def same_shape(self, values: Sequence[Tensor]) -> bool:
        """Any number goes with any other."""
        return True

    def batch(self, values: Sequence[Tensor]) -> Tensor:
        """N x K x 4, with NaN where there is none."""
        return torch.nn.utils.rnn.pad_sequence(list(values), batch_first=True, padding_value=_NAN)

    def decode(self, value: Tensor) -> list[list[float]]:
        """The boxes that are there."""
        rows: list[list[float]] = value[~value.isnan().any(dim=1)].tolist()
        return rows

    def draw(self, axes: Any, value: Any, color: str | None = None) -> None:
        """A frame for each box."""
        from matplotlib.patches import Rectangle

        for x1, y1, x2, y2 in self.decode(value) if isinstance(value, Tensor) else value:
            axes.add_patch(
                Rectangle(
                    (x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1,
                    fill=False, edgecolor=color or "tab:red", linewidth=1.5,
                )
            )  # fmt: skip

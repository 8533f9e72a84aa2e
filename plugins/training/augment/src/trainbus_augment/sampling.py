"""The one interpolation: images, masks, points and boxes go where homographies send them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from trainbus import UsageError
from trainbus_augment import host
from trainbus_augment.transforms import Size

Padding = Literal["reflection", "border", "zeros"]
_Sample = Callable[[Tensor, list[int]], Tensor]

#: What needs no interpolation: the dimensions to be flipped, and the signs of x and y.
_FLIPS = {(): (1, 1), (-1,): (-1, 1), (-2,): (1, -1), (-2, -1): (-1, -1)}


class Motion:
    """Where the pixels of each image come from, for a batch; it is done piece by piece.

    Args:
        matrix: N x 3 x 3 on the CPU, from points of the new images to points of the old ones, both
            in pixels from the middle.
        before: the size of the old images.
        after: the size of the new ones.
        padding: what is outside of the old images.
        device: where the images are.
    """

    def __init__(
        self, matrix: Tensor, before: Size, after: Size, padding: Padding, device: torch.device
    ) -> None:
        self.matrix = matrix
        self.before = before
        self.after = after
        self.padding = padding
        self.device = device
        #: For each image the dimensions to be flipped, or None where it has to be interpolated.
        self.flips: list[tuple[int, ...] | None] = [None] * len(matrix)
        if before == after:
            for flip, (x, y) in _FLIPS.items():
                same = matrix.new_tensor([[x, 0, 0], [0, y, 0], [0, 0, 1]])
                for row in host.true_rows((matrix == same).all(dim=2).all(dim=1)):
                    self.flips[row] = flip

    @cached_property
    def nothing(self) -> bool:
        """Whether all images stay as they are."""
        return all(flip == () for flip in self.flips)

    def images(self, old: Tensor, first: int = 0) -> Tensor:
        """New images, n x C x H x W in float, bilinear; of images `first` and on of the batch."""
        return self._done(old, first, self._bilinear, as_float)

    def masks(self, old: Tensor) -> Tensor:
        """New masks, N x H x W of the same whole numbers, each from the nearest pixel."""
        if (height := old.shape[-2], width := old.shape[-1]) != self.before:
            raise UsageError(
                f"a mask of {height} x {width} pixels belongs to an image of "
                f"{self.before.height} x {self.before.width}; give both the same size"
            )
        return self._done(old, 0, self._nearest, lambda mask: mask)

    def _done(
        self, old: Tensor, first: int, sample: _Sample, convert: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Interpolate what has to be, and mirror or keep the rest exactly."""
        rows_of = defaultdict(list)
        for row, flip in enumerate(self.flips[first : first + len(old)]):
            rows_of[flip].append(row)
        if list(rows_of) == [None]:
            return sample(old, list(range(first, first + len(old))))
        if list(rows_of) == [()]:
            return convert(old)
        new = old.new_empty(*old.shape[:-2], *self.after)
        new = new if convert is not as_float else as_float(new)
        for flip, rows in rows_of.items():
            where = host.index(rows, old)
            if flip is None:
                part = sample(old[where], [first + row for row in rows])
            else:
                part = convert(old[where].flip(flip))
            new.index_copy_(0, where, part)
        return new

    def _bilinear(self, old: Tensor, rows: list[int]) -> Tensor:
        """Interpolated images; those that shrink are averaged before, by a whole factor."""
        dtype = old.dtype if old.is_floating_point() else torch.float32
        factors = [self._factors[row] for row in rows]
        if max(factors) == 1:
            return self._sampled(as_float(old).float(), rows, 1, "bilinear").to(dtype)
        new = torch.empty(*old.shape[:2], *self.after, dtype=dtype, device=old.device)
        for factor in dict.fromkeys(factors):
            those = [place for place, other in enumerate(factors) if other == factor]
            where = host.index(those, old)
            part = as_float(old[where]).float()
            if factor > 1:
                part = functional.avg_pool2d(part, factor, ceil_mode=True, count_include_pad=False)
            part = self._sampled(part, [rows[place] for place in those], factor, "bilinear")
            new.index_copy_(0, where, part.to(dtype))
        return new

    def _nearest(self, old: Tensor, rows: list[int]) -> Tensor:
        # Whole numbers up to 2^24 are exact in float32.
        return self._sampled(old[:, None].float(), rows, 1, "nearest")[:, 0].to(old.dtype)

    def _sampled(self, old: Tensor, rows: list[int], factor: int, mode: str) -> Tensor:
        """grid_sample of images whose pixels are `factor` x `factor` of `before`."""
        count = rows[-1] + 1 - rows[0]
        where = slice(rows[0], rows[-1] + 1) if count == len(rows) else host.index(rows, old)
        grid = _grid(self._theta(factor)[where], self.after, self._in_perspective)
        return functional.grid_sample(
            old, grid, mode=mode, padding_mode=self.padding, align_corners=False
        )

    def _theta(self, factor: int) -> Tensor:
        """The matrices on the device, between coordinates from -1 to 1 as grid_sample has them."""
        if factor not in self._thetas:
            # The averages of the last column and row may reach over the edge.
            width = -(-self.before.width // factor) * factor
            height = -(-self.before.height // factor) * factor
            into = self.matrix.new_tensor([
                [2 / width, 0, self.before.width / width - 1],
                [0, 2 / height, self.before.height / height - 1],
                [0, 0, 1],
            ])  # fmt: skip
            half = self.matrix.new_tensor([self.after.width / 2, self.after.height / 2, 1])
            self._thetas[factor] = host.send(into @ self.matrix * half, self.device)
        return self._thetas[factor]

    @cached_property
    def _thetas(self) -> dict[int, Tensor]:
        return {}

    @cached_property
    def _in_perspective(self) -> bool:
        return bool(host.true_rows((self.matrix[:, 2, :2] != 0).any(dim=1)))

    @cached_property
    def _factors(self) -> list[int]:
        """By what each image is to be averaged before: 1 where it shrinks less than 2 times.

        How many old pixels there are for a new one, in one direction, at the middle of the image.
        """
        matrix, corner = self.matrix, self.matrix[:, 2, 2, None, None]
        jacobian = matrix[:, :2, :2] / corner - matrix[:, :2, 2:] * matrix[:, 2:, :2] / corner**2
        area = jacobian[:, 0, 0] * jacobian[:, 1, 1] - jacobian[:, 0, 1] * jacobian[:, 1, 0]
        return [max(1, int(factor)) for factor in host.numbers(area.abs().sqrt())]

    @cached_property
    def mirrored(self) -> list[int]:
        """The images whose left and right, or top and bottom, are exchanged."""
        return host.true_rows(torch.linalg.det(self.matrix) < 0)

    # --- points and boxes ----------------------------------------------------------------------

    def points(self, points: Tensor) -> Tensor:
        """Where points, N x K x 2 as (x, y) in pixels, are now; NaN for those that left."""
        new = self._moved_points(points)
        size = self._corner(points)
        inside = ((new >= 0) & (new <= size)).all(dim=-1, keepdim=True)
        return torch.where(inside, new, torch.nan).to(points.dtype)

    def boxes(self, boxes: Tensor) -> Tensor:
        """The hulls of boxes, N x K x 4 as (x1, y1, x2, y2), clipped; NaN for those that left."""
        x1, y1, x2, y2 = boxes.unbind(dim=-1)
        corners = torch.stack([x1, y1, x2, y1, x2, y2, x1, y2], dim=-1)
        new = self._moved_points(corners.view(len(boxes), -1, 2)).view(*boxes.shape[:2], 4, 2)
        low = new.amin(dim=2).clamp(min=0)
        high = torch.minimum(new.amax(dim=2), self._corner(boxes))
        there = (high > low).all(dim=-1, keepdim=True)
        return torch.where(there, torch.cat([low, high], dim=-1), torch.nan).to(boxes.dtype)

    def _corner(self, like: Tensor) -> Tensor:
        """The lower right corner of the new images: (x, y)."""
        return host.send(self.matrix.new_tensor([self.after.width, self.after.height]), like.device)

    def _moved_points(self, points: Tensor) -> Tensor:
        """Points, N x K x 2, in float32; NaN for those behind the viewer."""
        into = _translation(self.matrix, -self.before.width / 2, -self.before.height / 2)
        out_of = _translation(self.matrix, self.after.width / 2, self.after.height / 2)
        forward = host.send(out_of @ torch.linalg.inv(self.matrix) @ into, points.device)
        points = points.float()
        new = points @ forward[:, :2, :2].mT + forward[:, None, :2, 2]
        depth = points @ forward[:, 2, :2, None] + forward[:, None, 2:, 2]
        return torch.where(depth > 0, new / depth, torch.nan)


def exchanged(points: Tensor, rows: list[int], pairs: Sequence[tuple[int, int]]) -> Tensor:
    """Points N x K x 2, of which these images were mirrored: left and right change their places.

    Raises:
        UsageError: a pair names a point that is not there.
    """
    if not pairs or not rows:
        return points
    order = list(range(points.shape[1]))
    for a, b in pairs:
        if not 0 <= a < len(order) or not 0 <= b < len(order):
            raise UsageError(f"flip_pairs: ({a}, {b}), but the points are 0 to {len(order) - 1}")
        order[a], order[b] = b, a
    where = host.index(rows, points)
    new = points.clone()
    return new.index_copy_(0, where, points[where][:, host.index(order, points)])


def _translation(like: Tensor, x: float, y: float) -> Tensor:
    return like.new_tensor([[1, 0, x], [0, 1, y], [0, 0, 1]])


def _grid(theta: Tensor, size: Size, in_perspective: bool) -> Tensor:
    """Where each new pixel comes from, N x H x W x 2: broadcast sums, faster than a product.

    It is kept as planes of x and y, which is faster to write and no slower to read.
    """
    xs, ys = _centers(size.width, theta), _centers(size.height, theta)[:, None]
    theta = theta if in_perspective else theta[:, :2]
    by_x, by_y, fixed = theta[..., None, None].unbind(dim=2)
    planes = torch.addcmul(by_x * xs + fixed, by_y, ys)
    if in_perspective:
        planes = planes[:, :2] / planes[:, 2:]
    return planes.permute(0, 2, 3, 1)


def _centers(count: int, like: Tensor) -> Tensor:
    """The centers of this many pixels, from -1 to 1."""
    return torch.arange(1, 2 * count, 2, dtype=like.dtype, device=like.device) / count - 1


def as_float(images: Tensor) -> Tensor:
    """Images in [0, 1]: whole numbers are scaled, others are left as they are."""
    if images.is_floating_point():
        return images
    return images.float().div_(255)

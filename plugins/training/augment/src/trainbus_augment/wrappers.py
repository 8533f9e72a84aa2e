"""What torchvision and kornia do well, as transforms of a batch.

They draw from torch's own generator. For the time of the call the generator of the augmentation
seeds it; then it is put back, so that they are resumed exactly, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from trainbus import UsageError
from trainbus_augment import host
from trainbus_augment.transforms import BatchTransform

_FOLLOWING = ("image", "mask", "points", "boxes")


class Torchvision(BatchTransform):
    """A transform of `torchvision.transforms.v2`; masks, points and boxes follow as its own types.

    Args:
        transform: takes and gives images in float32, in [0, 1].
        per_image: call it for each image, with random numbers of its own; else once for the batch,
            which then shares them, and is faster.
    """

    in_range = True

    def __init__(self, transform: Callable[..., Any], per_image: bool = True) -> None:
        if not callable(transform):
            raise UsageError(f"Torchvision: {transform!r} cannot be called; give a transform")
        self.transform = transform
        self.per_image = per_image

    def apply(
        self, parts: list[Tensor], kinds: Sequence[str], generator: torch.Generator | None
    ) -> None:
        """Call it."""
        places = [place for place, kind in enumerate(kinds) if kind in _FOLLOWING]
        size = tuple(parts[kinds.index("image")].shape[-2:])
        with seeded(generator, parts[places[0]].device):
            if not self.per_image:
                if {kinds[place] for place in places} & {"points", "boxes"}:
                    raise UsageError("Torchvision: points and boxes need per_image=True")
                self._call(parts, kinds, places, size, slice(None), parts)
                return
            made: list[list[Tensor]] = [[] for _ in kinds]
            for row in range(len(parts[places[0]])):
                new = list(parts)
                self._call(parts, kinds, places, size, row, new)
                for place in places:
                    made[place].append(new[place])
        for place in places:
            parts[place] = torch.stack(made[place])

    def _call(
        self,
        parts: list[Tensor],
        kinds: Sequence[str],
        places: list[int],
        size: tuple[int, ...],
        rows: int | slice,
        into: list[Tensor],
    ) -> None:
        """Transform what is at `places` of one image, or of all."""
        wrapped = [_wrapped(parts[place][rows], kinds[place], size) for place in places]
        result = self.transform(*wrapped)
        result = (result,) if len(places) == 1 else result
        for place, value in zip(places, result, strict=True):
            into[place] = value.as_subclass(Tensor)
            if kinds[place] == "points":
                into[place] = into[place][..., :2]
            if kinds[place] in ("points", "boxes"):
                into[place] = _cleaned(into[place], value.canvas_size, parts[place][rows])


class Kornia(BatchTransform):
    """An augmentation of `kornia.augmentation`, which has parameters for each image; masks follow.

    Args:
        augmentation: a module, for images in [0, 1].
    """

    in_range = True

    def __init__(self, augmentation: Callable[..., Any]) -> None:
        if not callable(augmentation):
            raise UsageError(f"Kornia: {augmentation!r} cannot be called; give an augmentation")
        self.augmentation = augmentation

    def apply(
        self, parts: list[Tensor], kinds: Sequence[str], generator: torch.Generator | None
    ) -> None:
        """Call it."""
        if lost := {"points", "boxes"} & set(kinds):
            raise UsageError(
                f"Kornia: {' and '.join(sorted(lost))} do not follow; use Torchvision(...), or the "
                "transforms of this package"
            )
        places = [place for place, kind in enumerate(kinds) if kind in _FOLLOWING]
        call: Any = self.augmentation
        if len(places) > 1:
            import kornia.augmentation

            keys = ["input" if kinds[place] == "image" else "mask" for place in places]
            call = kornia.augmentation.AugmentationSequential(call, data_keys=keys)
        given = [
            parts[place] if kinds[place] == "image" else parts[place][:, None].float()
            for place in places
        ]
        with seeded(generator, given[0].device):
            result = call(*given)
        result = (result,) if len(places) == 1 else result
        for place, value in zip(places, result, strict=True):
            old = parts[place]
            # Between two classes there is none.
            parts[place] = value if kinds[place] == "image" else value[:, 0].round().to(old.dtype)


@contextmanager
def seeded(generator: torch.Generator | None, device: torch.device) -> Iterator[None]:
    """Inside, torch's generators begin from a number that `generator` draws."""
    if generator is None:
        yield
        return
    seed = torch.empty((), dtype=torch.int64).random_(generator=generator)
    devices = [] if device.type == "cpu" else [device]
    kind = {} if device.type == "cpu" else {"device_type": device.type}
    with torch.random.fork_rng(devices, **kind):
        torch.manual_seed(int(host.numbers(seed.view(1).to(host.FLOAT))[0]))
        yield


def _wrapped(part: Tensor, kind: str, size: tuple[int, ...]) -> Any:
    """A part as torchvision's type for it."""
    from torchvision import tv_tensors  # type: ignore[import-untyped]

    if kind == "image":
        return tv_tensors.Image(part)
    if kind == "mask":
        return tv_tensors.Mask(part)
    if kind == "boxes":
        # Its operators know no box that is not there: it becomes an empty one.
        return tv_tensors.BoundingBoxes(part.nan_to_num(0.0), format="XYXY", canvas_size=size)
    # As boxes without a size: its own key points are moved as if the centre of a pixel were at
    # whole numbers in some operators, and at halves in others; boxes at halves in all.
    corners = torch.cat([part, part], dim=-1).nan_to_num(-1.0)
    try:
        return tv_tensors.BoundingBoxes(
            corners, format="XYXY", canvas_size=size, clamping_mode=None
        )
    except TypeError:
        raise UsageError("Torchvision: points need torchvision 0.24 or newer") from None


def _cleaned(new: Tensor, size: tuple[int, int], old: Tensor) -> Tensor:
    """NaN for points and boxes that are not inside any more, or never were there."""
    limit = new.new_tensor([size[1], size[0]])
    if new.shape[-1] == 4:
        low, high = new[..., :2].clamp(min=0), torch.minimum(new[..., 2:], limit)
        new = torch.cat([low, high], dim=-1)
        there = (high > low).all(dim=-1)
    else:
        there = ((new >= 0) & (new <= limit)).all(dim=-1)
    there &= ~old.isnan().any(dim=-1)
    return torch.where(there[..., None], new, torch.nan)

"""The colours of classes: those of matplotlib's palettes, which a PNG has without matplotlib."""

from __future__ import annotations

_TAB10 = "1f77b4 ff7f0e 2ca02c d62728 9467bd 8c564b e377c2 7f7f7f bcbd22 17becf"
_TAB20 = (
    "1f77b4 aec7e8 ff7f0e ffbb78 2ca02c 98df8a d62728 ff9896 9467bd c5b0d5 "
    "8c564b c49c94 e377c2 f7b6d2 7f7f7f c7c7c7 bcbd22 dbdb8d 17becf 9edae5"
)
#: By how many classes they are enough for; more begin again.
_PALETTES = {"tab10": _TAB10.split(), "tab20": _TAB20.split()}


def palette_for(classes: int) -> tuple[str, int]:
    """The name of the palette for so many classes, and how many colours it has."""
    return ("tab20", 20) if classes > 10 else ("tab10", 10)


def color_of(code: int, classes: int) -> tuple[int, int, int]:
    """Red, green and blue of a class, 0 to 255."""
    name, colors = palette_for(classes)
    text = _PALETTES[name][code % colors]
    return int(text[:2], 16), int(text[2:4], 16), int(text[4:], 16)

"""Data from folders, tables and lists: each is a DataBlock, filled in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

from trainbus_data import splits
from trainbus_data.blocks import Block
from trainbus_data.data import BatchTransform, Data
from trainbus_data.datablock import DataBlock
from trainbus_data.errors import DataError
from trainbus_data.images import Image
from trainbus_data.labels import Categories, Category
from trainbus_data.sources import (
    Column,
    check_columns,
    check_folder,
    find_files,
    parent_folder,
    read_rows,
)
from trainbus_data.transforms import Resize, Size

Blocks = Sequence[Block] | None


def from_folder(
    path: Path,
    blocks: Blocks,
    label: Callable[[Path], Any] | None,
    split: splits.Split | None,
    size: Size | None,
    item_transforms: Sequence[Any],
    batch_transforms: Sequence[BatchTransform],
    options: Mapping[str, Any],
) -> Data:
    """See `Data.from_folder`."""
    blocks = tuple(blocks or (Image(), Category()))
    is_category = isinstance(blocks[-1], Category)
    drawn = split or (splits.stratified() if is_category else splits.random())
    stages = _stage_folders(check_folder(path)) if split is None else {}
    block = DataBlock(
        blocks,
        items=partial(_files, folders=[folder for those in stages.values() for folder in those]),
        split=partial(_by_folders, root=path, drawn=drawn) if stages else drawn,
        label=label or parent_folder,
        item_transforms=with_size(item_transforms, size),
        batch_transforms=batch_transforms,
    )
    if label is None and is_category:
        _check_classes(path, stages)
    return block.data(path, **options)


def _stage_folders(path: Path) -> dict[str, list[Path]]:
    """The folders that are parts, by stage; none if there is no folder for training."""
    found: dict[str, list[Path]] = {}
    for each in sorted(path.iterdir()):
        stage = splits.STAGES.get(each.name.lower())
        if stage is not None and each.is_dir():
            found.setdefault(stage, []).append(each)
    return found if "train" in found else {}


def _check_classes(path: Path, stages: Mapping[str, Sequence[Path]]) -> None:
    for root in stages["train"] if stages else [path]:
        if not any(each.is_dir() and not each.name.startswith(".") for each in root.iterdir()):
            raise DataError(
                f"{root} has no folders, which are the classes: expected {root}/CLASS/FILE; or "
                "give label=, a function of a path"
            )


def _files(path: Path, folders: Sequence[Path]) -> list[Path]:
    return [file for folder in folders or [path] for file in find_files(folder)]


def _by_folders(
    items: Sequence[Any], label: splits.Label, root: Path, drawn: splits.Split
) -> tuple[list[int], ...]:
    """By folder; what is in train is split where there is no folder for validation."""
    train, valid, *test = splits.by_folder(root)(items, label)
    if not valid:
        inner = drawn([items[index] for index in train], label)
        train, valid = ([train[index] for index in part] for part in inner[:2])
    return (train, valid, *test)


def from_table(
    table: Any,
    input: str | Sequence[str] | None,
    label: str | Sequence[str] | None,
    blocks: Blocks,
    folder: str | Path | None,
    suffix: str,
    delimiter: str | None,
    split: splits.Split | str | None,
    size: Size | None,
    item_transforms: Sequence[Any],
    batch_transforms: Sequence[BatchTransform],
    options: Mapping[str, Any],
) -> Data:
    """See `Data.from_table`."""
    rows = read_rows(table)
    names = list(rows[0]) if rows else []
    if len(names) < 2 and (input is None or label is None):
        raise DataError(f"the table has {len(names)} columns; give input= and label=")
    inputs = _listed(names[0] if input is None else input)
    label = names[1] if label is None else label
    wanted = [*inputs, *_listed(label), *([split] if isinstance(split, str) else [])]
    check_columns(rows, wanted)
    if folder is None and isinstance(table, (str, Path)):
        folder = Path(table).parent
    if blocks is None:
        several = delimiter is not None
        blocks = (Image(), Categories(delimiter=delimiter) if several else Category())
    elif delimiter is not None:
        raise DataError("delimiter= goes with the default blocks; write Categories(delimiter=...)")
    are_files = [block.kind == "image" for block in blocks[: len(inputs)]]
    targets = len(blocks) - len(inputs)
    if isinstance(split, str):
        split = splits.by_column(split)
    block = DataBlock(
        blocks,
        split=split,
        input=[
            Column(name, folder, suffix) if is_file else Column(name)
            for name, is_file in zip(inputs, are_files, strict=True)
        ],
        label=[Column(each) for each in _labels(label, targets)],
        item_transforms=with_size(item_transforms, size),
        batch_transforms=batch_transforms,
        inputs=len(inputs),
    )
    return block.data(rows, **options)


def _listed(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _labels(label: str | Sequence[str], targets: int) -> list[str | Sequence[str]]:
    """One column for each target, or all columns for a single one."""
    if isinstance(label, str) or targets == 1:
        return [label]
    return list(label)


def from_lists(
    inputs: Sequence[Any],
    targets: Sequence[Any] | Callable[[Any], Any],
    blocks: Blocks,
    split: splits.Split | None,
    size: Size | None,
    item_transforms: Sequence[Any],
    batch_transforms: Sequence[BatchTransform],
    options: Mapping[str, Any],
) -> Data:
    """See `Data.from_lists`."""
    blocks = tuple(blocks or (Image(), Category()))
    shared: dict[str, Any] = {
        "split": split,
        "item_transforms": with_size(item_transforms, size),
        "batch_transforms": batch_transforms,
    }
    if callable(targets):
        return DataBlock(blocks, label=targets, **shared).data(inputs, **options)
    if len(inputs) != len(targets):
        raise DataError(f"{len(inputs)} inputs, but {len(targets)} targets")
    block = DataBlock(blocks, input=itemgetter(0), label=itemgetter(1), **shared)
    return block.data(list(zip(inputs, targets, strict=True)), **options)


def with_size(item_transforms: Sequence[Any], size: Size | None) -> tuple[Any, ...]:
    """The transforms, and `Resize` behind them if there is a size."""
    return (*item_transforms, *([] if size is None else [Resize(size)]))

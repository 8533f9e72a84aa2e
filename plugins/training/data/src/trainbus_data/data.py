"""Data: the container, and how it is made from tensors, folders, tables and lists."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from trainbus_data import splits
from trainbus_data.balance import Balance
from trainbus_data.blocks import Block
from trainbus_data.columns import Flags, usual_target
from trainbus_data.container import BatchTransform, Container
from trainbus_data.datablock import DataBlock
from trainbus_data.errors import DataError
from trainbus_data.items import Tensors
from trainbus_data.labels import Categories, Category
from trainbus_data.layouts import Layout
from trainbus_data.recipe import Recipe
from trainbus_data.sources import (
    Column,
    check_columns,
    named_columns,
    parent_folder,
    read_rows,
)
from trainbus_data.words import names_checked


class Data(Container):
    """Loaders for training, validation and test, and the recipe that they follow.

    A batch is a plain tuple of tensors, inputs first. Most are made by `from_folder`, `from_table`,
    `from_lists`, `from_tensors` or a `DataBlock`. For the arguments see `Container`.
    """

    @classmethod
    @names_checked()
    def from_tensors(
        cls,
        train: Sequence[Any],
        valid: Sequence[Any] | None = None,
        test: Sequence[Any] | None = None,
        *,
        blocks: Sequence[Block] | None = None,
        inputs: int = 1,
        split: splits.Split | None = None,
        item_transforms: Sequence[Any] = (),
        batch_size: int | None = None,
        batch_transforms: Sequence[BatchTransform] = (),
        seed: int = 0,
        drop_last: bool | None = None,
        name: str = "",
        sampling: Balance | None = None,
    ) -> Self:
        """Data that are in memory: a batch is one indexing operation.

        Args:
            train: (inputs, targets) as tensors or arrays, the items along the first dimension. On
                whichever device they are, batches are made there.
            valid: the same; by default a part of train.
            test: the same.
            blocks: what the parts of an item are, inputs first: `(Number(8), Category())`. By
                default images, with the channels that they have, and a category.
            inputs: how many parts are inputs.
            split: how train is split where there is no valid: `splits.random(0.2)` by default.
            item_transforms: what raw items that are to be predicted go through (`Resize` to the
                size of the images); the tensors are left as they are.
            batch_size: samples in a batch; by default 64, or fewer for few items; see `Container`.
            batch_transforms: see `Container`.
            seed: of the order of training.
            drop_last: see `Container`.
            name: see `Container`.
            sampling: see `Container`.
        """
        given = {"train": train, "valid": valid, "test": test}
        parts = {stage: _checked(each, stage) for stage, each in given.items() if each is not None}
        if blocks is None:
            images = train[0] if isinstance(train, (tuple, list)) and train else ()
            blocks = (_images().like(images), Category())
        recipe = Recipe(copy.deepcopy(tuple(blocks)), inputs, item_transforms)
        for stage, those in parts.items():
            if len(those) != len(recipe.blocks):
                raise DataError(
                    f"{stage} has {len(those)} parts, but there are {len(recipe.blocks)} blocks: "
                    f"{', '.join(map(repr, recipe.blocks))}"
                )
        if valid is None:
            whole = parts["train"]
            chosen = (splits.checked(split) or splits.random())(
                range(len(whole[-1])), whole[-1].__getitem__
            )
            if not chosen[1]:
                splits.say_all_are_trained_on(split, len(whole[-1]))
            for stage, indices in zip(("train", "valid", "test"), chosen, strict=False):
                if stage == "valid" and not indices:
                    continue
                if not indices:
                    raise DataError(f"the {stage} part is empty: the split puts no item into it")
                parts[stage] = [_take(part, indices) for part in whole]
        for block, part in zip(recipe.blocks, parts["train"], strict=True):
            block.setup(_uniques(part))
        stores = {stage: Tensors(_encoded(recipe, those, stage)) for stage, those in parts.items()}
        return cls(
            recipe,
            stores["train"],
            stores.get("valid"),
            stores.get("test"),
            batch_size=batch_size,
            batch_transforms=batch_transforms,
            seed=seed,
            drop_last=drop_last,
            name=name,
            sampling=sampling,
        )

    @classmethod
    @names_checked(DataBlock.data)
    def from_folder(
        cls,
        path: str | Path,
        blocks: Sequence[Block] | None = None,
        *,
        label: Callable[[Path], Any] | None = None,
        split: splits.Split | None = None,
        size: Any = None,
        item_transforms: Sequence[Any] = (),
        batch_transforms: Sequence[BatchTransform] = (),
        **options: Any,
    ) -> Data:
        """Files in folders.

        Args:
            path: the folder. If it has a folder train, and valid (val, validation) or test beside
                it or nothing else, these are the parts; else `split` makes them.
            blocks: what the parts of an item are. Files are taken that the first one reads, by how
                their names end. Images and a category by default.
            label: of a file; by default the name of the folder that it is in.
            split: `splits.stratified(0.2)` by default, `splits.random(0.2)` where the target is no
                category; with a folder train but no valid, it splits what is in train.
            size: what items are brought to, after `item_transforms`, by the rule of the first
                block: pixels of an image.
            item_transforms: see `Recipe`.
            batch_transforms: see `Container`.
            options: of `DataBlock.data`: batch_size, num_workers, memory, unreadable, ...
        """
        blocks = (_images()(), Category()) if blocks is None else blocks
        is_category = isinstance(blocks[-1], Category)
        layout = Layout(path, blocks[0].endings, split is None, label is None and is_category)
        drawn = splits.checked(split) or (splits.stratified() if is_category else splits.random())
        block = DataBlock(
            blocks,
            items=layout.files,
            split=layout.split(drawn),
            label=label or parent_folder,
            item_transforms=_with_size(blocks, item_transforms, size),
            batch_transforms=batch_transforms,
        )
        return block.data(path, **options)

    @classmethod
    @names_checked(DataBlock.data)
    def from_table(
        cls,
        table: Any,
        input: str | Sequence[str] | None = None,
        label: str | Sequence[str] | None = None,
        *,
        blocks: Sequence[Block] | None = None,
        delimiter: str | None = None,
        folder: str | Path | None = None,
        suffix: str = "",
        split: splits.Split | str | None = None,
        size: Any = None,
        item_transforms: Sequence[Any] = (),
        batch_transforms: Sequence[BatchTransform] = (),
        **options: Any,
    ) -> Data:
        """Rows of a table: numbers, words, or the names of files.

        Args:
            table: a DataFrame of pandas or polars, a mapping of columns, or the path of a CSV or
                Parquet file.
            input: the column of the input, or one for each; the first one by default. With one
                input block, several columns are its numbers.
            label: the column with the label, or several with numbers, or with 0 and 1 for a label
                each; the second one by default.
            blocks: what the parts of an item are, inputs first. By default images, and a category,
                or numbers where the columns hold numbers with fractions, which is said.
            delimiter: what separates several labels in one column; for the default blocks.
            folder: where the named files are; by default the folder of the table's file.
            suffix: what the names of the files lack (".jpg").
            split: a split, or the name of a column that says the part of a row.
            size: what items are brought to, after `item_transforms`, by the rule of the first
                block: pixels of an image.
            item_transforms: see `Recipe`.
            batch_transforms: see `Container`.
            options: of `DataBlock.data`: batch_size, num_workers, memory, unreadable, ...
        """
        rows = read_rows(table)
        chosen, label = named_columns(rows, input, label)
        inputs = _listed(chosen)
        wanted = [*inputs, *_listed(label), *([split] if isinstance(split, str) else [])]
        check_columns(rows, wanted)
        if blocks is None:
            several = delimiter is not None
            target = Categories(delimiter=delimiter) if several else usual_target(rows, label)
            blocks = (_images()(), target)
        elif delimiter is not None:
            raise DataError(
                "delimiter= goes with the usual blocks; write Categories(delimiter=...)"
            )
        if isinstance(table, (str, Path)):
            folder = Path(table).parent if folder is None else folder
            options.setdefault("name", Path(table).stem)
        if len(blocks) == 2 and len(inputs) > 1:
            columns: list[Column] = [Column(inputs)]
        else:
            columns = [
                Column(name, folder, suffix) if block.is_file else Column(name)
                for name, block in zip(inputs, blocks, strict=False)
            ]
        for column, block in zip(columns, blocks, strict=False):
            if block.is_file and not suffix and (raw := column(rows[0])) is not None:
                _check_file(inputs[0], rows[0][inputs[0]], raw, list(rows[0]))
        if isinstance(split, str):
            split = splits.by_column(split)
        block = DataBlock(
            blocks,
            split=split,
            input=columns,
            label=[
                _getter(each, block)
                for each, block in zip(
                    _labels(label, len(blocks) - len(columns)), blocks[len(columns) :], strict=False
                )
            ],
            item_transforms=_with_size(blocks, item_transforms, size),
            batch_transforms=batch_transforms,
            inputs=len(columns),
        )
        return block.data(rows, **options)

    @classmethod
    @names_checked(DataBlock.data)
    def from_lists(
        cls,
        inputs: Sequence[Any],
        targets: Sequence[Any] | Callable[[Any], Any],
        blocks: Sequence[Block] | None = None,
        *,
        split: splits.Split | None = None,
        size: Any = None,
        item_transforms: Sequence[Any] = (),
        batch_transforms: Sequence[BatchTransform] = (),
        **options: Any,
    ) -> Data:
        """A list of inputs, and a list of targets or a function of an input that gives its target.

        Args:
            inputs: paths, arrays, numbers.
            targets: labels, numbers, arrays.
            blocks: what both are; images and a category by default.
            split: `splits.random(0.2)` by default.
            size: what items are brought to, after `item_transforms`, by the rule of the first
                block: pixels of an image.
            item_transforms: see `Recipe`.
            batch_transforms: see `Container`.
            options: of `DataBlock.data`: batch_size, num_workers, memory, unreadable, ...
        """
        if blocks is None:
            first = inputs[0] if hasattr(inputs, "__getitem__") and len(inputs) else None
            blocks = (_images().of(first), Category())
        shared: dict[str, Any] = {
            "split": split,
            "item_transforms": _with_size(blocks, item_transforms, size),
            "batch_transforms": batch_transforms,
        }
        if callable(targets):
            return DataBlock(blocks, label=targets, **shared).data(inputs, **options)
        if len(inputs) != len(targets):
            raise DataError(f"{len(inputs)} inputs, but {len(targets)} targets")
        block = DataBlock(blocks, input=itemgetter(0), label=itemgetter(1), **shared)
        return block.data(list(zip(inputs, targets, strict=True)), **options)


def _images() -> Any:
    """The block of images, which another distribution brings."""
    import trainbus_data

    try:
        return trainbus_data.Image
    except AttributeError:
        raise DataError(
            "say what the parts of an item are: blocks=(Number(8), Category()), for example; where "
            "nothing is said they are images, and no distribution that reads images is installed "
            "(pip install trainbus-vision)"
        ) from None


def _with_size(blocks: Sequence[Block], transforms: Sequence[Any], size: Any) -> tuple[Any, ...]:
    """The transforms, and that to a size behind them if there is one."""
    if size is None:
        return tuple(transforms)
    if any(block.in_picture for block in blocks):
        return (*transforms, blocks[0].sized_whole(size, tuple(block.kind for block in blocks)))
    return (*transforms, blocks[0].sized(size))


# --- tables --------------------------------------------------------------------------------------


def _listed(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _check_file(name: str, cell: Any, raw: Any, columns: Sequence[str]) -> None:
    """Refuse a column of numbers where files are to be read: it is an identifier."""
    if isinstance(raw, Path) and not isinstance(cell, (str, Path)):
        raise DataError(
            f"the column {name!r} holds {cell!r:.40}, which is no file's name; the columns are "
            f"{', '.join(columns)}: name that of the files, or give what the names lack, "
            "suffix='.jpg'"
        )


def _getter(label: str | Sequence[str], block: Block) -> Callable[[Any], Any]:
    """Of one column, of several numbers, or of labels that have a column of 0 and 1 each."""
    if not isinstance(label, str) and isinstance(block, (Category, Categories)):
        if not block.given:
            raise DataError(
                f"label={list(label)!r:.100}: for columns of 0 and 1 leave blocks out, or name "
                f"them: {type(block).__name__}({list(label)!r:.100})"
            )
        return Flags(label, isinstance(block, Categories))
    return Column(label)


def _labels(label: str | Sequence[str], targets: int) -> list[str | Sequence[str]]:
    """One column for each target, or all columns for a single one."""
    if isinstance(label, str) or targets == 1:
        return [label]
    return list(label)


# --- tensors -------------------------------------------------------------------------------------


def _checked(parts: Sequence[Any], stage: str) -> list[Any]:
    if not isinstance(parts, (tuple, list)) or len(parts) < 2:
        raise DataError(f"{stage}={type(parts).__name__}; give (inputs, targets)")
    lengths = [len(part) for part in parts]
    if len(set(lengths)) > 1:
        raise DataError(f"the parts of {stage} have {' and '.join(map(str, lengths))} items")
    if not lengths[0]:
        raise DataError(f"the {stage} part is empty")
    return list(parts)


def _take(part: Any, indices: Sequence[int]) -> Any:
    if isinstance(part, (Tensor, np.ndarray)):
        return part[torch.as_tensor(indices) if isinstance(part, Tensor) else np.array(indices)]
    return [part[index] for index in indices]


def _uniques(part: Any) -> Any:
    """What a block learns from: of integers, each value once, without a loop over all."""
    if getattr(part, "ndim", 0) != 1:
        return part
    values = part.cpu().numpy() if isinstance(part, Tensor) else part
    return np.unique(values) if values.dtype.kind in "iub" else values


def _encoded(recipe: Recipe, parts: Sequence[Any], stage: str) -> list[Tensor]:
    encoded = []
    for block, part in zip(recipe.blocks, parts, strict=True):
        try:
            value = block.encode_all(part)
        except DataError as error:
            raise DataError(f"{stage}, {block.kind}: {error}") from error
        # What was computed on the way is put where it came from.
        encoded.append(value.to(part.device) if isinstance(part, Tensor) else value)
    try:
        recipe.check(tuple(encoded))
    except DataError as error:
        raise DataError(f"{stage}, {error}") from error
    return encoded

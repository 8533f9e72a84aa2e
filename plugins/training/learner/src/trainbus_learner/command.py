"""What `trainbus predict` prints, and writes."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trainbus import UsageError
from trainbus_learner import table_files
from trainbus_learner.loading import load
from trainbus_learner.predictor import Prediction, Predictor


def lines(
    exported: str,
    items: Sequence[str],
    as_json: bool,
    top: int | None,
    batch_size: int,
    device: str,
    out: str = "predictions",
) -> Iterator[str]:
    """A line for each item: the item, its label and the probability, with tabs between them.

    A mask is written as PNG, and the line has the path of that. Of a file with rows there is a line
    for each row, or one with what was written to `out`.

    Args:
        exported: the directory of an export.
        items: files, folders of files, or what else the model's input is read from.
        as_json: lines of JSON instead.
        top: how many labels for each item, the most probable first.
        batch_size: items that the model is asked about together.
        device: as torch names it.
        out: the folder for masks; or the file for rows.
    """
    predictor = load(exported, device=device)
    # One that takes words is asked about a text as it stands, unless it is the name of a table.
    words = getattr(predictor, "takes_words", False) and not any(map(table_files.is_table, items))
    if getattr(predictor, "takes_tables", False) and not words:
        yield from _tables(predictor, items, as_json, out)
        return
    places = _expanded(predictor, items, Path(out))
    predictions = predictor.predictions([item for item, _ in places], min(batch_size, len(places)))
    for (item, place), prediction in zip(places, predictions, strict=True):
        file = None
        if predictor.target.kind == "mask":
            file = str(predictor.write(prediction, place))
        if as_json:
            yield json.dumps(_as_json(item, prediction, top, file), ensure_ascii=False)
        elif file is not None:
            yield f"{item}\t{file}"
        elif top and (best := prediction.top(top)):
            shown = "\t".join(f"{label}\t{probability:.4f}" for label, probability in best)
            yield f"{item}\t{shown}"
        else:
            sure = "" if prediction.probability is None else f"\t{prediction.probability:.4f}"
            yield f"{item}\t{_text(prediction.label)}{sure}"


def _tables(predictor: Predictor, items: Sequence[str], as_json: bool, out: str) -> Iterator[str]:
    """A line for each row of the files, in their order; or all rows to a file."""
    endings = getattr(predictor, "file_endings", table_files.ENDINGS)
    for item in items:
        if not item.lower().removesuffix(".gz").endswith(endings):
            raise UsageError(
                f"predict: {item!r} is no table; give a file that ends in {', '.join(endings)}, "
                "also with .gz"
            )
    if Path(out).suffix == "":
        yield from _printed(predictor, items, as_json)
        return
    bad, rows = table_files.Bad(), 0
    with table_files.Writer(Path(out)) as writer:
        for block in _answers(predictor, items, bad):
            writer.write(block)
            rows += len(block)
    yield f"{rows:,} rows predicted: {out}"


def _printed(predictor: Predictor, items: Sequence[str], as_json: bool) -> Iterator[str]:
    names: list[str] = []
    for block in _answers(predictor, items, table_files.Bad()):
        for line in block:
            plain = {name: _value(value) for name, value in line.items()}
            if as_json:
                yield json.dumps(plain, ensure_ascii=False)
                continue
            if not names:
                names = [*(name for name in line if name != "error"), "error"]
                yield _comma_separated(names)
            yield _comma_separated([plain.get(name) for name in names])


def _answers(
    predictor: Predictor, items: Sequence[str], bad: table_files.Bad
) -> Iterator[list[dict[str, Any]]]:
    """Blocks of predicted rows, with a bar; what was wrong is said at the end."""
    import click

    total = sum(Path(item).stat().st_size for item in items if Path(item).exists())
    first = 1
    shown = sys.stderr if sys.stderr.isatty() else io.StringIO()
    with click.progressbar(length=total, label="predicting", file=shown) as bar:
        for item in items:
            if getattr(predictor, "takes_whole_files", False):  # rows of it belong together
                block = list(predictor.predictions(Path(item)).rows())  # type: ignore[attr-defined]
                yield block
                first += len(block)
                continue
            for block in table_files.blocks(Path(item), table_files.BLOCK, bar.update):
                yield table_files.predicted(predictor, block, first, bad)
                first += len(block)
    if bad:
        click.echo(f"{len(bad)} of {first - 1} rows could not be predicted:", err=True)
        for line in bad[:10]:
            click.echo(f"  {line}", err=True)


def _comma_separated(cells: Sequence[Any]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="").writerow(cells)
    return file.getvalue()


def _value(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _expanded(predictor: Predictor, items: Sequence[str], out: Path) -> list[tuple[str, Path]]:
    """Each item, and where its file goes; of a folder all files that the model reads.

    Raises:
        UsageError: two of them would be written to one place.
    """
    block = None if predictor.recipe is None else predictor.recipe.input
    found: list[tuple[str, Path]] = []
    for item in items:
        if block is not None and block.is_file and Path(item).is_dir():
            from trainbus_data import find_files

            files = find_files(item, block.endings)
            found += [(str(file), out / file.relative_to(item)) for file in files]
        else:
            found.append((item, out / Path(item).name))
    if predictor.target.kind == "mask":
        first: dict[Path, str] = {}
        for item, place in found:
            other = first.setdefault(place.with_suffix(""), item)
            if other != item:
                raise UsageError(
                    f"predict: {other} and {item} would both be written to "
                    f"{place.with_suffix('')}; predict them apart, with another --out"
                )
    return found


def _as_json(
    item: str, prediction: Prediction, top: int | None, file: str | None
) -> dict[str, Any]:
    line: dict[str, Any] = {"item": item}
    if file is None:
        line |= {"label": _plain(prediction.label), "probability": prediction.probability}
    else:
        line["file"] = file
    if top:
        line["top"] = [{"label": word, "probability": p} for word, p in prediction.top(top)]
    return line


def _plain(label: Any) -> Any:
    """What JSON has for a label; of boxes their fields by name."""
    if isinstance(label, list):
        return [each._asdict() if hasattr(each, "_asdict") else each for each in label]
    return label.tolist() if hasattr(label, "tolist") else label


def _text(label: Any) -> str:
    if isinstance(label, list):
        return ", ".join(map(str, label))
    return f"{label:.6g}" if isinstance(label, float) else str(label)

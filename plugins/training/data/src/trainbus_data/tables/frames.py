"""Columns of frames of any library that narwhals knows: pandas, polars, Arrow, modin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from trainbus_data.errors import DataError
from trainbus_data.tables.columns import Column, Reading
from trainbus_data.tables.fast_delimited import coded
from trainbus_data.tables.values import column_of, dates, numbers, texts
from trainbus_data.tables.wording import understood

#: What narwhals calls types that are no cells.
_NESTED = ("List", "Array", "Struct", "Binary")


def columns_of(
    frame: Any, name: str = "the table", like: Mapping[str, Reading] | None = None
) -> dict[str, Column]:
    """The columns of a frame by name; texts are read as `like` says.

    Raises:
        DataError: narwhals is not there, or the frame is none that is known, or it has nested
            columns, an index of several levels, or a name twice.
    """
    try:
        import narwhals as nw
    except ImportError:
        raise DataError(
            f"{name} is a {type(frame).__module__.partition('.')[0]} frame, which narwhals reads: "
            "pip install narwhals; or give a dict of columns"
        ) from None
    if type(frame).__module__.startswith("polars") and hasattr(frame, "collect"):
        frame = frame.collect()
    frame = _plain_names(frame, name)
    try:
        wide = nw.from_native(frame)
    except TypeError:
        raise DataError(
            f"a table of the type {type(frame).__name__}; give a frame of pandas, polars or Arrow, a "
            "dict of columns, a list of dicts, or the path of a CSV or Parquet file"
        ) from None
    if isinstance(wide, nw.LazyFrame):
        wide = wide.collect()
    nested = [
        f"{column!r} ({kind})" for column, kind in wide.schema.items()
        if str(kind).partition("(")[0] in _NESTED
    ]  # fmt: skip
    if nested:
        raise DataError(
            f"{name} has nested columns: {', '.join(nested[:6])}; a cell is one value: take them "
            "apart, or leave them out"
        )
    known = like or {}
    return {
        str(column): _column(wide[column], str(column), known.get(str(column)))
        for column in wide.columns
    }


def _plain_names(frame: Any, name: str) -> Any:
    """A frame whose names are texts, each once, and whose rows have no index that means much."""
    names = [str(each) for each in getattr(frame, "columns", ())]
    if type(frame).__module__.partition(".")[0] == "pyarrow":
        names = list(frame.column_names)
    for axis, levels in (("columns", "columns"), ("index", "rows")):
        if getattr(getattr(frame, axis, None), "nlevels", 1) > 1:
            raise DataError(
                f"the {levels} of {name} have an index of {getattr(frame, axis).nlevels} levels "
                f"(MultiIndex); "
                + ("reset_index() makes columns of it" if axis == "index" else "give each one name")
            )
    if len(set(names)) < len(names):
        twice = next(each for each in names if names.count(each) > 1)
        raise DataError(f"{name}: two columns are called {twice!r}")
    if hasattr(frame, "set_axis") and any(not isinstance(each, str) for each in frame.columns):
        frame = frame.set_axis(names, axis=1)
    return frame


def _column(series: Any, name: str, like: Reading | None) -> Column:
    import narwhals as nw

    kind = series.dtype
    if kind.is_integer() or kind.is_float():
        return _numbers(series)
    if kind == nw.Boolean:
        return Column("boolean", _floats(series.cast(nw.Int8)))
    if kind == nw.Decimal:
        return Column("number", _floats(series))
    if kind == nw.Date:
        return _dates(series.cast(nw.Datetime("us")), False)
    if kind == nw.Datetime:
        return _dates(series, getattr(kind, "time_zone", None) is not None)
    if kind == nw.Duration:
        return Column("number", _floats(series.dt.total_microseconds()) / 1e6)
    if kind in (nw.String, nw.Categorical, nw.Enum):
        return _texts(series, like)
    if str(kind) == "Unknown" and series.null_count() == len(series):
        return Column("number", np.full(len(series), np.nan))
    return column_of(series.to_list(), name, like)


def _floats(series: Any) -> np.ndarray[Any, Any]:
    """As float64, NaN where there is nothing."""
    import narwhals as nw

    if series.dtype != nw.Float64:
        series = series.cast(nw.Float64)
    values = series.to_numpy()
    return np.ascontiguousarray(values, dtype=np.float64)


def _numbers(series: Any) -> Column:
    if series.dtype.is_integer() and not series.null_count():
        return numbers(np.asarray(series.to_numpy()))
    if series.dtype.is_integer():
        known = series.drop_nulls()
        if len(known) and max(abs(int(known.max())), abs(int(known.min()))) > 2**53:
            return texts([None if each is None else str(each) for each in series.to_list()])
    return Column("number", _floats(series))


def _dates(series: Any, zone: bool) -> Column:
    if zone:
        series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return dates(np.asarray(series.to_numpy()), zone)


def _texts(series: Any, like: Reading | None) -> Column:
    """Codes and words by the way that is fast in the library of the frame."""
    import narwhals as nw

    native = series.to_native()
    if series.implementation.is_pyarrow():
        return _arrow_texts(native, like)
    if series.implementation.is_pandas():
        if series.dtype != nw.String:
            native = native.astype(object)
        codes, words = native.factorize()
        return understood(np.asarray(codes, dtype=np.int64), [str(word) for word in words], like)
    if series.implementation.is_polars():
        import polars

        return understood(*coded(native.cast(polars.String)), like)
    return column_of(series.to_list(), series.name, like)


def _arrow_texts(native: Any, like: Reading | None) -> Column:
    import pyarrow

    if pyarrow.types.is_dictionary(native.type):
        native = native.cast(native.type.value_type)
    coded = native.dictionary_encode()
    whole = coded.combine_chunks() if isinstance(coded, pyarrow.ChunkedArray) else coded
    if isinstance(whole, pyarrow.ChunkedArray):  # none or several chunks are left
        whole = whole.unify_dictionaries().chunk(0) if whole.num_chunks else None
    if whole is None:
        return texts([], like)
    codes = whole.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return understood(codes, [str(word) for word in whole.dictionary.to_pylist()], like)

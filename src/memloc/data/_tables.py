"""Open labelled tables by what a user types: CSV, TSV or other separated text, and parquet."""

from __future__ import annotations

import csv
import hashlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from memloc.data._limits import check_limit, read_parquet
from memloc.errors import DataError, DataNotFoundError, MemlocError, SpecError, nearest

TEXT_TABLES = (".csv", ".tsv", ".txt")
_HEADER = 1 << 24  # characters of a header at most
_FEW = 20  # more different whole numbers than this may be classes or amounts: the user says which


def is_table(path: str | Path, target: str | None) -> bool:
    """Whether a path is to be read as a table rather than as images: by its suffix, parquet where a target is named.

    >>> is_table("patients.csv", None), is_table("images.parquet", None), is_table("rows.parquet", "price")
    (True, False, True)
    """
    suffix = Path(path).suffix.lower()
    return suffix in TEXT_TABLES or (suffix == ".parquet" and target is not None)


def open_table(path: str | Path, target: str) -> tuple[pd.DataFrame, pd.Series]:
    """A table of columns and its target from a parquet file, or from text separated by commas, semicolons or tabs.

    Raises:
        DataNotFoundError: no such file. DataError: no table, no such column, a missing target.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise DataNotFoundError(
            f"there is no file {str(path)!r}. Expected a table as .csv or .parquet. Check the path."
        )
    if path.suffix.lower() not in (*TEXT_TABLES, ".parquet"):
        raise DataError(
            f"{str(path)!r} is no table that memloc reads. Expected .csv, .tsv, .txt or .parquet. Convert it first."
        )
    try:
        check_limit("BYTES", path.stat().st_size, path)
        table = _text(path) if path.suffix.lower() in TEXT_TABLES else _parquet(path)
        check_limit("ROWS", len(table), path)
    except MemlocError:
        raise
    except Exception as problem:  # pandas raises whatever the bytes lead it to
        reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0][:200]
        step = "Save it as UTF-8" if isinstance(problem, UnicodeError) else "Open it and check"
        raise DataError(
            f"{str(path)!r} cannot be read as a table ({reason}). Expected a header and rows. {step}."
        ) from problem
    if target not in table:
        raise DataError(
            f"{path.name} has no column {target!r}. {nearest(target, map(str, table.columns))} Expected the column to"
            " predict. Pass --target NAME."
        )
    missing = int(table[target].isna().sum())
    if missing:
        raise DataError(
            f"the target {target!r} is missing in {missing} rows. Expected a label in every row. Drop those rows."
        )
    if table.shape[1] < 2:
        raise DataError(
            f"{path.name} has no column beside {target!r}. Expected at least one to value. Pass another table."
        )
    return table.drop(columns=target), table[target]


def _parquet(path: Path) -> pd.DataFrame:
    """A parquet file as a table whose columns are named by text."""
    table: pd.DataFrame = read_parquet(path).to_pandas()
    table.columns = table.columns.map(str)
    return table


def _text(path: Path) -> pd.DataFrame:
    """A table from separated text, its separator and decimal sign found."""
    with path.open(encoding="utf-8-sig") as file:
        header = file.readline(_HEADER)
    between = max((",", ";", "\t"), key=header.count)  # the comma where none occurs
    _check_fields(path, between)
    names = pd.read_csv(path, sep=between, header=None, nrows=1, dtype=str).iloc[0].dropna()
    if names.duplicated().any():
        raise DataError(
            f"the table has two columns named {names[names.duplicated()].iloc[0]!r}. Expected different names. Rename"
            " or drop one."
        )
    with warnings.catch_warnings():  # of separators at the ends of lines, which were looked at
        warnings.simplefilter("ignore", pd.errors.ParserWarning)
        table = pd.read_csv(path, sep=between, index_col=False)  # which would rename the second of two equal names
        decimal = "," if between != "," and any(_has_decimal_commas(table[name]) for name in table) else "."
        if decimal == ",":
            table = pd.read_csv(path, sep=between, index_col=False, decimal=decimal)
        names = [name for name in table if _is_text(table[name]) and table[name].isna().any()]
        if names:  # in a column of text, None and NA are names of their own
            raw = pd.read_csv(path, sep=between, index_col=False, usecols=names, keep_default_na=False, na_values=[""])
            table[names] = raw[names]
    return table


def _is_text(column: pd.Series) -> bool:
    """Whether a column holds text: no numbers, and no booleans between blanks."""
    known = column.dropna()
    return len(known) > 0 and not pd.api.types.is_numeric_dtype(column) and isinstance(known.iloc[0], str)


def _check_fields(path: Path, between: str) -> None:
    """Raise DataError for a line with more or fewer fields than the header, which would shift or empty its columns;
    empty ones at its end aside."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, delimiter=between)
        try:
            wanted = len(next(lines, []))
            for fields in lines:
                extra = fields[wanted:]
                if fields and (len(fields) < wanted or any(extra)):
                    raise DataError(
                        f"line {lines.line_num} of {path.name} has {len(fields)} fields and the header {wanted}."
                        f" Expected as many in every line. Correct it, or put text that holds {between!r} between"
                        " quotation marks."
                    )
        except csv.Error as problem:
            raise DataError(
                f"line {lines.line_num} of {path.name} cannot be read ({problem}). Expected fields separated by"
                f" {between!r}. Correct it."
            ) from problem


def _has_decimal_commas(column: pd.Series) -> bool:
    """Whether a column of text is one of numbers such as 1,5."""
    if pd.api.types.is_numeric_dtype(column) or not column.notna().any():
        return False
    known = column.dropna().astype(str)
    return bool(known.str.fullmatch(r"[+-]?\d*,?\d+").all() and known.str.contains(",").any())


def is_regression(y: pd.Series | NDArray[Any], task: str) -> bool:
    """Whether a target is to be predicted as a number: as `task` says, or by its values."""
    values = pd.Series(y)
    if task != "auto":
        return task == "regression"
    number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    whole = number and bool((values % 1 == 0).all())
    if whole and values.nunique() > _FEW:
        raise SpecError(
            f"the target has {values.nunique()} different whole numbers in {len(values)} rows. Expected classes, or"
            " numbers to predict. Say which: --task regression or --task classification"
        )
    return bool(number and not whole)


def table_fingerprint(X: pd.DataFrame, y: Any) -> str:
    """A hash of a table's contents and target."""
    content = pd.util.hash_pandas_object(X.assign(**{"\0target": np.asarray(y)}), index=False).to_numpy()
    return hashlib.blake2b(content.tobytes() + repr(list(X.columns)).encode(), digest_size=8).hexdigest()

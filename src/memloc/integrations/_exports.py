"""Tables in the conventions of other tools."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from memloc.errors import DataError, SpecError
from memloc.results import Audit, make_folder, ranking_column, replacing, write_table

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def issues_table(audit: Audit, *, alpha: float = 0.05) -> pd.DataFrame:
    """Candidates in cleanlab's convention: `is_memorized_issue`, and `memorized_score` from 0 to 1, lower is worse.

    The score is the chance that a point that no encoder saw would score higher, were scores normal: 1/2 for one like
    those, near 0 for a memorized one. Audits of memloc 0.1 have (1 - SSLMem') / 2 instead. A point is called an issue
    when its q-value is below `alpha`; without points that no encoder saw none is.

    Raises:
        DataError: an audit of one encoder, which scores no point.

    >>> import memloc
    >>> issues_table.__name__
    'issues_table'
    """
    from scipy.stats import norm

    table = audit.points[audit.points["split"] == "candidate"]
    column = ranking_column(table)
    if table[column].isna().all():
        raise DataError(
            "the audit has no score per point, since it had one encoder and neither a reference nor external points."
            " Expected an audit of f and g, of an ensemble, or with points that f never saw. Audit again with --g"
            " ENCODER or --external DATA."
        )
    q_value = table["q_value"] if "q_value" in table else pd.Series(float("nan"), index=table.index)
    return pd.DataFrame(
        {
            "point": table["point"],
            "name": table["name"],
            "is_memorized_issue": (q_value < alpha).fillna(False),
            "memorized_score": norm.sf(table["score"]) if column == "score" else (1 - table["sslmem"]) / 2,
            "score": table[column],
            "q_value": q_value,
        }
    ).sort_values("memorized_score", ignore_index=True)


def _number(text: str) -> bool:
    """Whether text is a negative number, which is no formula."""
    return re.fullmatch(r"-\d+(?:[.,]\d+)?(?:[eE][-+]?\d+)?", text) is not None


def write_any(table: pd.DataFrame, path: Path, *, own: bool = False) -> None:
    """Write a table as .csv, .jsonl or .parquet, whole or not at all.

    Args:
        own: whether it is the user's own table, whose text stays as it is; elsewhere text that a spreadsheet would take
            for a formula has an apostrophe before it.
    Raises:
        SpecError: another suffix. OutputError: the file cannot be written.
    """
    check_suffix(path)
    make_folder(path.parent)
    if path.suffix == ".parquet":
        write_table(path, table)
        return
    with replacing(path) as temporary:
        if path.suffix == ".csv":
            (table if own else _harmless(table)).to_csv(temporary, index=False)
        else:
            table.to_json(temporary, orient="records", lines=True, force_ascii=False)


def _harmless(table: pd.DataFrame) -> pd.DataFrame:
    """The table with an apostrophe before text that a spreadsheet would take for a formula."""

    def escaped(value: object) -> object:
        return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) and not _number(value) else value

    result = table.rename(columns=escaped)
    for place, kind in enumerate(table.dtypes):
        if not pd.api.types.is_numeric_dtype(kind):
            result.isetitem(place, table.iloc[:, place].map(escaped, na_action="ignore"))
    return result


def check_suffix(path: Path) -> None:
    """Raise SpecError for a file that `write_any` cannot write."""
    if path.suffix not in (".csv", ".jsonl", ".parquet"):
        raise SpecError(f"{str(path)!r} has no known suffix. Expected .csv, .jsonl or .parquet. Pass --out issues.csv.")

"""Which row of an audit leads, which column orders its points, and which rows are of the encoder itself."""

from __future__ import annotations

import pandas as pd

from memloc.results._audit import Audit

HEAD_KINDS = ("head", "loss")  # of rows that are no part of the encoder


def leading_row(audit: Audit) -> pd.Series:
    """The row of layers that an audit's answer leads with; of folders of memloc 0.1 the encoder's output."""
    layers = audit.layers.sort_values("order")
    name = (audit.record.get("reading") or {}).get("layer")
    named = layers[layers["layer"] == name]
    return layers.iloc[-1] if named.empty else named.iloc[0]


def ranking_column(table: pd.DataFrame) -> str:
    """The column that orders points: `score` where any is known, else `sslmem`.

    >>> ranking_column(pd.DataFrame({"sslmem": [0.1], "score": [float("nan")]}))
    'sslmem'
    """
    return "score" if "score" in table and table["score"].notna().any() else "sslmem"


def of_encoder(layers: pd.DataFrame) -> pd.DataFrame:
    """The rows of the encoder itself, without its head and the training loss."""
    return layers[~layers["kind"].isin(HEAD_KINDS)]

"""The tables of a valuation: every column's name, type, range and meaning, once."""

from __future__ import annotations

from memloc.results._units import Column


def column(
    name: str, kind: str, tooltip: str, *, optional: bool = False, low: float | None = None, high: float | None = None
) -> Column:
    """One column of a table."""
    return Column(name, kind, tooltip, optional, low, high)


VALUE_TABLES: dict[str, tuple[Column, ...]] = {
    "cells": (
        column("row", "int", "row of the table, from 0", low=0),
        column("column", "text", "column of the table"),
        column(
            "value",
            "float",
            "mean utility of the learners that used the column and did not see the row; high = the cell helps; missing"
            " where none did",
        ),
        column("stderr", "float", "its standard error over draws of learners", low=0),
        column("n_draws", "int", "learners behind it", low=0),
    ),
    "rows": (
        column("row", "int", "row of the table, from 0", low=0),
        column(
            "value",
            "float",
            "Data-OOB: mean utility of the learners that did not see the row; of numbers 1 less the squared error over"
            " the target's variance",
        ),
        column("stderr", "float", "its standard error over draws of learners", low=0),
        column("n_draws", "int", "learners behind it", low=0),
        column(
            "label_wrong",
            "float",
            "chance that the label is wrong, if labels were replaced at random; two thirds of it where wrong labels"
            " cannot be told from hard rows, half where learners do no better than the commonest class",
            optional=True,
            low=0,
            high=1,
        ),
        column("suggested", "text", "the likeliest class but the label", optional=True),
    ),
    "suspects": (
        column("rank", "int", "place in the list, from 1", low=1),
        column("row", "int", "row of the table, from 0", low=0),
        column("column", "text", "column of the table; missing of whole rows", optional=True),
        column(
            "kind",
            "text",
            "outlier, category, label (of numbers: one that does not fit its row), duplicate or misleads",
        ),
        column("score", "float", "chance that it is an error, as far as one can tell", low=0, high=1),
        column("value", "float", "value of the cell, or of the row"),
        column("suggested", "text", "what would be expected; missing where nothing is", optional=True),
        column("text", "text", "what is odd, in words"),
    ),
    "checks": (
        column("check", "text", "what was looked for"),
        column("column", "text", "column of the table; missing of the whole", optional=True),
        column("row", "int", "row of the table, from 0; missing of a column", optional=True, low=0),
        column("other_row", "int", "the row that it is like", optional=True, low=0),
        column("text", "text", "what was found, in words"),
        column("evidence", "float", "how strong it is: a share, or a count"),
    ),
}

"""The columns of units.parquet, each declared once: its formula, type, range, meaning, and whether the report shows it.

States, table, docs and report follow from here. A formula is a function of memloc/metrics/_units.py; what it takes are
fields of UnitState or ClassState and `mu_rest`, all of one group of points.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """One column of a table; `tooltip` is what the report shows beside its name."""

    name: str
    kind: str  # "int", "float", "text", "bytes"
    tooltip: str
    optional: bool = False
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class UnitColumn(Column):
    """A column of units.parquet.

    Attributes:
        formula: function of what it takes; "" for the one thing that it takes.
        takes: fields of a state, by name. of: the group of points whose state that is.
        part: field of what the formula gives, where that has several.
        heading: what the report's table of units calls it; "" where it does not show it.
    """

    formula: str = ""
    takes: tuple[str, ...] = ()
    of: str = ""
    part: str = ""
    heading: str = ""


_CLASS = {"formula": "class_contrast", "takes": ("total", "count", "classes")}

UNIT_COLUMNS: tuple[UnitColumn, ...] = (
    UnitColumn(
        "unitmem",
        "float",
        "(mu_max - mu_rest) / (mu_max + mu_rest): 1 = one point alone drives the unit",
        low=0,
        high=1,
        formula="contrast",
        takes=("mu_max", "mu_rest"),
        of="trained",
        heading="UnitMem",
    ),
    UnitColumn("mu_max", "float", "mean activation of the memorized point", takes=("mu_max",), of="trained"),
    UnitColumn("mu_rest", "float", "mean activation of all other points", takes=("mu_rest",), of="trained"),
    UnitColumn("point", "int", "the point that the unit memorizes", takes=("point",), of="trained"),
    UnitColumn(
        "unitmem_external",
        "float",
        "UnitMem of the same unit over external points",
        optional=True,
        low=0,
        high=1,
        formula="contrast",
        takes=("mu_max", "mu_rest"),
        of="external_equal",
        heading="control",
    ),
    UnitColumn(
        "classmem",
        "float",
        "the same contrast between classes",
        optional=True,
        low=0,
        high=1,
        of="classes trained",
        part="value",
        heading="ClassMem",
        **_CLASS,  # type: ignore[arg-type]
    ),
    UnitColumn(
        "class",
        "int",
        "the class the unit answers to",
        optional=True,
        of="classes trained",
        part="label",
        heading="class",
        **_CLASS,  # type: ignore[arg-type]
    ),
    UnitColumn(
        "class_selectivity",
        "float",
        "ClassMem on external points",
        optional=True,
        low=0,
        high=1,
        of="classes external",
        part="value",
        **_CLASS,  # type: ignore[arg-type]
    ),
)

"""The result tables: every column's name, type, range and meaning, once."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from memloc.errors import ResultsError
from memloc.results._units import UNIT_COLUMNS, Column
from memloc.results._value_columns import VALUE_TABLES
from memloc.results._value_columns import column as _c

TABLES: dict[str, tuple[Column, ...]] = {
    **VALUE_TABLES,
    "points": (
        _c("point", "int", "stable id of the image"),
        _c("name", "text", "file or row of the image"),
        _c("split", "text", "shared, candidate, independent or external"),
        _c("label", "int", "class number, -1 where unknown", optional=True),
        _c(
            "sslmem",
            "float",
            "SSLMem' at the encoder's output: (align_g - align_f) / (align_g + align_f), 0 = none, 1 = strongest",
            low=-1,
            high=1,
        ),
        _c("sslmem_pairwise", "float", "the same as a mean over pairs of views; less noisy", low=-1, high=1),
        _c("sslmem_raw", "float", "align_g - align_f"),
        _c("sslmem_range", "float", "sslmem_raw over (max - min) of the candidates, the published scaling"),
        _c("sslmem_low", "float", "lower end of the score's 95 % interval"),
        _c("sslmem_high", "float", "upper end of the score's 95 % interval"),
        _c(
            "score",
            "float",
            "at the reading that leads, free of differences between encoders, in standard deviations of points that no"
            " encoder saw: 0 = like those, 2 = as 2 % of them",
            optional=True,
        ),
        _c("score_low", "float", "lower end of its 95 % interval", optional=True),
        _c("score_high", "float", "upper end of its 95 % interval", optional=True),
        _c(
            "evidence",
            "float",
            "by how many deviations of unseen points the readings at head and loss (else at the output) lie below what"
            " the reference and the encoder's first layers foretell",
            optional=True,
        ),
        _c(
            "p_value",
            "float",
            "of the evidence, one-sided, against points that no encoder saw",
            optional=True,
            low=0,
            high=1,
        ),
        _c("q_value", "float", "Benjamini-Hochberg over candidates", optional=True, low=0, high=1),
        _c("named", "bool", "whether the point is named as memorized: q_value below .05", optional=True),
        _c(
            "decoy",
            "bool",
            "whether it is a held-out point that was scored as if it were a candidate, to count false names",
            optional=True,
        ),
        _c("align_in", "float", "mean alignment over encoders that were trained on the point", optional=True, low=0),
        _c("align_out", "float", "mean alignment over encoders that were not", optional=True, low=0),
        _c("n_units", "int", "units of f that this point drives most", low=0),
        _c(
            "origin",
            "text",
            "of external points: held-out (of the trained set), given, or removed (by memloc remove); else empty",
            optional=True,
        ),
        _c("repeats", "int", "times the point was shown per epoch, above 1 where planted", optional=True, low=0),
    ),
    "point_layers": (
        _c("point", "int", "stable id of the image"),
        _c("layer", "text", "layer of the encoder"),
        _c("align_in", "float", "mean alignment over encoders that were trained on the point", low=0),
        _c("align_out", "float", "mean alignment over encoders that were not", low=0),
        _c("sslmem", "float", "SSLMem' at this layer", low=-1, high=1),
        _c("score", "float", "the score free of differences between encoders at this layer", optional=True),
    ),
    "layers": (
        _c("layer", "text", "layer of the encoder"),
        _c("read_at", "text", "module whose output is read; empty for the encoder itself"),
        _c("order", "int", "place in the forward pass", low=0),
        _c("kind", "text", "convolution, residual, linear, output, ..., head, or loss (the training loss)"),
        _c("predecessor", "text", "layer that Δ subtracts", optional=True),
        _c("n_points", "int", "candidates scored", low=0),
        _c("n_units", "int", "units read; 0 of the loss", low=0),
        _c(
            "reliability_views",
            "float",
            "would other views rank the candidates alike: 1 = exactly, 0 = not at all",
            low=-1,
            high=1,
        ),
        _c(
            "reliability_runs",
            "float",
            "would other training runs rank them alike; unknown with one pair",
            optional=True,
            low=-1,
            high=1,
        ),
        _c(
            "layermem",
            "float",
            "published LayerMem: mean SSLMem' of candidates (with --scale range, of raw scores over their range)",
        ),
        _c("se", "float", "its standard error over points, and over runs where there are three or more a side", low=0),
        _c("low", "float", "lower end of its 95 % interval"),
        _c("high", "float", "upper end of its 95 % interval"),
        *(
            column
            for split in ("shared", "candidate", "independent", "external")
            for column in (
                _c(
                    f"layermem_{split}",
                    "float",
                    f"mean SSLMem' of {split} points (with --scale range, of raw scores over their range)",
                    optional=True,
                ),
                _c(f"{split}_se", "float", "its standard error", optional=True, low=0),
                _c(f"{split}_low", "float", "lower end of its 95 % interval", optional=True),
                _c(f"{split}_high", "float", "upper end of its 95 % interval", optional=True),
            )
        ),
        _c(
            "layermem_calibrated",
            "float",
            "membership effect: what training on a point changes, net of differences between encoders",
            low=-1,
            high=1,
        ),
        _c(
            "calibrated_se",
            "float",
            "its standard error, over points, and over other trainings where there are enough",
            low=0,
        ),
        _c("calibrated_low", "float", "lower end of its 95 % interval"),
        _c("calibrated_high", "float", "upper end of its 95 % interval"),
        _c(
            "simultaneous_low",
            "float",
            "lower bound of the figure that decides (membership effect, else own, else gap), right for all rows at"
            " once (95 %)",
            optional=True,
        ),
        _c("simultaneous_high", "float", "upper bound, likewise", optional=True),
        _c("shows", "bool", "whether memorization shows here: the simultaneous bound lies above 0", optional=True),
        _c("layermem_own", "float", "mean SSLMem' of candidates less that of external points", optional=True),
        _c("own_se", "float", "its standard error", optional=True, low=0),
        _c("own_low", "float", "lower end of its 95 % interval", optional=True),
        _c("own_high", "float", "upper end of its 95 % interval", optional=True),
        _c("delta", "float", "LayerMem less its predecessor's"),
        _c("delta_se", "float", "its standard error", low=0),
        _c("delta_low", "float", "lower end of its 95 % interval"),
        _c("delta_high", "float", "upper end of its 95 % interval"),
        _c("delta_calibrated", "float", "calibrated LayerMem less its predecessor's"),
        _c("delta_calibrated_se", "float", "its standard error", low=0),
        _c("delta_calibrated_low", "float", "lower end of its 95 % interval"),
        _c("delta_calibrated_high", "float", "upper end of its 95 % interval"),
        _c(
            "auroc",
            "float",
            "chance that a trained point scores above one never seen; 0.5 = no difference",
            low=0,
            high=1,
        ),
        _c("auroc_low", "float", "lower end of its 95 % interval"),
        _c("auroc_high", "float", "upper end of its 95 % interval"),
        _c(
            "excess_low",
            "float",
            "at least this share of candidates stands out from external points (95 %)",
            low=0,
            high=1,
        ),
        _c("alignment_gap", "float", "f alone: mean alignment of external less trained points", optional=True),
        _c("gap_se", "float", "its standard error", optional=True, low=0),
        _c("gap_low", "float", "lower end of its 95 % interval", optional=True),
        _c("gap_high", "float", "upper end of its 95 % interval", optional=True),
        _c(
            "reference_slope",
            "float",
            "how far a reading of the reference foretells the encoder's, on points that nobody saw: 1 = as in the"
            " published difference, 0 = not at all",
            optional=True,
        ),
        _c("reference_correlation", "float", "correlation of the two readings there", optional=True, low=-1, high=1),
        _c("layermem_top", "float", "LayerMem of the most memorized points, ranked and scored on different views"),
        _c("layermem_least", "float", "LayerMem of the least memorized points, likewise"),
        _c("unitmem_mean", "float", "mean UnitMem of the layer's units", low=0, high=1),
        _c("unitmem_low", "float", "lower end of its 95 % interval over units"),
        _c("unitmem_high", "float", "upper end of its 95 % interval over units"),
        _c("unitmem_p90", "float", "UnitMem that one unit in ten exceeds", low=0, high=1),
        _c(
            "unitmem_equal_mean",
            "float",
            "mean UnitMem over as many trained points as there are external ones",
            optional=True,
            low=0,
            high=1,
        ),
        _c(
            "unitmem_external_mean",
            "float",
            "mean UnitMem over as many external points: the control",
            optional=True,
            low=0,
            high=1,
        ),
        _c(
            "member_share",
            "float",
            "share of units whose strongest point is trained, with equally many external; 0.5 = chance",
            optional=True,
            low=0,
            high=1,
        ),
        _c("member_share_low", "float", "lower end of its 95 % interval", optional=True),
        _c("member_share_high", "float", "upper end of its 95 % interval", optional=True),
        _c("classmem_mean", "float", "mean ClassMem of the layer's units", optional=True, low=0, high=1),
    ),
    "units": (
        _c("layer", "text", "layer of the encoder"),
        _c("unit", "int", "channel or neuron", low=0),
        *UNIT_COLUMNS,
    ),
    "separation": (
        _c(
            "reading",
            "text",
            "row of layers (of ensembles by cells of encoder and point), LiRA at the row that leads, or evidence",
        ),
        _c("auroc", "float", "chance that a trained point scores above one never seen", low=0, high=1),
        _c("auroc_low", "float", "lower end of its 95 % interval", low=0, high=1),
        _c("auroc_high", "float", "upper end of its 95 % interval", low=0, high=1),
        _c("fpr", "float", "share of never-seen points that may be taken for trained ones", low=0, high=1),
        _c(
            "tpr",
            "float",
            "share of trained points found at that rate; missing where there are fewer never-seen points than 1 / rate",
            low=0,
            high=1,
        ),
        _c("tpr_low", "float", "lower end of its 95 % interval, over points and the threshold", low=0, high=1),
        _c("tpr_high", "float", "upper end of its 95 % interval", low=0, high=1),
        _c(
            "epsilon_low",
            "float",
            "lower bound (95 %) of the epsilon of the training, from one run of fair coins (train --coin)",
            optional=True,
            low=0,
        ),
    ),
    "thumbnails": (
        _c("point", "int", "stable id of the image"),
        _c("png", "bytes", "small picture of it"),
    ),
    "coreset": (
        _c("point", "int", "id of the image, or row of the table"),
        _c("class", "int", "group it was selected in: given label, predicted class, or -1 where all are one group"),
        _c("rank", "int", "place in the order of picks of its group, from 0", low=0),
        _c("gain", "float", "what it added to its group's objective"),
        _c("weight", "float", "how many points of its group it stands for", low=0),
    ),
    "labels": (
        _c("point", "int", "id of the image, or row of the table"),
        _c("name", "text", "file or row of the point"),
        _c("label", "int", "class number as given"),
        _c("predicted", "int", "class that the model predicts at the end"),
        _c("p_label", "float", "chance that the model gives to the given label", low=0, high=1),
        _c("kept", "int", "1 if the last selection kept the point", low=0, high=1),
        _c("n_kept", "int", "selections that kept it", low=0),
        _c("suspected", "int", "1 if it was dropped last and the model predicts another label", low=0, high=1),
        _c("true_label", "int", "class number where the truth is known", optional=True),
    ),
    "epochs": (
        _c("epoch", "int", "epoch, or round of an estimator", low=0),
        _c("loss", "float", "mean weighted loss", optional=True),
        _c("learning_rate", "float", "of the epoch", optional=True, low=0),
        _c("selected", "int", "points trained on", low=0),
        _c("accuracy", "float", "on given labels of all points, after the epoch", low=0, high=1),
        _c("accuracy_kept", "float", "of selected points", optional=True, low=0, high=1),
        _c("accuracy_dropped", "float", "of the others", optional=True, low=0, high=1),
        _c("clean_fraction", "float", "share of selected points whose label is true", optional=True, low=0, high=1),
        _c("clean_fraction_weighted", "float", "the same by weight", optional=True, low=0, high=1),
        _c(
            "noisy_memorized",
            "float",
            "share of wrongly labelled points predicted as their wrong label",
            optional=True,
            low=0,
            high=1,
        ),
        _c("true_accuracy", "float", "on true labels of all points", optional=True, low=0, high=1),
        _c("test_accuracy", "float", "on test data", optional=True, low=0, high=1),
    ),
}


_KINDS: dict[str, Callable[[pd.Series], bool]] = {
    "int": pd.api.types.is_integer_dtype,
    "float": lambda values: pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values),
    "text": lambda values: all(isinstance(value, str) for value in values),
    "bool": pd.api.types.is_bool_dtype,
    "bytes": lambda values: all(isinstance(value, bytes) for value in values),
}


_DTYPES = {"int": "int64", "float": "float64", "bool": "bool"}


def empty(name: str) -> pd.DataFrame:
    """A table without rows.

    >>> list(empty("thumbnails"))
    ['point', 'png']
    """
    return pd.DataFrame(
        {
            column.name: pd.Series(dtype=_DTYPES.get(column.kind, "object"))
            for column in TABLES[name]
            if not column.optional
        }
    )


def conform(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """A table with its columns in schema order.

    Raises:
        ResultsError: a column that is missing, unknown, of another type or out of its range.

    >>> conform("thumbnails", pd.DataFrame({"point": [1]}))
    Traceback (most recent call last):
    memloc.errors.ResultsError: thumbnails has no column 'png'. Expected point, png. Write it again with: memloc audit
    """
    columns = TABLES[name]
    known = {column.name for column in columns}
    missing = [column.name for column in columns if not column.optional and column.name not in table]
    unknown = [column for column in table if column not in known]
    if missing or unknown:
        problem = f"no column {missing[0]!r}" if missing else f"an unknown column {unknown[0]!r}"
        raise ResultsError(
            f"{name} has {problem}. Expected {', '.join(column.name for column in columns)}. Write it again with:"
            " memloc audit"
        )
    for column in columns:
        if column.name in table and not _KINDS[column.kind](table[column.name].dropna()):
            raise ResultsError(
                f"{name}.{column.name} holds {table[column.name].dtype} values. Expected {column.kind}. Write it again"
                " with: memloc audit"
            )
        if column.name in table and column.kind in ("int", "float"):
            values = table[column.name]
            slack = 1e-9
            if (column.low is not None and (values < column.low - slack).any()) or (
                column.high is not None and (values > column.high + slack).any()
            ):
                raise ResultsError(
                    f"{name}.{column.name} has values from {values.min()} to {values.max()}. Expected {column.low} to"
                    f" {column.high}. Write it again with: memloc audit"
                )
    return table[[column.name for column in columns if column.name in table]]

"""memloc value."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from memloc.cli import _common as common
from memloc.cli._flags import Config, DryRun, Json, MaxBad, Overwrite, Size
from memloc.errors import SpecError
from memloc.progress import roughly

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from memloc.valuation import How, Valuation, ValueSpec


def value(
    table: Annotated[
        str,
        typer.Argument(help="A .csv, .tsv or .parquet table, or labelled images: a folder, IDX, .npz, sample:train."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the tables and the report.")],
    target: Annotated[str | None, typer.Option(help="The column to predict; images bring their labels.")] = None,
    learners: Annotated[int, typer.Option(help="Weak learners at most.")] = 1000,
    max_features: Annotated[
        str | None,
        typer.Option(help="Columns of each learner: a share such as 0.5, a number, or sqrt; 0.5 by default."),
    ] = None,
    learner: Annotated[str, typer.Option(help="tree, logistic (linear for numbers) or mlp.")] = "tree",
    task: Annotated[str, typer.Option(help="auto, classification or regression.")] = "auto",
    distance_weight: Annotated[float, typer.Option(help="Weight of a row's closeness to its class.")] = 0.0,
    tol: Annotated[float | None, typer.Option(help="Stop when every row's standard error is below this.")] = None,
    block: Annotated[int, typer.Option(help="Images: side of the pixel blocks that are drawn together.")] = 1,
    region: Annotated[
        int | None, typer.Option(help="Images: side in pixels of the region sought; sets --max-features to find it.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Images: value a seeded sample of this many.")] = None,
    repair: Annotated[str | None, typer.Option(help="Also repair the lowest cells: median or model.")] = None,
    repair_share: Annotated[float, typer.Option(help="Share of cells to repair.")] = 0.05,
    size: Size = None,
    max_bad: MaxBad = 0,
    seed: Annotated[int, typer.Option(help="Of learners and samples.")] = 0,
    workers: Annotated[int, typer.Option(help="Threads.")] = 1,
    dry_run: DryRun = False,
    as_json: Json = False,
    overwrite: Overwrite = False,
    config: Config = None,
) -> None:
    """Value every cell and row of a labelled table (2D-OOB): which help a model and which hurt it."""
    from memloc.report import write_value_report
    from memloc.results import claim_folder
    from memloc.valuation import TEXT_TABLES, Valuation, ValueSpec, check_table, is_regression, table_fingerprint

    suffix = Path(table).suffix.lower()
    is_table = suffix in TEXT_TABLES or (suffix == ".parquet" and target is not None)
    X, y, groups, extra = (
        _table(
            table,
            target,
            {
                "--block": block != 1,
                "--region": region is not None,
                "--limit": limit is not None,
                "--size": size is not None,
            },
        )
        if is_table
        else _images(table, target, block, limit, size, max_bad, seed)
    )
    share = _share(max_features, region, block, groups)
    spec = ValueSpec(learners, share, learner, task, distance_weight, tol, seed, workers)
    check_table(X, y, spec, groups=groups)
    if repair is not None:
        _check_repair(repair, repair_share, is_table, X, y, is_regression(y, task))
    if dry_run:
        found = _cost(X, y, spec, groups, repair)
        common.show_plan(as_json, found, out)
        return
    settings = {key: value for key, value in asdict(spec).items() if key != "workers"}
    extra |= {"data": table, "target": target, "fingerprint": table_fingerprint(X, y)}
    identity = {
        **settings,
        "block": block,
        "repair": repair,
        "repair_share": repair_share if repair else None,
        "fingerprint": extra["fingerprint"],
    }
    claim_folder(out, identity, overwrite=overwrite)
    if (out / "value.json").is_file():
        result = Valuation.load(out)
    else:
        result = _value(X, y, spec, groups, extra, repair, repair_share, out, as_json)
    path = write_value_report(out)
    found = {
        "out": str(out),
        "report": str(path),
        "oob_score": result.record["oob_score"],
        "learners": result.record["learners"],
        "worst_rows": result.record["worst_rows"][:10],
        "worst_cells": result.record["worst_cells"][:10],
        "repair": result.record.get("repair"),
        "repaired": str(out / "repaired.parquet") if repair else None,
        "warnings": result.record["warnings"],
    }
    for warning in [] if as_json else result.record["warnings"]:
        common.say(f"warning: {warning}")
    lines = [*result.record["answer"], *([f"repaired table: {found['repaired']}"] if repair else []), f"report: {path}"]
    common.emit(as_json, found, "\n".join(lines))


def _value(
    X: pd.DataFrame,
    y: np.ndarray,
    spec: ValueSpec,
    groups: np.ndarray | None,
    extra: dict[str, Any],
    repairing: str | None,
    share: float,
    out: Path,
    as_json: bool,
) -> Valuation:
    """Value, repair if asked, and write everything but the report."""
    import numpy as np

    from memloc.results import write_table
    from memloc.valuation import (
        describe,
        is_regression,
        lowest_cells,
        make_valuer,
        repair,
        repair_gain,
        value_table,
        z_scores,
    )

    say = common.progress(as_json)
    work = out / ".sums.npz"
    result = value_table(X, y, spec, groups=groups, extra=extra, work=work, report=say)
    regression = result.record["regression"]
    scores = z_scores(X, y, regression=regression)
    if repairing is not None:
        how: How = cast("How", repairing)
        grid = result.cells["value"].to_numpy().reshape(X.shape)
        repaired = repair(X, lowest_cells(grid, share), how)
        write_table(out / "repaired.parquet", repaired.assign(**{extra["target"]: np.asarray(y)}))
        valuer = make_valuer(spec, regression=is_regression(y, spec.task))
        gain = repair_gain(X, np.asarray(y), valuer, share=share, how=how, report=say)
        folds = {name: values.tolist() for name, values in gain._asdict().items()}
        result.record["repair"] = {"how": how, "share": share, **folds}
    result = describe(result, X, scores)
    result.save(out)
    work.unlink()
    return result


def _table(
    path: str, target: str | None, images_only: dict[str, bool]
) -> tuple[pd.DataFrame, Any, None, dict[str, Any]]:
    from memloc.valuation import open_table

    given = [flag for flag, used in images_only.items() if used]
    if given:
        raise SpecError(
            f"{given[0]} is for images and {path!r} is a table. Expected flags for tables. Leave {given[0]} out."
        )
    if target is None:
        raise SpecError(f"{path!r} is given without a target. Expected the column to predict. Pass --target COLUMN.")
    X, y = open_table(path, target)
    return X, y.to_numpy(), None, {}


def _images(
    where: str, target: str | None, block: int, limit: int | None, size: int | None, max_bad: int, seed: int
) -> tuple[pd.DataFrame, Any, Any, dict[str, Any]]:
    import numpy as np
    import pandas as pd
    import torch

    from memloc.data import open_images
    from memloc.errors import DataError
    from memloc.valuation import pixel_groups, pixel_table

    if target is not None:
        raise SpecError(
            "--target is given for images. Expected none: images bring their labels. Leave --target out, or pass a .csv"
            " or .parquet table."
        )
    if limit is not None and limit < 2:
        raise SpecError(f"--limit is {limit}. Expected at least 2 images. Pass --limit 1000.")
    images = open_images(where, size=size, max_bad=max_bad)
    if images.labels is None:
        raise DataError(
            f"{where!r} has no labels. Expected a label per image, such as folders of classes. Pass labelled images."
        )
    known = torch.nonzero(images.labels >= 0).flatten()
    if limit is not None:
        chosen = np.random.default_rng([seed, 7]).permutation(len(known))[:limit]
        known = known[torch.from_numpy(np.sort(chosen))]
    images = images.take(known)
    assert images.labels is not None, "they were looked at"
    pixels = images.pixels[:].numpy()
    _, channels, height, width = pixels.shape
    names = [
        f"{channel}:{row},{column}" for channel in range(channels) for row in range(height) for column in range(width)
    ]
    labels = np.array(
        [images.class_names[label] if images.class_names else str(label) for label in images.labels.tolist()]
    )
    extra = {"image_shape": [channels, height, width], "block": block, "names": list(images.names)}
    return (
        pd.DataFrame(pixel_table(pixels), columns=names),
        labels,
        pixel_groups(channels, height, width, block=block),
        extra,
    )


def _share(given: str | None, region: int | None, block: int, groups: Any) -> float | int | str:
    """The columns of each learner, from --max-features or the size of the region sought."""
    if region is not None:
        if given is not None:
            raise SpecError("--region and --max-features are both given. Expected one. Leave one of them out.")
        if region < 1:
            raise SpecError(f"--region is {region}. Expected at least 1 pixel. Pass --region 4.")
        from memloc.valuation import recommended_share

        return recommended_share(int(groups.max()) + 1, max(round((region / block) ** 2), 1))
    if given is None:
        return 0.5
    if given == "sqrt":
        return given
    try:
        return int(given) if given.lstrip("+-").isdigit() else float(given)
    except ValueError as problem:
        raise SpecError(
            f"--max-features is {given!r}. Expected a share such as 0.5, a whole number, or sqrt. Pass --max-features"
            " 0.5."
        ) from problem


def _check_repair(how: str, share: float, is_table: bool, X: pd.DataFrame, y: Any, regression: bool) -> None:
    """Raise SpecError for a repair that cannot be done, before work starts."""
    from memloc.valuation import check_repair, check_share

    if not is_table:
        raise SpecError("--repair is for tables and images are given. Expected a table. Leave --repair out.")
    check_share(share)
    check_repair(X, how, y, regression=regression)


def _cost(X: pd.DataFrame, y: Any, spec: ValueSpec, groups: Any, repairing: str | None) -> dict[str, Any]:
    """Rows, columns, learners, and expected seconds and memory from a few timed learners."""
    import time
    import warnings
    from dataclasses import replace

    from memloc.valuation import FOLDS, value_table

    few, many = 2, min(max(spec.learners, 3), 2 + 8 * max(spec.workers, 1))
    seconds = []
    for learners in (few, few, many):  # the first also loads what the others use
        began = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value_table(X, y, replace(spec, learners=learners, tol=None), groups=groups)
        seconds.append(time.monotonic() - began)
    each = max(seconds[2] - seconds[1], 0.0) / (many - few)
    expected = seconds[1] + each * spec.learners * (1 if repairing is None else 1 + FOLDS * (1 - 1 / FOLDS))
    return {
        "rows": X.shape[0],
        "columns": X.shape[1],
        "learners": spec.learners,
        "max_features": spec.max_features,
        "seconds": roughly(expected),
        "memory_mb": roughly(X.size * 8 * 8 / 2**20),
    }

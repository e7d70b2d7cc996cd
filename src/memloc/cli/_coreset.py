"""memloc coreset."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memloc.cli import _common as common
from memloc.cli._flags import ENCODERS, Config, Device, DryRun, Json, MaxBad, Overwrite, Size
from memloc.errors import DataError, SpecError, nearest
from memloc.progress import roughly

if TYPE_CHECKING:
    import pandas as pd

    from memloc.coreset import CoresetRun, Crust, RobustSpec
    from memloc.data import Images

_LEARNERS = ("forest", "boosting", "logistic", "mlp")
_NOISES = ("symmetric", "asymmetric")


def coreset(
    data: Annotated[
        str,
        typer.Argument(
            help=(
                "Labelled images: a folder, .parquet, IDX, .npz, sample:train; or a .csv, .tsv or .parquet table with"
                " --target."
            )
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for tables, model and report; an interrupted run is continued.")],
    target: Annotated[str | None, typer.Option(help="Tables: the column to predict.")] = None,
    truth: Annotated[
        str | None, typer.Option(help="Tables: the column with verified labels, to report and not to train on.")
    ] = None,
    by: Annotated[
        str, typer.Option(help="gradient (trains on labels) or representation (of --encoder; no labels).")
    ] = "gradient",
    encoder: Annotated[str, typer.Option(help=f"Images: {ENCODERS}")] = "resnet9",
    weights: Annotated[
        str | None, typer.Option(help="Checkpoint of --encoder; new weights by default, or random.")
    ] = None,
    learner: Annotated[str, typer.Option(help="Tables: forest, boosting, logistic or mlp.")] = "forest",
    fraction: Annotated[float, typer.Option(help="Share of each group to select.")] = 0.5,
    budget: Annotated[int | None, typer.Option(help="Points of each group, instead of a fraction.")] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help=(
                "centrality (by default, by gradient) or facility_location (by representation; picks more wrong labels"
                " than chance)."
            )
        ),
    ] = None,
    group_by: Annotated[str | None, typer.Option(help="prediction (by default), label or none.")] = None,
    optimizer: Annotated[str, typer.Option(help="Of facility location: lazy, stochastic or naive.")] = "lazy",
    epsilon: Annotated[float, typer.Option(help="Of stochastic.")] = 0.01,
    metric: Annotated[str, typer.Option(help="euclidean, cosine or manhattan.")] = "euclidean",
    memory: Annotated[str, typer.Option(help="auto, dense or free of distances.")] = "auto",
    epochs: Annotated[int, typer.Option(help="Images: of training.")] = 40,
    warmup: Annotated[int, typer.Option(help="Images: epochs on all points before the first selection.")] = 5,
    every: Annotated[int, typer.Option(help="Images: epochs between selections.")] = 1,
    batch_size: Annotated[int, typer.Option(help="Images.")] = 128,
    learning_rate: Annotated[float, typer.Option(help="Images: of SGD.")] = 0.05,
    schedule: Annotated[str, typer.Option(help="Images: step, cosine or constant.")] = "step",
    mixup: Annotated[str, typer.Option(help="Images: partners of the same label, cluster, or none.")] = "label",
    augmentation: Annotated[
        str, typer.Option(help="Images: none, or weak, normal, strong, independent, crop.")
    ] = "none",
    precision: Annotated[str, typer.Option(help="Images: auto, bfloat16 or float32.")] = "auto",
    rounds: Annotated[int, typer.Option(help="Tables: selections.")] = 3,
    folds: Annotated[int, typer.Option(help="Tables: parts for predictions of rows that a fit has not seen.")] = 5,
    test: Annotated[str | None, typer.Option(help="Images or a table for accuracy, never trained on.")] = None,
    noise: Annotated[
        float | None,
        typer.Option(help="An experiment: make this share of the labels wrong; the given ones are the truth."),
    ] = None,
    noise_kind: Annotated[str, typer.Option(help="symmetric, or asymmetric (CIFAR-10's pairs).")] = "symmetric",
    scores: Annotated[
        list[str] | None,
        typer.Option(
            help="Folder of an audit or of memloc value of the same points, to compare with; repeat for more."
        ),
    ] = None,
    size: Size = None,
    max_bad: MaxBad = 0,
    seed: Annotated[int, typer.Option(help="Of weights, order, partners and noise.")] = 0,
    device: Device = "auto",
    dry_run: DryRun = False,
    as_json: Json = False,
    overwrite: Overwrite = False,
    config: Config = None,
) -> None:
    """Train on the points whose labels can be trusted (CRUST), and list those whose labels cannot."""
    from memloc.coreset import CoresetRun, Crust, RobustSpec, check_names, scores_of

    for name, value, known in (
        ("by", by, ("gradient", "representation")),
        ("learner", learner, _LEARNERS),
        ("noise-kind", noise_kind, _NOISES),
    ):
        if value not in known:
            raise SpecError(
                f"there is no {name} {value!r}. {nearest(value, known)} Expected one of {', '.join(known)}. Pass"
                f" --{name} {known[0]}."
            )
    gradient = by == "gradient"
    grouping = (group_by or "prediction") if gradient else (group_by or "none")
    crust = Crust(
        fraction,
        budget=budget,
        objective=objective or ("centrality" if gradient else "facility_location"),
        group_by=None if grouping == "none" else grouping,
        optimizer=optimizer,
        epsilon=epsilon,
        metric=metric,
        memory=memory,
        random_state=seed,
    )
    spec = RobustSpec(
        epochs=epochs,
        warmup=warmup,
        every=every,
        batch_size=batch_size,
        learning_rate=learning_rate,
        schedule=schedule,
        mixup=mixup,
        augmentation=augmentation,
        precision=precision,
        rounds=rounds,
        folds=folds,
        seed=seed,
        device=device,
    )
    is_table = target is not None or Path(data).suffix.lower() in (".csv", ".tsv", ".txt")
    if gradient and not is_table and warmup >= epochs:
        raise SpecError(
            f"warmup is {warmup} of {epochs} epochs. Expected fewer, so that there is a selection. Pass --warmup"
            f" {max(epochs // 4, 1)}."
        )
    made = {"noise": noise, "noise_kind": noise_kind if noise is not None else None}
    given = {
        "images": {
            "--encoder": encoder != "resnet9",
            "--weights": weights is not None,
            "--epochs": epochs != 40,
            "--warmup": warmup != 5,
            "--every": every != 1,
            "--batch-size": batch_size != 128,
            "--learning-rate": learning_rate != 0.05,
            "--schedule": schedule != "step",
            "--mixup": mixup != "label",
            "--augmentation": augmentation != "none",
            "--precision": precision != "auto",
            "--size": size is not None,
        },
        "tables": {
            "--truth": truth is not None,
            "--learner": learner != "forest",
            "--rounds": rounds != 3,
            "--folds": folds != 5,
        },
    }
    clash = [flag for flag, used in given["images" if is_table else "tables"].items() if used]
    if clash:
        raise SpecError(
            f"{clash[0]} is for {'images' if is_table else 'tables'} and {data!r} is"
            f" {'a table' if is_table else 'images'}. Expected other flags. Leave {clash[0]} out."
        )
    if is_table:
        if not gradient:
            raise SpecError(
                "--by representation is for images and a table is given. Expected --by gradient. Leave --by out."
            )
        work: _Table | _Images = _Table(data, target, truth, learner, test, crust, spec, made)
    else:
        if not gradient and grouping != "none":
            raise SpecError(
                f"--group-by is {grouping} and --by representation looks at no labels. Expected none. Leave --group-by"
                " out."
            )
        if not gradient and (noise is not None or test is not None or scores):
            raise SpecError(
                "--noise, --test or --scores is given with --by representation, which looks at no labels. Expected --by"
                " gradient for them. Leave them out."
            )
        images = _opened(data, size, max_bad, labelled=gradient)
        tested = None if test is None else _opened(test, images.size if size is None else size, max_bad, labelled=True)
        work = _Images(images, data, encoder, weights, tested, crust, spec, made, by)
    others = [scores_of(folder) for folder in scores or []]
    for other in others:
        check_names(work.names, other)
    if dry_run:
        cost = work.cost()
        common.show_plan(as_json, cost, out)
        return
    from memloc.report import write_coreset_report
    from memloc.results import claim_folder

    identity = {
        **asdict(spec),
        **{f"crust_{key}": value for key, value in vars(crust).items()},
        **made,
        "by": by,
        "data": data,
        "test": test,
        "scores": scores or [],
        **work.identity(),
    }
    identity.pop("device")
    claim_folder(out, identity, overwrite=overwrite)
    if (out / "coreset.json").is_file():
        found = CoresetRun.load(out)
    else:
        found = work.run(others, out, common.progress(as_json))
    path = write_coreset_report(out)
    labels = found.tables.get("labels")
    suspected = [] if labels is None else labels[labels["suspected"] == 1].sort_values("p_label")["name"].tolist()
    result = {
        "out": str(out),
        "report": str(path),
        "points": found.record["points"],
        "selected": len(found.tables["coreset"]),
        "suspected": suspected,
        "model": str(out / found.record["saved"]) if "saved" in found.record else None,
        "agreement": found.record["agreement"],
        "warnings": found.record["warnings"],
        "last": None if "epochs" not in found.tables else found.tables["epochs"].iloc[-1].to_dict(),
    }
    for warning in [] if as_json else found.record["warnings"]:
        common.say(f"warning: {warning}")
    common.emit(as_json, result, "\n".join([*found.record["answer"], f"report: {path}"]))


class _Images:
    """A coreset of images."""

    def __init__(
        self,
        images: Images,
        data: str,
        encoder: str,
        weights: str | None,
        test: Images | None,
        crust: Crust,
        spec: RobustSpec,
        made: dict[str, Any],
        by: str,
    ) -> None:
        import torch

        from memloc.coreset import Classifier, class_numbers
        from memloc.encoders import RANDOM, load_encoder

        self.images, self.data, self.test, self.crust, self.spec, self.by = images, data, test, crust, spec, by
        self.how: dict[str, Any] = {"encoder": encoder, "weights": weights}
        self.names = list(images.names)
        channels, height, width = images.pixels.shape[1:]
        shape = (channels, height, width)
        with torch.random.fork_rng():
            torch.manual_seed(spec.seed)
            self.encoder = load_encoder(encoder, weights=weights or (RANDOM if by == "gradient" else None), shape=shape)
            if by == "gradient":
                assert images.labels is not None, "they were looked at"
                self.truth = None if made["noise"] is None else images.labels
                self.labels = class_numbers(_noisy(images.labels, made, spec.seed), len(images))
                crust.check(self.labels)
                classes = max(
                    int(self.labels.max()) + 1, 0 if test is None or test.labels is None else int(test.labels.max()) + 1
                )
                self.model = Classifier(self.encoder, classes, shape)
                self.trained = {"classes": classes, "shape": list(shape), "saved": "model.safetensors"}
            else:
                crust.check(images.ids)

    def identity(self) -> dict[str, Any]:
        return {**self.how, "fingerprint": self.images.fingerprint()}

    def cost(self) -> dict[str, Any]:
        from memloc.coreset import representation_cost, training_cost

        if self.by == "representation":
            return representation_cost(self.encoder, self.images, self.crust, device=self.spec.device)
        tested = 0 if self.test is None else len(self.test)
        return training_cost(self.model, self.images, self.crust, self.spec, labels=self.labels, tested=tested)

    def run(self, others: list[pd.DataFrame], out: Path, progress: Any) -> CoresetRun:
        from memloc.coreset import pictures, representation_run, robust_run
        from memloc.encoders import save_weights
        from memloc.results import write_table

        kept = {"data": self.data, "class_names": list(self.images.class_names), **self.how}
        if self.by == "representation":
            found = representation_run(
                self.encoder, self.images, self.crust, device=self.spec.device, progress=progress, record=kept
            )
        else:
            found, run = robust_run(
                self.model,
                self.images,
                self.crust,
                self.spec,
                points=self.images.ids.tolist(),
                names=self.images.names,
                labels=self.labels,
                truth=self.truth,
                test=self.test,
                scores=others,
                out=out / "training",
                progress=progress,
                record={**kept, **self.trained},
            )
            save_weights(out / "model.safetensors", run.model.cpu(), {"memloc_encoder": str(self.how["encoder"])})
        write_table(out / "thumbnails.parquet", pictures(self.images, found))
        found.save(out)
        _remove(out / "training")
        return found


class _Table:
    """A coreset of a table's rows."""

    def __init__(
        self,
        path: str,
        target: str | None,
        truth: str | None,
        learner: str,
        test: str | None,
        crust: Crust,
        spec: RobustSpec,
        made: dict[str, Any],
    ) -> None:
        import numpy as np
        import torch

        from memloc.coreset import check_folds, class_numbers
        from memloc.valuation import TableEncoder, is_regression, open_table

        if target is None:
            raise SpecError(
                f"{path!r} is given without a target. Expected the column to predict. Pass --target COLUMN."
            )
        frame, y = open_table(path, target)
        if is_regression(y, "auto"):
            raise DataError(
                f"column {target!r} holds numbers that are no classes. Expected classes. Turn it into some."
            )
        given = _as_text(y)
        self.class_names = sorted(set(given))
        true = None
        if truth is not None:
            if truth not in frame or made["noise"] is not None:
                raise SpecError(
                    f"{path!r} has no column {truth!r} to take the truth from."
                    f" {nearest(truth, map(str, frame.columns))} Pass --truth COLUMN."
                    if truth not in frame
                    else "--truth and --noise are both given. Expected one of them. Leave --noise out."
                )
            true, frame = _as_text(frame[truth]), frame.drop(columns=truth)
            self.class_names = sorted({*self.class_names, *true.dropna()})
        number = {name: place for place, name in enumerate(self.class_names)}
        self.encoder = TableEncoder().fit(frame)
        self.X = self.encoder.transform(frame)
        known = torch.from_numpy(given.map(number).to_numpy(dtype=np.int64, copy=True))
        self.truth = (
            known
            if made["noise"] is not None
            else (
                None
                if true is None
                else torch.from_numpy(true.map(number).fillna(-1).to_numpy(dtype=np.int64, copy=True))
            )
        )
        self.labels = class_numbers(_noisy(known, made, spec.seed), len(self.X))
        self.names = [str(row) for row in range(len(self.X))]
        crust.check(self.labels)
        check_folds(self.labels, spec.folds)
        self.test = None
        if test is not None:
            other, labels = open_table(test, target)
            wanted = _as_text(labels).map(number)
            if wanted.isna().any():
                raise DataError(
                    f"{test!r} has the class {labels[wanted.isna()].iloc[0]!r}, which {path!r} has not. Expected the"
                    " same classes. Leave such rows out."
                )
            self.test = (
                self.encoder.transform(other[frame.columns] if set(frame.columns) <= set(other.columns) else other),
                wanted.to_numpy(dtype=np.int64),
            )
        self.path, self.target, self.how, self.crust, self.spec = path, target, learner, crust, spec

    def identity(self) -> dict[str, Any]:
        import pandas as pd

        from memloc.valuation import table_fingerprint

        return {
            "target": self.target,
            "learner": self.how,
            "fingerprint": table_fingerprint(pd.DataFrame(self.X), self.labels.numpy()),
        }

    def cost(self) -> dict[str, Any]:
        import time

        began = time.monotonic()
        _learner(self.how, self.spec.seed).fit(self.X, self.labels.numpy())
        fits = (self.spec.rounds + 1) * (self.spec.folds + (self.test is not None)) + 1
        plan = self.crust.plan(self.labels, features=len(self.class_names))
        return {
            "rows": len(self.X),
            "columns": self.X.shape[1],
            "classes": len(self.class_names),
            "picks": plan["picks"],
            "fits": fits,
            "seconds": roughly(fits * (time.monotonic() - began)),
            "memory_mb": plan["memory_mb"],
        }

    def run(self, others: list[pd.DataFrame], out: Path, progress: Any) -> CoresetRun:
        import joblib

        from memloc.coreset import TableClassifier, robust_run
        from memloc.results import replacing

        found, run = robust_run(
            _learner(self.how, self.spec.seed),
            (self.X, self.labels),
            self.crust,
            self.spec,
            points=range(len(self.X)),
            names=self.names,
            labels=self.labels,
            truth=self.truth,
            test=self.test,
            scores=others,
            progress=progress,
            record={
                "saved": "model.joblib",
                "data": self.path,
                "target": self.target,
                "learner": self.how,
                "class_names": self.class_names,
            },
        )
        with replacing(out / "model.joblib") as temporary:
            joblib.dump(TableClassifier(self.encoder, run.model, self.class_names), temporary)
        found.save(out)
        return found


def _as_text(column: pd.Series) -> pd.Series:
    """Names of classes; whole numbers alike whether a blank made them floats or not, blanks missing."""
    import pandas as pd

    if pd.api.types.is_float_dtype(column) and bool((column.dropna() % 1 == 0).all()):
        column = column.astype("Int64")
    return column.astype(object).map(str, na_action="ignore").where(column.notna())


def _opened(where: str, size: int | None, max_bad: int, *, labelled: bool) -> Images:
    import torch

    from memloc.data import open_images

    images = open_images(where, size=size, max_bad=max_bad)
    if not labelled:
        return images
    if images.labels is None:
        raise DataError(
            f"{where!r} has no labels. Expected a label per image, such as folders of classes. Pass labelled images."
        )
    return images if bool((images.labels >= 0).all()) else images.take(torch.nonzero(images.labels >= 0).flatten())


def _noisy(labels: Any, made: dict[str, Any], seed: int) -> Any:
    """The labels to train on: as given, or made wrong for an experiment."""
    import torch

    from memloc.coreset import asymmetric_noise, symmetric_noise

    if made["noise"] is None:
        return labels
    make = symmetric_noise if made["noise_kind"] == "symmetric" else asymmetric_noise
    return torch.from_numpy(make(labels.numpy(), made["noise"], seed=seed))


def _learner(name: str, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if name == "forest":
        return RandomForestClassifier(200, random_state=seed)
    if name == "boosting":
        return HistGradientBoostingClassifier(random_state=seed)
    last = (
        LogisticRegression(max_iter=500)
        if name == "logistic"
        else MLPClassifier((64,), max_iter=200, random_state=seed)
    )
    return make_pipeline(StandardScaler(), last)


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)

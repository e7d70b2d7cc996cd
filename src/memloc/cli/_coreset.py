"""memloc coreset."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memloc.cli import _common as common
from memloc.cli._flags import ENCODERS, Config, Device, DryRun, Json, MaxBad, Overwrite, Size
from memloc.errors import DataError, SpecError, nearest

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
            help="Labelled images: a folder, .parquet, IDX, .npz, sample:train; or a .csv, .tsv or .parquet table with --target."
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
            help="centrality (by default, by gradient) or facility_location (by representation; picks more wrong labels than chance)."
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
    from memloc.coreset import Crust, RobustSpec

    for name, value, known in (
        ("by", by, ("gradient", "representation")),
        ("learner", learner, _LEARNERS),
        ("noise-kind", noise_kind, _NOISES),
    ):
        if value not in known:
            raise SpecError(f"there is no {name} {value!r}. {nearest(value, known)} Expected one of {', '.join(known)}. Pass --{name} {known[0]}.")  # fmt: skip
    gradient = by == "gradient"
    grouping = (group_by or "prediction") if gradient else (group_by or "none")
    crust = Crust(
        fraction, budget=budget, objective=objective or ("centrality" if gradient else "facility_location"), group_by=None if grouping == "none" else grouping,
        optimizer=optimizer, epsilon=epsilon, metric=metric, memory=memory, random_state=seed,
    )  # fmt: skip
    spec = RobustSpec(
        epochs=epochs, warmup=warmup, every=every, batch_size=batch_size, learning_rate=learning_rate, schedule=schedule, mixup=mixup,
        augmentation=augmentation, precision=precision, rounds=rounds, folds=folds, seed=seed, device=device,
    )  # fmt: skip
    is_table = target is not None or Path(data).suffix.lower() in (".csv", ".tsv", ".txt")
    if gradient and not is_table and warmup >= epochs:
        raise SpecError(f"warmup is {warmup} of {epochs} epochs. Expected fewer, so that there is a selection. Pass --warmup {max(epochs // 4, 1)}.")  # fmt: skip
    made = {"noise": noise, "noise_kind": noise_kind if noise is not None else None}
    if is_table:
        if not gradient:
            raise SpecError("--by representation is for images and a table is given. Expected --by gradient. Leave --by out.")  # fmt: skip
        work: _Table | _Images = _Table(data, target, truth, learner, test, crust, spec, made)
    else:
        if truth is not None:
            raise SpecError("--truth is for tables and images are given. Expected a table, or --noise for an experiment. Leave --truth out.")  # fmt: skip
        if not gradient and (noise is not None or test is not None or scores):
            raise SpecError("--noise, --test or --scores is given with --by representation, which looks at no labels. Expected --by gradient for them. Leave them out.")  # fmt: skip
        images = _opened(data, size, max_bad, labelled=gradient)
        tested = None if test is None else _opened(test, images.size if size is None else size, max_bad, labelled=True)
        work = _Images(images, data, encoder, weights, tested, crust, spec, made, by)
    if dry_run:
        cost = work.cost()
        common.emit(as_json, cost, "\n".join(f"{key}: {value}" for key, value in cost.items()))
        return
    from memloc.coreset import CoresetRun, scores_of
    from memloc.report import write_coreset_report
    from memloc.results import claim_folder

    others = [scores_of(folder) for folder in scores or []]
    identity = {**asdict(spec), **{f"crust_{key}": value for key, value in vars(crust).items()}, **made, "by": by, "data": data, "test": test, "scores": scores or [], **work.identity()}  # fmt: skip
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
        "out": str(out), "report": str(path), "points": found.record["points"], "selected": len(found.tables["coreset"]), "suspected": suspected,
        "model": found.record.get("saved"), "agreement": found.record["agreement"], "warnings": found.record["warnings"],
        "last": None if "epochs" not in found.tables else found.tables["epochs"].iloc[-1].to_dict(),
    }  # fmt: skip
    for warning in [] if as_json else found.record["warnings"]:
        common.say(f"warning: {warning}")
    common.emit(as_json, result, "\n".join([*found.record["answer"], f"report: {path}"]))


class _Images:
    """A coreset of images."""

    def __init__(
        self, images: Images, data: str, encoder: str, weights: str | None, test: Images | None, crust: Crust, spec: RobustSpec, made: dict[str, Any], by: str
    ) -> None:  # fmt: skip
        import torch

        from memloc.coreset import Classifier, class_numbers
        from memloc.encoders import RANDOM, load_encoder

        self.images, self.data, self.test, self.crust, self.spec, self.by = images, data, test, crust, spec, by
        self.how: dict[str, Any] = {"encoder": encoder, "weights": weights}
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

    def identity(self) -> dict[str, Any]:
        return {**self.how, "fingerprint": self.images.fingerprint()}

    def cost(self) -> dict[str, Any]:
        if self.by == "representation":
            return self.crust.plan(len(self.images), features=512) | {"forward_passes": len(self.images)}
        from memloc.coreset import training_cost

        return training_cost(self.model, self.images, self.crust, self.spec, labels=self.labels)

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
                self.model, self.images, self.crust, self.spec, points=self.images.ids.tolist(), names=self.images.names, labels=self.labels,
                truth=self.truth, test=self.test, scores=others, out=out / "training", progress=progress, record={**kept, "saved": str(out / "model.safetensors")},
            )  # fmt: skip
            save_weights(out / "model.safetensors", run.model.cpu(), {"memloc_encoder": str(self.how["encoder"])})
        write_table(out / "thumbnails.parquet", pictures(self.images, found))
        found.save(out)
        _remove(out / "training")
        return found


class _Table:
    """A coreset of a table's rows."""

    def __init__(
        self, path: str, target: str | None, truth: str | None, learner: str, test: str | None, crust: Crust, spec: RobustSpec, made: dict[str, Any]
    ) -> None:  # fmt: skip
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
        given, self.class_names = y.astype(str), sorted(set(y.astype(str)))
        true = None
        if truth is not None:
            if truth not in frame or made["noise"] is not None:
                raise SpecError(
                    f"{path!r} has no column {truth!r} to take the truth from. {nearest(truth, map(str, frame.columns))} Pass --truth COLUMN."
                    if truth not in frame
                    else "--truth and --noise are both given. Expected one of them. Leave --noise out."
                )
            true, frame = frame[truth].astype(str), frame.drop(columns=truth)
            self.class_names = sorted({*self.class_names, *true})
        number = {name: place for place, name in enumerate(self.class_names)}
        self.encoder = TableEncoder().fit(frame)
        self.X = self.encoder.transform(frame)
        known = torch.from_numpy(given.map(number).to_numpy(dtype=np.int64, copy=True))
        self.truth = (
            known
            if made["noise"] is not None
            else None
            if true is None
            else torch.from_numpy(true.map(number).to_numpy(dtype=np.int64, copy=True))
        )
        self.labels = class_numbers(_noisy(known, made, spec.seed), len(self.X))
        crust.check(self.labels)
        check_folds(self.labels, spec.folds)
        self.test = None
        if test is not None:
            other, labels = open_table(test, target)
            wanted = labels.astype(str).map(number)
            if wanted.isna().any():
                raise DataError(f"{test!r} has the class {labels[wanted.isna()].iloc[0]!r}, which {path!r} has not. Expected the same classes. Leave such rows out.")  # fmt: skip
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
        return {"rows": len(self.X), "columns": self.X.shape[1], "classes": len(self.class_names), "picks": plan["picks"], "fits": fits, "seconds": round(fits * (time.monotonic() - began), 1), "memory_mb": plan["memory_mb"]}  # fmt: skip

    def run(self, others: list[pd.DataFrame], out: Path, progress: Any) -> CoresetRun:
        import joblib

        from memloc.coreset import robust_run
        from memloc.results import replacing

        names = [str(row) for row in range(len(self.X))]
        found, run = robust_run(
            _learner(self.how, self.spec.seed), (self.X, self.labels), self.crust, self.spec, points=range(len(self.X)), names=names, labels=self.labels,
            truth=self.truth, test=self.test, scores=others, progress=progress,
            record={"saved": str(out / "model.joblib"), "data": self.path, "target": self.target, "learner": self.how, "class_names": self.class_names},
        )  # fmt: skip
        with replacing(out / "model.joblib") as temporary:
            joblib.dump(run.model, temporary)
        found.save(out)
        return found


def _opened(where: str, size: int | None, max_bad: int, *, labelled: bool) -> Images:
    import torch

    from memloc.data import open_images

    images = open_images(where, size=size, max_bad=max_bad)
    if not labelled:
        return images
    if images.labels is None:
        raise DataError(f"{where!r} has no labels. Expected a label per image, such as folders of classes. Pass labelled images.")  # fmt: skip
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

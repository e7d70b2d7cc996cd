"""What coresets do under noisy labels: python benchmarks/coresets.py [PART ...]

Kept in coresets.json, shown in docs/coresets.md.

Parts: clean training early cifar joins; all by default, the others' figures are kept, and a part that was cut goes on. Fashion-MNIST
(FASHION_MNIST, else ../shared/data/fashion-mnist) and CIFAR-10 (CIFAR10, else ../shared/data/cifar10) as files. Every figure is given
for each seed. Speed is measured by benchmarks/coreset_speed.py.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from asked import names
from stored import keep, stored
from torch import nn

from memloc.coreset import (
    Classifier,
    Crust,
    asymmetric_noise,
    symmetric_noise,
    train_robust,
)
from memloc.data import open_images
from memloc.encoders import RANDOM, load_encoder, versions
from memloc.progress import Console

HERE = Path(__file__).parent
SEEDS = (0, 1, 2)
SYMMETRIC = 0.4
PARTS = ("clean", "training", "early", "cifar", "joins")
CIFAR = {"points": 3_000, "test": 2_000, "epochs": 20}
# As REFERENCE C2 states it.
TRAINING = {"epochs": 40, "warmup": 5, "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 5e-4, "batch_size": 128, "mixup_alpha": (1.0, 0.1)}  # fmt: skip


def fashion() -> tuple[Any, Any]:
    """Training and test images of Fashion-MNIST."""
    folder = Path(os.environ.get("FASHION_MNIST", HERE.parents[1] / "shared/data/fashion-mnist"))
    return open_images(folder / "train-images-idx3-ubyte.gz"), open_images(folder / "t10k-images-idx3-ubyte.gz")


def cifar() -> tuple[Any, Any]:
    """Training and test images of CIFAR-10."""
    folder = Path(os.environ.get("CIFAR10", HERE.parents[1] / "shared/data/cifar10"))
    return open_images(folder / "train.parquet"), open_images(folder / "test.parquet")


def some(images: Any, count: int, seed: int) -> Any:
    """A seeded sample."""
    return images.take(torch.from_numpy(np.random.default_rng([seed, 3]).permutation(len(images))[:count]))


class Standardized(nn.Module):
    """Fashion-MNIST's pixels with mean 0 and deviation 1."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return (pixels - 0.286) / 0.353


def mlp(width: int, seed: int) -> nn.Module:
    """784-width-10."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), Standardized(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))


def smallest_loss(logits: torch.Tensor, labels: torch.Tensor, epoch: int) -> np.ndarray:
    """The half of all points of smallest loss."""
    loss = nn.functional.cross_entropy(logits, labels, reduction="none").numpy()
    return np.argsort(loss, kind="stable")[: len(loss) // 2]


def clean(kept: dict[str, Any]) -> None:
    """Clean fraction of half of 10 000 points under 40 % symmetric noise, gradients of an MLP after 5 epochs on all noisy images."""
    train, test = fashion()
    for seed in SEEDS:
        if str(seed) in kept:
            continue
        truth = train.labels.numpy()
        noisy = symmetric_noise(truth, SYMMETRIC, seed=seed)
        x = (train.pixels, torch.from_numpy(noisy))
        model = mlp(128, seed)
        run = train_robust(
            model,
            x,
            crust=None,
            test=(test.pixels, test.labels),
            epochs=5,
            schedule="constant",
            mixup="none",
            weight_decay=0.0,
            seed=seed,
        )
        rows = np.random.default_rng([seed, 5]).permutation(len(truth))[:10_000]
        with torch.no_grad():
            logits = model(train.pixels[rows].float() / 255)
        right, labels = noisy[rows] == truth[rows], torch.from_numpy(noisy[rows])
        found = {"base": float(right.mean()), "test_accuracy": float(run.history["test_accuracy"].iloc[-1])}
        for objective in ("facility_location", "centrality"):
            for group_by in ("label", "prediction"):
                coreset = Crust(objective=objective, group_by=group_by).select_logits(logits, labels)
                picked = coreset.indices.numpy()
                name = f"{objective} by {group_by}"
                found[name] = float(right[picked].mean())
                found[f"{name}, weighted"] = float(np.average(right[picked], weights=coreset.weights.numpy()))
                if objective == "centrality":  # what γ would do to its picks
                    gamma = np.bincount(coreset.assignment.numpy(), minlength=len(rows))[picked]
                    found[f"{name}, weighted by γ"] = float(np.average(right[picked], weights=gamma))
        found["smallest loss"] = float(right[smallest_loss(logits, labels, 0)].mean())
        kept[str(seed)] = found
        keep_line(found, seed)


def training(kept: dict[str, Any]) -> None:
    """Test accuracy at the last epoch, 5 000 images of Fashion-MNIST, 40 % symmetric noise, an MLP that can memorize them."""
    train, test = fashion()
    for seed in SEEDS:
        images = some(train, 5_000, seed)
        truth = images.labels.numpy()
        noisy = symmetric_noise(truth, SYMMETRIC, seed=seed)
        run_arms(
            kept,
            seed,
            images.pixels,
            noisy,
            truth,
            (test.pixels, test.labels),
            lambda seed=seed: mlp(256, seed),
            arms(noisy == truth),
            TRAINING,
        )


def early(kept: dict[str, Any]) -> None:
    """The same with a small convolutional net and 12 epochs, where nothing overfits yet."""
    train, test = fashion()

    def net(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(
            Standardized(), nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1568, 10)
        )  # fmt: skip

    for seed in SEEDS:
        images = some(train, 5_000, seed)
        truth = images.labels.numpy()
        noisy = symmetric_noise(truth, SYMMETRIC, seed=seed)
        few = {
            name: arm
            for name, arm in arms(noisy == truth).items()
            if name in ("plain", "centrality by label, 50 %", "centrality by prediction, 50 %")
        }
        run_arms(
            kept,
            seed,
            images.pixels,
            noisy,
            truth,
            (test.pixels, test.labels),
            lambda seed=seed: net(seed),
            few,
            {**TRAINING, "epochs": 12},
        )


def on_cifar(kept: dict[str, Any]) -> None:
    """ResNet9 on a part of CIFAR-10, symmetric 50 % and asymmetric 40 % noise, one seed."""
    train, test = cifar()
    images, tested = some(train, CIFAR["points"], 0), some(test, CIFAR["test"], 0)
    truth = images.labels.numpy()
    for kind, noisy in (
        ("symmetric 50 %", symmetric_noise(truth, 0.5)),
        ("asymmetric 40 %", asymmetric_noise(truth, 0.4)),
    ):

        def net() -> nn.Module:
            torch.manual_seed(0)
            return Classifier(load_encoder("resnet9", weights=RANDOM, shape=(3, 32, 32)), 10, (3, 32, 32)).to(memory_format=torch.channels_last)  # fmt: skip

        chosen = {
            name: arm for name, arm in arms(noisy == truth).items()
            if name in ("plain", "plain + mixup", "centrality by label, 50 %", "centrality by prediction, 50 %", "random half", "smallest-loss half", "clean only")
        }  # fmt: skip
        settings = {**TRAINING, "epochs": CIFAR["epochs"], "precision": "auto"}
        run_arms(kept.setdefault(kind, {}), 0, images.pixels, noisy, truth, (tested.pixels, tested.labels), net, chosen, settings)  # fmt: skip


def joins(kept: dict[str, Any]) -> None:
    """(a) How other scores agree with what is dropped; (b) coresets in a representation space as sets to label."""
    if "scores" not in kept:
        kept["scores"] = scores()
        keep_line(kept["scores"], 0)
    for line in labelling(kept.setdefault("labelling", {})):
        keep_line(line, 0)


def scores() -> dict[str, Any]:
    """SSLMem, UnitMem, 2D-OOB and what CRUST drops, on 800 candidates of 2 500 images with 30 % symmetric noise."""
    import pandas as pd
    from sklearn.decomposition import PCA

    from memloc import Views, audit, train_pair
    from memloc.coreset import RobustSpec, agreement, robust_run
    from memloc.valuation import TwoDOOB

    images = some(fashion()[0], 2_500, 0)
    truth = images.labels
    noisy = torch.from_numpy(symmetric_noise(truth.numpy(), 0.3))
    images = replace(images, labels=noisy)

    def net() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU()
        )  # fmt: skip

    pair = train_pair(
        images, objective="supervised", encoder=net(), policy="crop", epochs=150, candidates=800, shared=900, held_out=0, seed=0, progress=Console()
    )  # fmt: skip
    found = audit(pair.f, pair.g, images=images, splits=pair.splits, views=Views("crop"), thumbnails=False)
    points = found.points.set_index("name")
    candidate = points[points["split"] == "candidate"]
    table = pd.DataFrame(
        {
            "SSLMem, supervised": candidate["sslmem"],
            "units driven (UnitMem), supervised": candidate["n_units"].astype(float),
        }
    )
    flat = images.pixels.numpy().reshape(len(images), -1) / 255.0
    valuer = TwoDOOB(1000, random_state=0).fit(PCA(40, random_state=0).fit_transform(flat), noisy.numpy())
    value = pd.Series(-valuer.row_values_, index=list(images.names), name="2D-OOB row value, negated")
    crust = Crust(objective="centrality", group_by="prediction")
    spec = RobustSpec(**TRAINING)
    run, _ = robust_run(
        mlp(256, 0), images, crust, spec, points=images.ids.tolist(), names=images.names, labels=noisy, truth=truth, progress=Console()
    )  # fmt: skip
    labels = run.tables["labels"]
    lines = [line for each in (table, value.to_frame()) for line in agreement(labels, each)]
    own = pd.DataFrame({"CRUST, 1 - chance of the label": (1 - labels["p_label"]).to_numpy(), "CRUST, times dropped": -labels["n_kept"].to_numpy(float)}, index=labels["name"])  # fmt: skip
    return {"lines": [*lines, *agreement(labels, own)], "answer": run.record["answer"]}


def labelling(kept: dict[str, Any]) -> Iterator[Any]:
    """Accuracy of nearest neighbours and of a linear probe that know the labels of 100 and 200 images alone, chosen in three spaces."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from memloc.encoders import pick_device, represent
    from memloc.pretrain import spec_of, train_encoder

    train, test = (some(part, count, 1) for part, count in zip(fashion(), (3_000, 2_000), strict=True))
    spec = spec_of(objective="simclr", epochs=30)
    torch.manual_seed(0)
    encoder = load_encoder("resnet9", weights=RANDOM, shape=(1, 28, 28))
    with tempfile.TemporaryDirectory() as folder:
        train_encoder(
            encoder,
            train.pixels,
            train.ids,
            spec,
            seed=0,
            device=pick_device("auto"),
            checkpoint=Path(folder) / "c.pt",
            log=lambda line: None,
        )
    x, tested = represent(encoder, train.pixels).numpy(), represent(encoder, test.pixels).numpy()
    pixels = train.pixels.flatten(1).numpy() / 255.0
    for budget in (100, 200):
        for seed in SEEDS:
            # A part of the images, so that seeds differ in more than the random draw.
            part = np.random.default_rng([seed, 11]).permutation(len(train))[:2_000]
            chosen = {
                "facility location, SimCLR": Crust(budget=budget, group_by=None).select(x[part]).indices,
                "facility location, SimCLR, cosine": Crust(budget=budget, group_by=None, metric="cosine").select(x[part]).indices,
                "facility location, pixels": Crust(budget=budget, group_by=None).select(pixels[part]).indices,
                "centrality, SimCLR": Crust(budget=budget, group_by=None, objective="centrality").select(x[part]).indices,
                "random": np.random.default_rng([seed, 12]).permutation(len(part))[:budget],
            }  # fmt: skip
            for name, picks in chosen.items():
                rows, done = part[np.asarray(picks)], kept.setdefault(name, {}).setdefault(str(budget), {})
                y = train.labels.numpy()[rows]
                probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000)).fit(x[rows], y)
                near = KNeighborsClassifier(1).fit(x[rows], y)
                done[str(seed)] = {"probe": float(probe.score(tested, test.labels.numpy())), "nearest": float(near.score(tested, test.labels.numpy()))}  # fmt: skip
            yield {budget: {name: kept[name][str(budget)][str(seed)] for name in chosen}}


def arms(right: np.ndarray) -> dict[str, tuple[Any, dict[str, Any]]]:
    """What selects and how it is mixed, by name."""

    def random_half(logits: torch.Tensor, labels: torch.Tensor, epoch: int) -> np.ndarray:
        return np.random.default_rng([9, epoch]).permutation(len(right))[: len(right) // 2]

    found: dict[str, tuple[Any, dict[str, Any]]] = {
        "plain": (None, {"mixup": "none"}), "plain + mixup": (None, {}),
        "facility location with γ, 50 %": (Crust(objective="facility_location"), {}),
        "random half": (random_half, {}), "smallest-loss half": (smallest_loss, {}),
        "clean only": (lambda logits, labels, epoch: np.flatnonzero(right), {"warmup": 1}),
    }  # fmt: skip
    for share in (0.5, 0.3, 0.7):
        for group_by in ("label", "prediction"):
            found[f"centrality by {group_by}, {share:.0%}".replace("%", " %")] = (
                Crust(share, objective="centrality", group_by=group_by),
                {},
            )
    found["centrality by label, 50 %, cluster mixup"] = (Crust(objective="centrality"), {"mixup": "cluster"})
    return found


def run_arms(kept, seed, pixels, noisy, truth, test, net, chosen, settings) -> None:
    """Train each arm that is not there yet, and keep its last epoch."""
    for name, (crust, own) in chosen.items():
        done = kept.setdefault(name, {})
        if str(seed) in done:
            continue
        began = time.monotonic()
        run = train_robust(
            net(), (pixels, torch.from_numpy(noisy)), crust=crust, true_labels=truth, test=test, seed=seed, progress=Console(), **{**settings, **own}
        )  # fmt: skip
        last, suspected = run.history.iloc[-1], run.points["suspected"] == 1
        done[str(seed)] = {
            **{key: float(last[key]) for key in ("test_accuracy", "clean_fraction", "noisy_memorized", "accuracy_kept", "accuracy_dropped") if key in last},
            "best_test_accuracy": float(run.history["test_accuracy"].max()),
            "suspected": int(suspected.sum()), "suspected_wrong": float((noisy != truth)[suspected].mean()) if suspected.any() else None,
            "seconds": time.monotonic() - began,
        }  # fmt: skip
        keep_line({name: done[str(seed)]}, seed)


STORE = "coresets.json"
_running: dict[str, Any] = {}  # the part that runs, with the figures that it had and has


def keep_line(line: Any, seed: int) -> None:
    """Say what was found and keep all that is known."""
    print(seed, line, flush=True)
    keep(STORE, {**_running, "machine": versions()})
    if "cifar" in _running:
        keep(STORE, {"settings": {"cifar": CIFAR}}, depth=2)


def main(parts: list[str]) -> None:
    """Run parts, whose figures are kept as they come."""
    torch.set_num_threads(int(os.environ.get("THREADS", "1")))
    run = {"clean": clean, "training": training, "early": early, "cifar": on_cifar, "joins": joins}
    for part in parts:
        _running.clear()
        _running[part] = stored(STORE).get(part, {})
        run[part](_running[part])


if __name__ == "__main__":
    main(names(__doc__, PARTS))

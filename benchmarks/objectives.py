"""Does every objective learn, and what does privacy cost: python benchmarks/objectives.py [PART ...]

Kept in objectives.json, shown in docs/objectives.md.

Parts: learn privacy. `learn` trains one encoder per objective on LEARN images of CIFAR-10 (CIFAR10, else ../shared/data/cifar10) and
compares its k-nearest-neighbour accuracy with the untrained encoder's and raw pixels'. `privacy` trains MAE pairs on Fashion-MNIST's
sample without privacy, at ε = 20 and at ε = 8, and compares UnitMem. What is done is kept: a part that is run again goes on.
"""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from asked import names
from sklearn.neighbors import KNeighborsClassifier
from stored import keep, stored

from memloc import Views, audit, open_images, train_pair
from memloc.encoders import RANDOM, draw_as_mae, features_of, load_encoder, mae_decoder, pick_device, versions
from memloc.pretrain import spec_of, train_encoder

HERE = Path(__file__).parent
LEARN, TEST, EPOCHS = 2_000, 2_000, 50
OBJECTIVES = ("simclr", "simsiam", "vicreg", "dino", "supervised")  # at the same length; MAE has its own, with a ViT
NEIGHBOURS = 20
PRIVATE = {"epochs": 100, "batch_size": 32, "candidates": 50, "shared": 50, "learning_rate": 1e-3}
VIT32 = "hf:vit,hidden_size=96,num_hidden_layers=4,num_attention_heads=3,intermediate_size=384,image_size=32,patch_size=4,hidden_dropout_prob=0.0"
MORE_STEPS = {"epochs": 100, "batch_size": 64}  # 3 200 steps: objectives that did not learn in 400
LONGER = {
    "mae": {**MORE_STEPS, "encoder": VIT32},
    "simsiam": {"epochs": 300, "batch_size": 64, "optimizer": "sgd", "learning_rate": 0.03, "weight_decay": 5e-4},
    "dino": MORE_STEPS,
}
LOOKS = 10  # at the accuracy, while an encoder trains
SMALL_VIT = "hf:vit,hidden_size=96,num_hidden_layers=4,num_attention_heads=3,intermediate_size=384,image_size=28,patch_size=4,hidden_dropout_prob=0.0"
SEEDS = (0, 1, 2)
UNTRAINED = "untrained"
STORE = "objectives.json"


def cifar():
    """Training and test images, seeded."""
    folder = Path(os.environ.get("CIFAR10", HERE.parents[1] / "shared/data/cifar10"))
    train, test = open_images(folder / "train.parquet"), open_images(folder / "test.parquet")
    rows = [
        torch.from_numpy(np.random.default_rng(0).permutation(len(part))[:count])
        for part, count in ((train, LEARN), (test, TEST))
    ]
    return train.take(rows[0]), test.take(rows[1])


@torch.no_grad()
def features(encoder, images) -> np.ndarray:
    """Unit-length features of images as they are."""
    found = []
    for start in range(0, len(images), 500):
        batch = encoder.prepare(images.pixels[start : start + 500].float() / 255)
        found.append(torch.nn.functional.normalize(features_of(encoder.module.eval()(batch)).float(), dim=1))
    return torch.cat(found).numpy()


def accuracy(train_x, train, test_x, test) -> float:
    """Share of test images whose nearest neighbours vote for their label."""
    known = KNeighborsClassifier(NEIGHBOURS, metric="cosine").fit(train_x, train.labels.numpy())
    return float((known.predict(test_x) == test.labels.numpy()).mean())


def learn(known: dict | None = None) -> Iterator[dict]:
    """Rows of all objectives so far, after each of them; rows of the same settings are kept."""
    train, test = cifar()
    settings = {"images": LEARN, "test": TEST, "epochs": EPOCHS, "neighbours": NEIGHBOURS}
    kept = known["rows"] if known and all(known.get(key) == value for key, value in settings.items()) else {}
    flat = [each.pixels.flatten(1).numpy() / 255 for each in (train, test)]
    mean = flat[0].mean(axis=0)
    rows = {**kept, "raw pixels": {"after": accuracy(flat[0] - mean, train, flat[1] - mean, test)}}
    print(rows, flush=True)
    values = train.pixels.transpose(0, 1).flatten(1).double() / 255
    statistics = {"mean": values.mean(dim=1).tolist(), "std": values.std(dim=1).tolist()}
    wanted = [(objective, objective, {"epochs": EPOCHS, "batch_size": 256}) for objective in OBJECTIVES]
    wanted += [(f"{objective}, longer", objective, more) for objective, more in LONGER.items()]
    for name, objective, more in wanted:
        if name in rows:
            continue
        spec = spec_of(objective=objective, **more)
        torch.manual_seed(0)
        encoder = load_encoder(spec.encoder, weights=RANDOM, shape=(3, 32, 32), **statistics)
        if objective == "mae":  # what is untrained has MAE's own random weights and positions
            draw_as_mae(encoder.module, mae_decoder(encoder.module))
        before = accuracy(features(encoder, train), train, features(encoder, test), test)
        lines, curve, began = [], [], time.monotonic()

        def look(line, name=name, spec=spec, encoder=encoder, lines=lines, curve=curve) -> None:
            lines.append(line)
            if line["epoch"] % max(spec.epochs // LOOKS, 1) == 0:
                now = accuracy(features(encoder, train), train, features(encoder, test), test)
                encoder.module.train()
                curve.append({"epoch": line["epoch"], "loss": line["loss"], "accuracy": now})
                print(name, curve[-1], flush=True)

        with tempfile.TemporaryDirectory() as folder:
            train_encoder(
                encoder, train.pixels, train.ids, spec, seed=0, device=pick_device("auto"), checkpoint=Path(folder) / "c.pt", log=look,
                labels=train.labels if objective == "supervised" else None, classes=10,
            )  # fmt: skip
        after = accuracy(features(encoder, train), train, features(encoder, test), test)
        rows[name] = {
            "encoder": "ViT, 4 blocks of width 96" if spec.encoder == VIT32 else spec.encoder, "epochs": spec.epochs, "batch": spec.batch_size, "before": before, "after": after, "seconds": time.monotonic() - began, "first_loss": lines[0]["loss"], "last_loss": lines[-1]["loss"], "curve": curve,
        }  # fmt: skip
        print(name, rows[name], flush=True)
        yield {**settings, "rows": rows}


def fresh(encoder):
    """The encoder with random weights."""
    new = load_encoder(SMALL_VIT, weights=RANDOM, shape=(1, 28, 28))
    draw_as_mae(new.module, mae_decoder(new.module))
    return replace(encoder, module=new.module)


def privacy(known: list[dict] | None = None) -> Iterator[list[dict]]:
    """Rows of all runs so far, after each of them."""
    rows = list(known or [])
    for seed in SEEDS:
        everything = open_images("sample:train")
        images = everything.take(torch.from_numpy(np.random.default_rng(seed).permutation(len(everything))[:300]))
        external = open_images("sample:test").take(torch.arange(250))
        from memloc.data import concatenate

        both = concatenate(images, external)
        for epsilon in (UNTRAINED, None, 20.0, 8.0):
            if any(row["seed"] == seed and row["epsilon"] == epsilon for row in rows):
                continue
            epochs = {"epochs": 1} if epsilon == UNTRAINED else {}  # its weights are drawn anew below
            pair = train_pair(
                images, objective="mae", encoder=SMALL_VIT, seed=seed, dp_epsilon=None if epsilon == UNTRAINED else epsilon, held_out=0, workers=2,
                **{**PRIVATE, **epochs},
            )  # fmt: skip
            if epsilon == UNTRAINED:
                torch.manual_seed(seed)
                pair = replace(pair, **{side: fresh(getattr(pair, side)) for side in ("f", "g")})
            splits = pair.splits + ["external"] * len(external)
            found = audit(pair.f, pair.g, images=both, splits=splits, views=Views(n=10, sampling="independent"))
            blocks = found.layers[
                found.layers["kind"].isin(["attention", "fully-connected", "residual", "patch embedding"])
            ]
            rows.append(
                {
                    "seed": seed, "epsilon": epsilon, "spent": (pair.run.record["privacy"] or {}).get("epsilon"),
                    "unitmem": float(blocks["unitmem_mean"].mean()), "unitmem_external": float(blocks["unitmem_external_mean"].mean()),
                    "unitmem_equal": float(blocks["unitmem_equal_mean"].mean()),
                    "fully_connected": float(blocks[blocks["kind"] == "fully-connected"]["unitmem_mean"].mean()),
                    "calibrated": float(found.layers["layermem_calibrated"].iloc[-1]), "auroc": float(found.layers["auroc"].iloc[-1]),
                }
            )  # fmt: skip
            print(rows[-1], flush=True)
            yield rows


def main() -> None:
    chosen = names(__doc__, ("learn", "privacy"))
    warnings.simplefilter("ignore")
    for name in chosen:
        for part in {"learn": learn, "privacy": privacy}[name](stored(STORE).get(name)):
            keep(STORE, {name: part, "versions": versions()})
            if name == "privacy":
                keep(STORE, {"settings": {"privacy": PRIVATE}}, depth=2)


if __name__ == "__main__":
    main()

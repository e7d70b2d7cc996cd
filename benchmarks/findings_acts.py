"""Probe and change the encoders of findings_runs.py: python benchmarks/findings_acts.py [NAME ...]; what is done is kept.

Every line that is printed is a command that a user could type, in the folder of the data; its record lies in acts/NAME.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator

from asked import names
from findings_runs import FOLDER, SEEDS

PROBE = ["--train", "cifar-probe-train.npz", "--test", "cifar-probe-test.npz"]
OTHER = ["--train", "fashion-probe-train.npz", "--test", "fashion-probe-test.npz"]
RANDOM = (0, 1)  # draws of what is chosen at random, per seed
REPLACED, FRACTIONS = 3, (0.1, 0.2)
TUNING = ["--epochs", "6"]
REMOVED = 100
LOWERED = ("base-s0", "weak-s0", "strong-s0", "decay", "penalty")  # what an ensemble's setting costs in accuracy


def pair_of(seed: int) -> tuple[str, str]:
    """f of a pair, and the audit of the pair."""
    return f"../pair-s{seed}/encoders/f.safetensors", f"../pair-s{seed}-audit"


def acts() -> Iterator[tuple[str, list[str]]]:
    """Name and arguments of everything that is done, the most wanted first."""
    for seed in SEEDS:
        f, audit = pair_of(seed)
        for fraction in FRACTIONS:
            for order in ("top", "low"):
                yield (
                    f"prune-{fraction}-{order}-s{seed}",
                    ["prune", f, "--audit", audit, "--fraction", str(fraction), "--order", order, *PROBE],
                )
            for draw in RANDOM[: 2 if fraction == FRACTIONS[0] else 1]:
                yield (
                    f"prune-{fraction}-random{draw}-s{seed}",
                    [
                        "prune",
                        f,
                        "--audit",
                        audit,
                        "--fraction",
                        str(fraction),
                        "--order",
                        "random",
                        "--seed",
                        str(draw),
                        *PROBE,
                    ],
                )
        donor = ["--from", "../pair-fashion/encoders/f.safetensors"]
        for by, order in (("delta", "highest"), ("delta", "lowest"), ("layermem", "highest")):
            yield (
                f"replace-{by}-{order}-s{seed}",
                [
                    "replace",
                    f,
                    *donor,
                    "--audit",
                    audit,
                    "--by",
                    by,
                    "--order",
                    order,
                    "--count",
                    str(REPLACED),
                    *PROBE,
                ],
            )
        for draw in RANDOM:
            yield (
                f"replace-random{draw}-s{seed}",
                [
                    "replace",
                    f,
                    *donor,
                    "--audit",
                    audit,
                    "--by",
                    "random",
                    "--count",
                    str(REPLACED),
                    "--seed",
                    str(draw),
                    *PROBE,
                ],
            )
        yield f"tune-head-s{seed}", ["finetune", f, "--head-only", *OTHER, *TUNING]
        for by, order in (("delta", "highest"), ("delta", "lowest")):
            yield (
                f"tune-{by}-{order}-s{seed}",
                ["finetune", f, "--audit", audit, "--by", by, "--order", order, *OTHER, *TUNING],
            )
        for layer in ("conv4_2", "conv1"):
            yield f"tune-{layer}-s{seed}", ["finetune", f, "--layers", layer, *OTHER, *TUNING]
    f, audit = pair_of(0)
    for order in ("top", "low", "random"):
        yield f"network-{order}-s0", ["prune", f, "--audit", audit, "--order", order, "--per", "network", *PROBE]
    for goal in ("unitmem", "contrast"):
        for layer, unit in (("conv2_1", 5), ("conv4_0", 5), ("conv4_2", 5)):
            yield (
                f"insert-{goal}-{layer}",
                [
                    "insert",
                    f,
                    "--data",
                    "cifar-2000-s0.npz",
                    "--point",
                    "7",
                    "--layer",
                    layer,
                    "--unit",
                    str(unit),
                    "--goal",
                    goal,
                ],
            )
    for name in ("pair-s0", "pair-supervised"):
        for target, images in (("cifar", PROBE), ("fashion", OTHER)):
            yield f"transfer-{name}-{target}", ["probe", f"../{name}/encoders/f.safetensors", *images]
    for name in LOWERED:
        yield f"knn-{name}", ["probe", f"../{name}/encoders/e00.safetensors", *PROBE, "--kind", "knn"]
    yield "dejavu", ["dejavu", "../pair-s0", "--audit", "../pair-s0-audit", "--public", "cifar-probe-train.npz"]
    yield "compare-seeds", ["compare", "../base-s0-audit", "../reseed-audit"]
    yield "compare-objectives", ["compare", "../base-s0-audit", "../vicreg-audit"]
    for order in ("most", "least", "random"):
        yield (
            f"remove-{order}",
            ["remove", "../pair-s0", "--audit", "../pair-s0-audit", "--count", str(REMOVED), "--order", order, *PROBE],
        )


def result(name: str) -> dict | None:
    """What an act found, if it was done."""
    path = FOLDER / f"acts/{name}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def main(chosen: list[str]) -> None:
    (FOLDER / "acts").mkdir(parents=True, exist_ok=True)
    for name, arguments in acts():
        needed = [FOLDER / "data" / each for each in arguments if each.startswith("../")]
        if name not in chosen or result(name) is not None or not all(path.exists() for path in needed):
            continue
        writes = arguments[0] in ("prune", "replace", "finetune", "insert", "remove")
        wanted = [*arguments, *(["--out", f"../acts/{name}"] if writes else [])]
        print("memloc", shlex.join(wanted), flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "memloc", *wanted, "--json"], cwd=FOLDER / "data", capture_output=True, text=True
        )
        if done.returncode:
            print(done.stderr[-600:], flush=True)
            continue
        found = {**json.loads(done.stdout), "command": shlex.join(["memloc", *wanted])}
        temporary = FOLDER / f"acts/.{name}.json"
        temporary.write_text(json.dumps(found))
        temporary.replace(FOLDER / f"acts/{name}.json")


if __name__ == "__main__":
    main(names(__doc__, [name for name, _ in acts()]))

"""The papers' own scale, by memloc commands: python benchmarks/paper_scale.py [--out DIR] [--scale paper|tiny] [--seconds N] [STAGE ...]

45 000 CIFAR-10 images an encoder for up to 600 epochs, which one GPU of the H100 class does within minutes; --scale tiny runs every stage on
a CPU, on a few images for one epoch, to show that it would. STAGE is a letter (a to e), the name of a stage, or none for all. With
--seconds N it takes the stages in their order as long as their expected time fits, and says what is left; what is there is kept, so that the
same command goes on. DIR (runs/paper-scale, or PAPER_SCALE) holds tables, records, encoders and heads, and no image.

Data: CIFAR-10 as train.parquet and test.parquet, in CIFAR10, else ../shared/data/cifar10. Where neither is there, --scale tiny takes the
embedded sample.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from asked import parser

HERE = Path(__file__).parent
FOLDER = Path(os.environ.get("PAPER_SCALE", HERE.parent / "runs/paper-scale"))
DATA = Path(os.environ.get("CIFAR10", HERE.parents[1] / "shared/data/cifar10"))
SEEDS = (0, 1, 2)
PROTOCOLS = ("memloc", "paper", "published-code")
REPLACED, REMOVED = 3, 1_000
SIDE = 32 if (DATA / "train.parquet").is_file() else 28  # pixels, of CIFAR-10 or of the embedded sample
VIT = f"hf:vit,hidden_size=192,num_hidden_layers=12,num_attention_heads=3,intermediate_size=768,image_size={SIDE},patch_size=4,hidden_dropout_prob=0.0"


@dataclass(frozen=True)
class Scale:
    """How large: images of each kind, epochs as a share of the papers', batch, views."""

    shared: int
    swapped: int
    external: int | None  # of the test file; None for all
    epochs: float
    batch: int
    views: int
    labelled: int | None  # for probes; None for all
    more: tuple[str, ...] = ()  # settings of every command
    apart: tuple[str, ...] = ()  # of every training
    classes: int | None = None  # that images come from; None for all

    @property
    def split(self) -> list[str]:
        """Arguments of a pair's sizes."""
        sizes = {"shared": self.shared, "candidates": self.swapped, "independents": self.swapped}
        return [part for name, size in sizes.items() for part in (f"--{name}", str(size))]


SCALES = {
    "paper": Scale(40_000, 5_000, None, 1.0, 1024, 16, None),
    "tiny": Scale(24, 8, 8, 0.0, 16, 2, 40, ("--device", "cpu"), ("--workers", "1"), classes=2),
}
# forward passes a second that the expected times stand on: ../shared/trials/simclr_step_on_gpu.py on one H200, two encoders at once (training),
# and a third of it (audits, which read every row); probes and the like are taken for a minute
TRAINED, AUDITED, ACT = 500_000, 170_000, 60


@dataclass(frozen=True)
class Stage:
    """A command with what it stands on and feeds.

    Attributes:
        command: arguments of memloc but `--out`. feeds: what of the papers.
        seconds: expected on a GPU of the H100 class. needs: stages before it.
    """

    name: str
    command: tuple[str, ...]
    feeds: str
    seconds: float
    needs: tuple[str, ...] = ()


def _train(
    scale: Scale, name: str, feeds: str, *more: str, epochs: int = 600, passes: int = 2, held_out: bool = False
) -> Stage:
    epochs = max(round(epochs * scale.epochs), 1)
    seen = (scale.shared + scale.swapped) * 2
    sizes = (
        ["--held-out", "0.1", "--candidates", str(scale.swapped), "--independents", str(scale.swapped)]
        if held_out
        else [*scale.split, "--held-out", "0", "--external", "external.npz"]
    )
    command = ("train", "images.npz", *sizes, "--epochs", str(epochs), "--batch-size", str(scale.batch), *more)
    return Stage(name, command, feeds, 40 + seen * passes * epochs / TRAINED)  # 40: the compiler


def _audit(scale: Scale, run: str, feeds: str, protocol: str = "memloc") -> Stage:
    points = scale.shared + 2 * scale.swapped + (scale.external or 10_000)
    how = ("--protocol", protocol) if protocol != "memloc" else ("--views", str(scale.views))
    name = f"{run}-audit" + ("" if protocol == "memloc" else f"-{protocol}")
    command = ("audit", run, "--no-thumbnails", *how)
    return Stage(name, command, feeds, 20 + points * scale.views * 2 / AUDITED, (run,))


def stages(scale: Scale) -> Iterator[Stage]:
    """Every stage, the most wanted first."""
    yield from _simclr(scale)
    yield from _acts(scale)
    yield from _settings(scale)
    yield from _transformers(scale)
    yield from _ensemble(scale)


def _simclr(scale: Scale) -> Iterator[Stage]:
    tables = "LocMem Tables 1, 3, 18, 28, 34, Fig. 1"
    for seed in SEEDS:
        for name, how in ((f"a-pair-s{seed}", "--paired"), (f"a-published-s{seed}", "--unpaired")):
            recipe = ("--recipe", "published") if how == "--unpaired" else ()
            yield _train(scale, name, tables, *recipe, how, "--seed", str(seed))
            for protocol in PROTOCOLS:
                yield _audit(scale, name, tables, protocol)
    planted = ("--plant", str(min(100, scale.swapped // 2)), "--repeats", "8")
    yield _train(scale, "a-planted", "planted repeats are named", *planted)
    yield _audit(scale, "a-planted", "planted repeats are named")
    yield _train(scale, "a-held-out", "points of the same file as the null", held_out=True)
    yield _audit(scale, "a-held-out", "points of the same file as the null")


def _acts(scale: Scale) -> Iterator[Stage]:
    probe = ("--train", "labelled.npz", "--test", "external.npz")
    run, audit = "a-pair-s0", "a-pair-s0-audit"
    f, needs = f"{run}/encoders/f.safetensors", (run, audit)
    yield Stage("b-probe", ("probe", f, *probe), "accuracy of the probes", ACT, (run,))
    for order in ("top", "low", "random"):
        yield Stage(
            f"b-prune-{order}", ("prune", f, "--audit", audit, "--order", order, *probe), "LocMem Table 6", ACT, needs
        )
    donor = ("--from", "a-published-s0/encoders/f.safetensors")
    for by, order in (("delta", "highest"), ("delta", "lowest"), ("layermem", "highest"), ("random", "highest")):
        how = ("--audit", audit, "--by", by, "--order", order, "--count", str(REPLACED), *probe)
        yield Stage(
            f"b-replace-{by}-{order}", ("replace", f, *donor, *how), "LocMem Table 5", ACT, (*needs, "a-published-s0")
        )
    tuned = ("--epochs", str(max(round(20 * scale.epochs), 1)), *probe)
    yield Stage("b-tune-head", ("finetune", f, "--head-only", *tuned), "LocMem Table 13", ACT, (run,))
    for order in ("highest", "lowest"):
        yield Stage(
            f"b-tune-{order}",
            ("finetune", f, "--audit", audit, "--order", order, *tuned),
            "LocMem Table 13",
            2 * ACT,
            needs,
        )
    train = next(_simclr(scale)).seconds
    for order in ("most", "least", "random"):
        count = str(min(REMOVED, scale.swapped // 2))
        yield Stage(
            f"b-remove-{order}",
            ("remove", run, "--audit", audit, "--count", count, "--order", order, *probe),
            "LocMem Table 21",
            train,
            needs,
        )


def _settings(scale: Scale) -> Iterator[Stage]:
    others: list[tuple[str, tuple[str, ...], int, int]] = [
        ("vicreg", ("--objective", "vicreg"), 600, 2),
        ("simsiam", ("--objective", "simsiam", "--optimizer", "sgd", "--learning-rate", "0.025"), 200, 2),
        ("supervised", ("--objective", "supervised"), 600, 1),
        ("weak", ("--policy", "weak"), 600, 2),
        ("strong", ("--policy", "strong"), 600, 2),
        ("decay", ("--weight-decay", "0.1"), 600, 2),
        ("penalty", ("--alignment-penalty", "1"), 600, 2),
        ("epochs-100", (), 100, 2),
        ("epochs-200", (), 200, 2),
        ("epochs-400", (), 400, 2),
    ]
    for name, settings, epochs, passes in others:
        yield _train(
            scale, f"c-{name}", "objectives, views, regularization, length", *settings, epochs=epochs, passes=passes
        )
        yield _audit(scale, f"c-{name}", "objectives, views, regularization, length")


def _transformers(scale: Scale) -> Iterator[Stage]:
    private = ("--objective", "mae", "--dp-epsilon", "8")
    for name, how, epochs in (
        ("mae", ("--objective", "mae"), 600),
        ("dino", ("--objective", "dino"), 300),
        ("mae-private", private, 20),
    ):
        encoder = ("--encoder", VIT if scale.epochs else VIT.replace("num_hidden_layers=12", "num_hidden_layers=2"))
        yield _train(
            scale, f"d-{name}", "LocMem Table 10: fully-connected against attention", *how, *encoder, epochs=epochs
        )
        yield _audit(scale, f"d-{name}", "LocMem Table 10: fully-connected against attention")


def _ensemble(scale: Scale) -> Iterator[Stage]:
    epochs = max(round(600 * scale.epochs), 1)
    count = scale.shared + 2 * scale.swapped
    settings = (
        "--held-out",
        "0",
        "--external",
        "external.npz",
        "--epochs",
        str(epochs),
        "--batch-size",
        str(scale.batch),
    )
    feeds = "points by name, reliability over runs"
    yield Stage(
        "e-ensemble", ("train", "images.npz", "--ensemble", "8", *settings), feeds, 40 + count * 8 * epochs / TRAINED
    )
    yield Stage(
        "e-ensemble-audit",
        ("audit", "e-ensemble", "--no-thumbnails", "--views", str(scale.views)),
        feeds,
        20 + count * 8 * scale.views / AUDITED,
        ("e-ensemble",),
    )


def make_data(scale: Scale, folder: Path) -> None:
    """The images as npz files, decoded once; SystemExit names a file that is missing."""
    from memloc import open_images

    sources = {part: DATA / f"{part}.parquet" for part in ("train", "test")}
    lacking = [path for path in sources.values() if not path.is_file()]
    if lacking and scale.epochs:
        sys.exit(
            f"there is no {str(lacking[0])!r}. Expected CIFAR-10 with columns img and label. Set CIFAR10 to its folder."
        )
    if lacking:
        print(f"there is no {str(lacking[0])!r}: the embedded sample stands in its place", flush=True)

    names = {
        "images": ("train", scale.shared + 2 * scale.swapped),
        "external": ("test", scale.external),
        "labelled": ("train", scale.labelled),
    }
    missing = {name: how for name, how in names.items() if not (folder / f"{name}.npz").is_file()}
    wanted = sorted({part for part, _ in missing.values()})
    opened = {part: open_images(f"sample:{part}" if lacking else sources[part]) for part in wanted}
    for name, (part, count) in missing.items():
        images = opened[part]
        rows = np.random.default_rng(0).permutation(len(images))
        rows = rows[images.labels[rows].numpy() < (scale.classes or len(images))][: count or len(images)]
        temporary = folder / f".{name}.npz"
        np.savez(temporary, images=images.pixels[rows].permute(0, 2, 3, 1).numpy(), labels=images.labels[rows].numpy())
        temporary.replace(folder / f"{name}.npz")


def device() -> str:
    """The card, or the processor."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} processor cores"


def run(stage: Stage, scale: Scale, out: Path, data: Path) -> dict[str, Any]:
    """One memloc command, in this process, with what it said and how long it took; it runs in the folder of results."""
    writes = () if stage.command[0] == "probe" else ("--out", stage.name)
    paths = {f"{name}.npz": str(data / f"{name}.npz") for name in ("images", "external", "labelled")}
    more = (*scale.more, *(scale.apart if stage.command[0] == "train" else ()))
    arguments = [paths.get(part, part) for part in (*stage.command, *writes, *more)]
    print("memloc", shlex.join(arguments), flush=True)
    said, began, code = io.StringIO(), time.monotonic(), 0
    with (
        mock.patch.object(sys, "argv", ["memloc", *arguments, "--json"]),
        contextlib.chdir(out),
        contextlib.redirect_stdout(said),
    ):
        try:
            runpy.run_module("memloc", run_name="__main__", alter_sys=False)
        except SystemExit as end:
            code = int(end.code or 0)
    found = {
        "command": shlex.join(["memloc", *stage.command, *writes]),
        "seconds": time.monotonic() - began,
        "code": code,
        "device": device(),
    }
    with contextlib.suppress(ValueError):
        found["result"] = json.loads(said.getvalue())
    return found


def wanted(known: list[Stage], asked: list[str]) -> list[Stage]:
    """The stages asked for by name or letter, and what they stand on."""
    chosen = {stage.name for stage in known if not asked or stage.name in asked or stage.name[0] in asked}
    for stage in reversed(known):
        if stage.name in chosen:
            chosen |= set(stage.needs)
    return [stage for stage in known if stage.name in chosen]


def go(known: list[Stage], scale: Scale, out: Path, data: Path, seconds: float) -> tuple[list[Stage], list[str]]:
    """Run what is not there and fits; returns what is left, and what failed."""
    began, left, failed, pace = time.monotonic(), list[Stage](), list[str](), [1.0]
    for stage in known:
        record = out / f"stages/{stage.name}.json"
        if record.is_file():
            continue
        expected = stage.seconds * float(np.median(pace))
        if any(need in failed or need in {each.name for each in left} for need in stage.needs) or (
            scale.epochs and time.monotonic() - began + expected > seconds
        ):
            left.append(stage)
            continue
        found = run(stage, scale, out, data)
        pace.append(found["seconds"] / stage.seconds)
        print(f"  {found['seconds']:.0f} s (expected {expected:.0f} s), exit code {found['code']}", flush=True)
        if found["code"]:
            failed.append(stage.name)
            continue
        record.with_suffix(".part").write_text(json.dumps(found))
        record.with_suffix(".part").replace(record)
    return left, failed


def collected(known: list[Stage], out: Path) -> dict[str, Any]:
    """The figures of each stage: of audits each layer's, of the others what they printed."""
    import pandas as pd

    found: dict[str, Any] = {}
    for stage in known:
        record = out / f"stages/{stage.name}.json"
        if not record.is_file():
            continue
        done = json.loads(record.read_text())
        found[stage.name] = {key: done[key] for key in ("command", "seconds", "device")} | {"feeds": stage.feeds}
        if stage.command[0] == "audit":
            layers = pd.read_parquet(out / stage.name / "layers.parquet")
            kept = [
                name
                for name in (
                    "layer",
                    "layermem",
                    "layermem_se",
                    "layermem_calibrated",
                    "calibrated_low",
                    "calibrated_high",
                    "delta_calibrated",
                )
                if name in layers
            ]
            found[stage.name]["layers"] = json.loads(layers[kept].to_json(orient="records"))
        elif stage.command[0] != "train":
            found[stage.name]["result"] = done.get("result")
    return found


def main() -> int:
    known = parser(__doc__)
    known.add_argument("--out", type=Path, default=FOLDER)
    known.add_argument("--scale", choices=SCALES, default="paper")
    known.add_argument(
        "--seconds", type=float, default=float("inf"), help="for all stages together; of the paper's scale alone"
    )
    known.add_argument("--list", action="store_true", help="print the stages and do nothing")
    known.add_argument("stages", nargs="*", metavar="STAGE")
    given = known.parse_args()
    scale = SCALES[given.scale]
    every = list(stages(scale))
    strange = [name for name in given.stages if name not in {each.name for each in every} | set("abcde")]
    if strange:
        known.error(
            f"there is no stage {strange[0]}. Expected a letter of a to e, or one of {', '.join(each.name for each in every)}"
        )
    chosen = wanted(every, given.stages)
    if given.list:
        for stage in chosen:
            print(f"{stage.name}  {stage.seconds:.0f} s  memloc {shlex.join(stage.command)}")
        return 0
    out = given.out.resolve() / given.scale
    data = given.out.resolve() / f"{given.scale}-data"
    for folder in (out / "stages", data):
        folder.mkdir(parents=True, exist_ok=True)
    make_data(scale, data)
    left, failed = go(chosen, scale, out, data, given.seconds)
    (out / "paper_scale.json").write_text(json.dumps(collected(every, out), indent=1))
    print(f"{out / 'paper_scale.json'} holds what is there. Copy it to benchmarks/ and type: make docs")
    for stage in left:
        print(f"left: {stage.name}, about {stage.seconds:.0f} s")
    for name in failed:
        print(f"failed: {name}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

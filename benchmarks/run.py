"""All benchmarks (make bench): each prints ratios measured in one run, with machine and versions, as JSON.

Usage: python benchmarks/run.py [NAME ...]    names: overhead published views memory training vit lightly photographs

Every benchmark runs in a process of its own. `overhead`, `published`, `views`, `memory` and `vit` use one core.
What was measured joins results.json; the others' figures stay.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from asked import names

NAMES = ("overhead", "published", "views", "memory", "training", "vit", "lightly", "photographs")
RESULTS = "results.json"


def images(count: int, side: int = 32, channels: int = 3):
    import torch

    return torch.randint(
        0, 256, (count, channels, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def pair():
    import torch

    from memloc.encoders import ResNet9

    torch.manual_seed(0)
    return ResNet9().eval(), ResNet9().eval()


def timed(work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def overhead() -> dict:
    """(a) Scoring pass of an audit, all taps with both metrics, against the bare augmented forward passes of f and g.

    The scoring pass is what grows with the points; tables, intervals and the report come once, after it. It folds batch-norms into
    convolutions while it reads; `ratio_same_net` is against bare passes that do so, too.
    """
    import torch

    from memloc import Views
    from memloc.encoders import folded
    from memloc.engine import audit_shard, prepare

    f, g = pair()
    points = 256
    job = prepare(f, g, images=images(points), splits=["candidate"] * 128 + ["external"] * 128, views=Views(n=16))
    size = job.options.batch_size

    def bare() -> None:
        with torch.inference_mode():
            for start in range(0, points, size):
                rows = slice(start, start + size)
                drawn = job.views.draw(job.images.pixels[rows], job.images.ids[rows]).flatten(0, 1)
                inputs = job.encoders[0].prepare(drawn)
                f(inputs)
                g(inputs)

    def whole() -> None:
        audit_shard(job, slice(0, points))

    def bare_folded() -> None:
        example = job.encoders[0].prepare(job.views.draw(job.images.pixels[:1], job.images.ids[:1])[0])
        with folded(f, job.layers, example), folded(g, job.layers, example):
            bare()

    bare(), whole()
    ratios, same_net, seconds = [], [], []
    for _ in range(5):
        base, same, ours = timed(bare), timed(bare_folded), timed(whole)
        ratios.append(ours / base)
        same_net.append(ours / same)
        seconds.append(ours)
    return {
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "ratio_same_net": statistics.median(same_net),
        "bound": 1.15,
        "points_per_second": points / statistics.median(seconds),
        "layers": len(job.layers),
        "batch_points": size,
        "views": 16,
    }


def vit() -> dict:
    """Ratio (a) on a ViT-Tiny with 50 taps: the scoring pass against the bare augmented forward passes of f and g."""
    import torch

    from memloc import Views
    from memloc.encoders import build_vit
    from memloc.engine import audit_shard, prepare

    torch.manual_seed(0)
    f, g = build_vit("vit-tiny").eval(), build_vit("vit-tiny").eval()
    points = 48
    job = prepare(f, g, images=images(points), splits=["candidate"] * 24 + ["external"] * 24, views=Views(n=16))
    size = job.options.batch_size

    def bare() -> None:
        with torch.inference_mode():
            for start in range(0, points, size):
                rows = slice(start, start + size)
                inputs = job.encoders[0].prepare(
                    job.views.draw(job.images.pixels[rows], job.images.ids[rows]).flatten(0, 1)
                )
                f(inputs)
                g(inputs)

    bare()
    base, ours = [], []
    for _ in range(5):
        base.append(timed(bare))
        ours.append(timed(lambda: audit_shard(job, slice(0, points))))
    ratios = [one / two for one, two in zip(ours, base, strict=True)]
    return {
        "ratio": statistics.median(ratios), "ratios": ratios, "ratio_of_fastest": min(ours) / min(base), "bound": 1.2, "layers": len(job.layers),
        "points_per_second": points / min(ours),
    }  # fmt: skip


def lightly() -> dict:
    """Training images per second against lightly's own loop: its transform, head and loss with a data loader, the same ResNet9, batch and
    precision, on two cores: theirs one encoder with two threads and two workers that load, ours `memloc train` (f and g, a core each)."""
    import torch

    torch.set_num_threads(2)
    pictures, batch = images(2048), 256
    theirs = [lightly_rate(pictures, batch) for _ in range(2)]
    ours = [pair_rate(pictures, batch) for _ in range(2)]
    return {"ratio": max(ours) / max(theirs), "bound": 1.5, "ours": ours, "theirs": theirs, "batch": batch}


def lightly_rate(pictures, batch: int) -> float:
    """Images per second of lightly's loop (its SimCLR example), from the second of two epochs."""
    import torch
    from torch.utils.data import DataLoader

    per_image_transform()  # makes torchvision importable
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform

    from memloc.encoders import has_bfloat16, load_encoder

    transform = SimCLRTransform(input_size=32, cj_strength=1.0, gaussian_blur=0.0)

    class Pictures(torch.utils.data.Dataset):
        def __init__(self):
            self.pictures = [to_picture(image) for image in pictures]

        def __len__(self):
            return len(self.pictures)

        def __getitem__(self, row):
            return transform(self.pictures[row])

    module = load_encoder("resnet9").module.to(memory_format=torch.channels_last).train()
    head, loss_of = SimCLRProjectionHead(256, 256, 128), NTXentLoss(0.5)
    optimizer = torch.optim.AdamW([*module.parameters(), *head.parameters()], lr=1e-3, fused=True)
    loader = DataLoader(
        Pictures(), batch_size=batch, shuffle=True, drop_last=True, num_workers=2, persistent_workers=True
    )
    rate = 0.0
    for _ in range(2):
        began, seen = time.perf_counter(), 0
        for first, second in loader:
            with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16(torch.device("cpu"))):
                one, two = (
                    head(module(view.contiguous(memory_format=torch.channels_last)).flatten(1))
                    for view in (first, second)
                )
            loss = loss_of(one.float(), two.float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen += len(first)
        rate = seen / (time.perf_counter() - began)
    return rate


def photographs() -> dict:
    """A folder of 1 000 photographs of mixed sizes, modes and formats at 224 pixels with a ViT-Ti/16 and 2 views: peak memory of the process."""
    import tempfile

    import numpy as np
    from PIL import Image

    vit = "hf:vit,hidden_size=192,num_hidden_layers=12,num_attention_heads=3,intermediate_size=768,image_size=224,patch_size=16"
    with tempfile.TemporaryDirectory() as folder:
        random = np.random.default_rng(0)
        for row in range(1_000):
            mode = ("RGB", "L", "RGBA", "P", "CMYK", "I;16")[row % 6]
            height, width = random.integers(230, 700, 2)
            small = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            picture = Image.fromarray(small).resize((int(width), int(height)), Image.Resampling.BICUBIC)
            picture = (
                Image.fromarray(np.asarray(picture.convert("L"), dtype=np.uint16) * 256)
                if mode == "I;16"
                else picture.convert(mode)
            )
            suffix = {"RGB": "jpg", "L": "webp", "RGBA": "png", "P": "gif", "CMYK": "tif", "I;16": "png"}[mode]
            place = Path(folder) / "photos" / f"class{row % 7}"
            place.mkdir(parents=True, exist_ok=True)
            picture.save(place / f"{row}.{suffix}")
        script = (
            "import sys; from memloc.cli import main; code = main(sys.argv[1:]); "
            "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM'))); sys.exit(code)"
        )
        flags = [
            "audit",
            "--f",
            vit,
            "--g",
            vit,
            "--f-weights",
            "random",
            "--g-weights",
            "random",
            "--data",
            "photos",
            "--size",
            "224",
            "--views",
            "2",
            "--out",
            "found",
            "--json",
        ]
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", script, *flags], cwd=folder, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
    return {
        "peak_gib": int(done.stdout.splitlines()[-1]) / 2**20,
        "bound_gib": 3,
        "seconds": time.perf_counter() - began,
    }


def published() -> dict:
    """(b) Against the published procedure on the same ten taps: batch size 1, one layer per run.

    Written from its description: for each layer, a run over the images that encodes five (original, view) pairs, the same for f and
    g, for LayerMem, and a run that encodes ten views with f for UnitMem; torchvision's transforms one image at a time. Ours is one
    pass of ten plain views for all layers. Both in float32 on one core with the same encoder.
    """
    import torch
    from torch import nn

    from memloc import Views
    from memloc.engine import audit_shard, prepare

    f, g = pair()
    transform = per_image_transform()
    taps = [
        "conv1.act",
        "conv2_0.act",
        "conv2_1.act",
        "conv2_2.act",
        "res2",
        "conv3.act",
        "conv4_0.act",
        "conv4_1.act",
        "conv4_2.act",
        "res6",
    ]
    few = images(3)
    pictures = [to_picture(image) for image in few]
    caught = {}

    def hooked(net, tap):
        return dict(net.named_modules())[tap].register_forward_hook(lambda _m, _i, out: caught.__setitem__("out", out))

    def represent(net, image):
        net(image)
        return nn.functional.normalize(caught["out"].flatten(1), dim=1)

    def to_tensor(picture):
        import numpy as np

        return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None].float() / 255

    def theirs(*, once: bool) -> None:
        """Each pair's view goes through f and g; `once` encodes the original once instead of with every pair."""
        with torch.no_grad():
            for tap in taps:
                handles = [hooked(net, tap) for net in (f, g)]
                for picture in pictures:
                    distance = [0.0, 0.0]
                    original = to_tensor(picture)
                    kept = [represent(net, original) for net in (f, g)] if once else []
                    for _ in range(5):
                        view = to_tensor(transform(picture))
                        for side, net in enumerate((f, g)):
                            one = kept[side] if once else represent(net, original)
                            distance[side] += float((one - represent(net, view)).norm())
                for handle in handles:
                    handle.remove()
                handle = hooked(f, tap)
                for picture in pictures:
                    for _ in range(10):
                        f(to_tensor(transform(picture)))
                        caught["out"].mean(dim=(2, 3))
                handle.remove()

    count = 128
    splits = ["candidate"] * 64 + ["external"] * 64
    job = prepare(f, g, images=images(count), splits=splits, views=Views(n=10, sampling="independent"), layers=taps)
    theirs(once=False), audit_shard(job, slice(0, 32))
    ratios: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(3):
        ours = timed(lambda: audit_shard(job, slice(0, count))) / count
        for once in ratios:
            ratios[once].append(timed(lambda once=once: theirs(once=once)) / len(few) / ours)
    middle = {once: statistics.median(values) for once, values in ratios.items()}
    return {"ratio": middle[False], "ratios": ratios[False], "ratio_original_encoded_once": middle[True], "bound": 60}


def views() -> dict:
    """(c) Views per second at 32x32x3 with the normal policy, on one core."""
    import torch

    from memloc import Views

    recipe, pictures, ids = Views("normal", n=16), images(64), torch.arange(64)
    recipe.draw(pictures, ids)
    rates = [64 * 16 / timed(lambda: recipe.draw(pictures, ids)) for _ in range(30)]
    return {"views_per_second": statistics.median(rates), "best": max(rates), "bound": 8000}


def memory() -> dict:
    """(d) Peak memory of an audit at 1 000 and 10 000 points, the images and the tables aside."""
    found = {}
    for points in (1000, 10_000):
        code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch
torch.set_num_threads(1)
import run
from memloc import Views, audit
f, g = run.pair()
pictures = run.images({points})
splits = (["candidate"] * 4 + ["independent"] * 4 + ["external"] * 2) * ({points} // 10)
result = audit(f, g, images=pictures, splits=splits, views=Views(n=4))
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
tables = sum(getattr(result, name).memory_usage(deep=True).sum() for name in ("points", "point_layers", "layers", "units", "thumbnails"))
print(peak - pictures.numel() - int(tables), peak, int(tables), pictures.numel())
"""
        numbers = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
        found[points] = dict(
            zip(
                ("peak_less_images_and_tables_mb", "peak_mb", "tables_mb", "images_mb"),
                (int(number) / 1e6 for number in numbers),
                strict=True,
            )
        )
    more = found[10_000]["peak_less_images_and_tables_mb"] - found[1000]["peak_less_images_and_tables_mb"]
    return {"more_mb": more, "bound": 60, **{f"at_{points}": values for points, values in found.items()}}


def training() -> dict:
    """(e) SimCLR images per second of memloc's training against loops that augment one image at a time.

    Ours is what `memloc train` does: f and g at the same time, one core each. Theirs train one encoder with two data-loader
    workers, with one thread or one per core for the network, whichever is faster: "plain" with PyTorch's own convolutions, as a script would be written, "theirs" with memloc's
    ResNet9. Objective, head, optimizer, batch size and bfloat16 are the same.
    """
    import torch

    count, batch = 1024, 128
    pictures = images(count)
    rates: dict[str, list[float]] = {"ours": [], "plain": [], "theirs": []}
    for _ in range(3):
        rates["ours"].append(pair_rate(pictures, batch))
        for name in ("plain", "theirs"):
            each = []
            for threads in (1, os.cpu_count() or 1):
                torch.set_num_threads(threads)
                each.append(loader_rate(pictures, batch, plain=name == "plain"))
            rates[name].append(max(each))
    middle = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "ratio": middle["ours"] / middle["plain"],
        "ratio_same_net": middle["ours"] / middle["theirs"],
        "bound": 1.5,
        "images_per_second": rates,
    }


def pair_rate(pictures, batch: int) -> float:
    """Images per second of f and g together, from the last of three epochs."""
    import tempfile

    from memloc import train_pair

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        train_pair(pictures, epochs=3, candidates=64, held_out=0, batch_size=batch, out=out)
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return sum(line["images_per_second"] for line in lines if line["epoch"] == 3)


def loader_rate(pictures, batch: int, *, plain: bool) -> float:
    """Images per second of a training script with a data loader, from the second of two epochs."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader

    from memloc.encoders import has_bfloat16, load_encoder
    from memloc.objectives import nt_xent, projection_head

    encoder = load_encoder("resnet9", mean=[0.5] * 3, std=[0.25] * 3)
    for part in encoder.module.modules():
        if plain and isinstance(part, nn.Conv2d):
            part.__class__ = nn.Conv2d
    module, head = encoder.module.to(memory_format=torch.channels_last).train(), projection_head(256)
    optimizer = torch.optim.AdamW([*module.parameters(), *head.parameters()], lr=1e-3, fused=True)
    loader = DataLoader(TwoViews(pictures), batch_size=batch, shuffle=True, num_workers=2, persistent_workers=True)
    rate = 0.0
    for _ in range(2):
        began = time.perf_counter()
        for first, second, rows in loader:
            with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16(torch.device("cpu"))):
                projected = head(module(encoder.prepare(torch.cat([first, second])))).float()
            loss = nt_xent(*projected.chunk(2), rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        rate = len(pictures) / (time.perf_counter() - began)
    return rate


class TwoViews:
    """A dataset that augments one image at a time, as training scripts do."""

    def __init__(self, pictures) -> None:
        self.pictures = [to_picture(image) for image in pictures]
        self.transform = per_image_transform()

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, row: int):
        from torchvision.transforms.v2 import functional

        one, two = (functional.pil_to_tensor(self.transform(self.pictures[row])).float() / 255 for _ in range(2))
        return one, two, row


def to_picture(image):
    from PIL import Image

    return Image.fromarray(image.permute(1, 2, 0).numpy())


def per_image_transform():
    """The normal policy in torchvision, from the optional environment (make bench installs it)."""
    import torch

    optional = os.environ.get("MEMLOC_OPTIONAL", str(Path(__file__).parents[1] / ".optional"))
    if optional not in sys.path:
        sys.path.insert(0, optional)
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        globals()["_library"] = library
    from torchvision.transforms import v2

    jitter = v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8)
    return v2.Compose([v2.RandomResizedCrop(32), v2.RandomHorizontalFlip(0.5), jitter, v2.RandomGrayscale(0.2)])


def main() -> None:
    """Run the named benchmarks, print them, and keep each in results.json."""
    if len(sys.argv) == 3 and sys.argv[1] == "--one":
        import torch

        torch.set_num_threads(1)
        print(json.dumps(globals()[sys.argv[2]]()))
        return
    chosen = names(__doc__, NAMES)
    from stored import keep

    from memloc.encoders import versions

    for name in chosen:
        done = subprocess.run([sys.executable, __file__, "--one", name], capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        found = json.loads(done.stdout.splitlines()[-1])
        print(json.dumps({name: found}), flush=True)
        keep(RESULTS, {name: found, "versions": versions()})


if __name__ == "__main__":
    main()

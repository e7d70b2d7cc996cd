"""Sound files of every kind that memloc reads, each with what opens it: what the fuzzer starts from."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image

from memloc.cli._common import settings_from
from memloc.coreset import CoresetRun, load_classifier
from memloc.data import open_images, open_table
from memloc.encoders import read_weights
from memloc.probe._inputs import open_masks
from memloc.report import write_any_report
from memloc.results import MANIFEST, Audit, claimed
from memloc.runs import images_of, open_run
from memloc.valuation import Valuation


class Input(NamedTuple):
    """A sound file. name: of its kind. path: relative to a folder made anew. open: given that folder."""

    name: str
    path: str
    content: bytes
    open: Callable[[Path], Any]


def _images(path: str) -> Callable[[Path], Any]:
    return lambda folder: open_images(folder / path)


def _pictures(random: np.random.Generator) -> list[Input]:
    found = []
    picture = Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    for suffix, kind in (("png", "PNG"), ("jpg", "JPEG"), ("gif", "GIF"), ("bmp", "BMP"), ("webp", "WEBP"), ("tiff", "TIFF"), ("ppm", "PPM")):  # fmt: skip
        file = io.BytesIO()
        picture.save(file, kind)
        found.append(Input(f"image {suffix}", f"set/a.{suffix}", file.getvalue(), _images("set")))
    return found


def _arrays(random: np.random.Generator) -> list[Input]:
    pixels, labels = random.integers(0, 256, (6, 8, 8), dtype=np.uint8), np.arange(6) % 2
    npz = io.BytesIO()
    np.savez_compressed(npz, images=pixels, labels=labels)
    idx = b"\0\0\x08\x03" + b"".join(each.to_bytes(4, "big") for each in pixels.shape) + pixels.tobytes()
    encoded = io.BytesIO()
    Image.fromarray(pixels[0]).save(encoded, "PNG")
    table = io.BytesIO()
    pd.DataFrame({"image": [encoded.getvalue()] * 4, "label": [0, 1, 0, 1]}).to_parquet(table)
    masks = io.BytesIO()
    np.save(masks, pixels.astype(np.int64))
    return [
        Input("npz", "set.npz", npz.getvalue(), _images("set.npz")),
        Input("idx", "set-images-idx3-ubyte", idx, _images("set-images-idx3-ubyte")),
        Input("idx gz", "set-images-idx3-ubyte.gz", gzip.compress(idx), _images("set-images-idx3-ubyte.gz")),
        Input("parquet of images", "set.parquet", table.getvalue(), _images("set.parquet")),
        Input("masks", "masks.npy", masks.getvalue(), lambda folder: open_masks(*[folder / "masks.npy"] * 2)),
    ]


def old_pickle(value: Any) -> bytes:
    """As Python 2 wrote CIFAR: protocol 2, NumPy's modules by their old names."""
    return pickle.dumps(value, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def cifar(random: np.random.Generator) -> dict[str, bytes]:
    """The files of CIFAR-10, two images a batch."""
    batches = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    found = {
        name: old_pickle({b"data": random.integers(0, 256, (2, 3072), dtype=np.uint8), b"labels": [3, 1]})
        for name in batches
    }
    return {**found, "batches.meta": old_pickle({b"label_names": [b"cat", b"dog", b"bird", b"frog"]})}


def matlab(arrays: dict[str, np.ndarray]) -> bytes:
    """A MATLAB file of level 5 of uint8 arrays, compressed."""

    def element(kind: int, body: bytes) -> bytes:
        return struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8)

    found = b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM"
    for name, array in arrays.items():
        parts = (
            element(6, struct.pack("<II", 9, 0))
            + element(5, np.array(array.shape, "<i4").tobytes())
            + element(1, name.encode())
            + element(2, array.tobytes(order="F"))
        )
        packed = zlib.compress(element(14, parts))
        found += struct.pack("<II", 15, len(packed)) + packed
    return found


def _archives(random: np.random.Generator) -> list[Input]:
    files = cifar(random)
    packed, zipped = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive, zipfile.ZipFile(zipped, "w") as other:
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
            other.writestr(f"cifar-10-batches-py/{name}", content)
    digits = {
        "X": random.integers(0, 256, (32, 32, 3, 4), dtype=np.uint8),
        "y": np.array([[1], [2], [10], [3]], np.uint8),
    }

    def folder_of(folder: Path) -> Any:
        for name, content in files.items():
            if name != "data_batch_1":
                (folder / "cifar" / name).write_bytes(content)
        return open_images(folder / "cifar")

    return [
        Input("CIFAR batch", "cifar/data_batch_1", files["data_batch_1"], folder_of),
        Input("CIFAR tar.gz", "cifar.tar.gz", packed.getvalue(), _images("cifar.tar.gz")),
        Input("CIFAR tar", "cifar.tar", gzip.decompress(packed.getvalue()), _images("cifar.tar")),
        Input("CIFAR zip", "cifar.zip", zipped.getvalue(), _images("cifar.zip")),
        Input("SVHN mat", "train_32x32.mat", matlab(digits), _images("train_32x32.mat")),
        Input("STL-10", "train_X.bin", random.integers(0, 256, 2 * 27648, dtype=np.uint8).tobytes(), _images("train_X.bin")),
    ]  # fmt: skip


def _tables(random: np.random.Generator) -> list[Input]:
    frame = pd.DataFrame({"a": random.normal(size=9), "b": list("xyzxyzxyz"), "kind": [0, 1, 0] * 3})
    parquet = io.BytesIO()
    frame.to_parquet(parquet)
    text = frame.to_csv(index=False).encode()
    return [
        Input("csv", "t.csv", text, lambda folder: open_table(folder / "t.csv", "kind")),
        Input("tsv", "t.tsv", text.replace(b",", b"\t"), lambda folder: open_table(folder / "t.tsv", "kind")),
        Input("parquet", "t.parquet", parquet.getvalue(), lambda folder: open_table(folder / "t.parquet", "kind")),
    ]


def _weights() -> list[Input]:
    from safetensors.torch import save

    state = {"conv.weight": torch.ones(2, 3, 3, 3), "conv.bias": torch.zeros(2)}
    stored = io.BytesIO()
    torch.save(state, stored)
    return [
        Input("safetensors", "w.safetensors", save(state, {"encoder": "resnet9"}), lambda folder: read_weights(folder / "w.safetensors")),
        Input("pt", "w.pt", stored.getvalue(), lambda folder: read_weights(folder / "w.pt")),
    ]  # fmt: skip


def _settings() -> list[Input]:
    import typer

    from memloc.cli import app

    command = typer.main.get_command(app)
    context = typer.Context(command.commands["train"])
    content = b'epochs = 3\nobjective = "simclr"\nlearning-rate = 0.1\nunpaired = true\n'
    return [Input("toml", "s.toml", content, lambda folder: settings_from(context, folder / "s.toml"))]


def _folders(finished: Path) -> list[Input]:
    """Files of finished folders, without manifests, which would refuse every change."""
    reading: dict[str, Callable[[Path], Any]] = {
        "audit": lambda folder: (Audit.load(folder), write_any_report(folder)),
        "run": lambda folder: images_of(open_run(folder)),
        "value": lambda folder: (Valuation.load(folder), write_any_report(folder)),
        "coreset": lambda folder: (CoresetRun.load(folder), load_classifier(folder), write_any_report(folder)),
    }
    found = []
    for kind, read in reading.items():
        folder = finished / kind
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and name not in ("report.html", "metrics.jsonl") and not name.startswith("heads/"):
                found.append(Input(f"{kind} {name}", name, path.read_bytes(), _within(folder, read, name)))
    found.append(Input("spec of a claim", "spec.json", json.dumps({"a": {"b": 1}}).encode(), _claim))
    return found


def _within(folder: Path, read: Callable[[Path], Any], changed: str) -> Callable[[Path], Any]:
    def opened(place: Path) -> Any:
        for path in folder.rglob("*"):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and name not in (changed, "report.html") and not (name == MANIFEST != changed):
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_bytes(path.read_bytes())
        return read(place)

    return opened


def _claim(folder: Path) -> None:
    with claimed(folder, {"a": {"b": 1}}):
        pass


def every_input(finished: Path) -> list[Input]:
    """All kinds. finished: a folder with an audit, run, value and coreset."""
    random = np.random.default_rng(0)
    return [
        *_pictures(random),
        *_arrays(random),
        *_archives(random),
        *_tables(random),
        *_weights(),
        *_settings(),
        *_folders(finished),
    ]

"""What checksums, the lock and flushing cost: python benchmarks/folders.py [--rounds 5]

Trains a pair and audits it, with and without them, in turn, in one process; writes benchmarks/folders.json.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from pathlib import Path
from statistics import median
from unittest import mock

import torch

import memloc
from memloc.results import write_json

HERE = Path(__file__).parent
_SAME = bytes(16)  # a checksum


@contextlib.contextmanager
def without():
    """No checksum is computed, nothing flushed, no lock taken."""
    with contextlib.ExitStack() as stack:
        for place, instead in (
            ("results._files.flushed", lambda path: None),
            ("results._manifest.flushed", lambda path: None),
            ("results._manifest.digest_of", lambda path: _SAME.hex()),
            ("results._files.verify", lambda path: None),
            ("results._files.list_file", lambda *of: None),
            ("results._seal.digest", lambda file, length: (file.seek(length), _SAME)[1]),
            ("results._folder.locked", lambda folder: contextlib.nullcontext()),
            ("encoders._checkpoints._checksum", lambda tensors, metadata: _SAME.hex()),
        ):
            stack.enter_context(mock.patch(f"memloc.{place}", instead))
        yield


def seconds(images, folder: Path) -> dict[str, float]:
    began = time.monotonic()
    pair = memloc.train_pair(
        images, epochs=3, candidates=100, held_out=0, workers=1, checkpoint_every=1, out=folder / "run"
    )
    trained = time.monotonic()
    memloc.audit(pair.run, views=memloc.Views(n=8), shard_size=128, out=folder / "audit")
    return {"train": trained - began, "audit": time.monotonic() - trained}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(2)
    images = memloc.open_images("sample:train").pixels[:400]
    found: dict[str, list[dict[str, float]]] = {"with": [], "without": []}
    for number in range(rounds + 1):
        for name in ("with", "without") if number % 2 else ("without", "with"):
            with tempfile.TemporaryDirectory() as folder, without() if name == "without" else contextlib.nullcontext():
                took = seconds(images, Path(folder))
            if number:  # the first round loads what the others use
                found[name].append(took)
                print(name, {key: round(value, 2) for key, value in took.items()}, flush=True)
    ratios = {
        what: [one[what] / other[what] for one, other in zip(found["with"], found["without"], strict=True)]
        for what in ("train", "audit")
    }
    summary = {what: {"ratio": median(each), "least": min(each), "most": max(each)} for what, each in ratios.items()}
    print(summary)
    write_json(HERE / "folders.json", {"rounds": rounds, "seconds": found, "ratios": summary})


if __name__ == "__main__":
    main()

"""Make the embedded sample from the Fashion-MNIST IDX files: 4 000 training and 1 000 test images, classes balanced.

Usage: python scripts/make_sample.py IDX_FOLDER [OUT]

The same IDX files give the same bytes: the draw is seeded and the archive holds no dates. The folder is that of Debian's
package dataset-fashion-mnist, or of https://github.com/zalandoresearch/fashion-mnist (MIT licence, kept beside the data).
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import numpy as np

from memloc.data import open_images

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
TARGET = Path(__file__).parents[1] / "src/memloc/data/sample/fashion_mnist.npz"


def sample(folder: Path, prefix: str, per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """A seeded draw of `per_class` images of every class, in file order."""
    source = open_images(next(folder.glob(f"{prefix}-images-idx3-ubyte*")))
    assert source.labels is not None, "the labels file lies beside the images"
    labels = source.labels.numpy()
    generator = np.random.default_rng(2017)
    rows = np.concatenate(
        [generator.choice(np.flatnonzero(labels == label), per_class, replace=False) for label in range(10)]
    )
    rows.sort()
    return source.pixels[rows, 0].numpy(), labels[rows].astype(np.uint8)


def main() -> None:
    """Write the archive and print its size."""
    folder, target = Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else TARGET
    train_images, train_labels = sample(folder, "train", 400)
    test_images, test_labels = sample(folder, "t10k", 100)
    arrays = {
        "train_images": train_images, "train_labels": train_labels, "test_images": test_images, "test_labels": test_labels,
        "class_names": np.array(CLASSES),
    }  # fmt: skip
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w") as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.save(content, array, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(2017, 8, 25, 0, 0, 0))
            archive.writestr(entry, content.getvalue(), compress_type=zipfile.ZIP_DEFLATED, compresslevel=9)
    print(f"{target}: {target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()

"""Opening images: kinds of files, odd encodings, bad files, ids and messages."""

import gzip

import numpy as np
import pytest
import torch
from PIL import Image

from memloc.data import as_images, concatenate, open_images
from memloc.errors import DataError, DataNotFoundError, ShapeError


def ramp(height=12, width=16):
    return np.stack(
        np.broadcast_arrays(np.arange(height)[:, None] * 20, np.arange(width)[None] * 15, 100), axis=2
    ).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    for name in ("cat/a.png", "cat/b.png", "dog/deep/c.png", "dog/deep/d.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(ramp(), hash(name) % 7, axis=0)).save(path)
    return tmp_path


def test_folder_with_nested_classes(folder):
    images = open_images(folder)
    assert images.names == ("cat/a.png", "cat/b.png", "dog/deep/c.png", "dog/deep/d.png")
    assert images.class_names == ("cat", "dog/deep")
    assert images.labels.tolist() == [0, 0, 1, 1]
    assert images.pixels.shape == (4, 3, 12, 16)


def test_ids_survive_moves_and_other_files(folder, tmp_path_factory):
    before = dict(zip((images := open_images(folder)).names, images.ids.tolist(), strict=True))
    moved = tmp_path_factory.mktemp("moved")
    (folder / "dog").rename(moved / "dog")
    Image.fromarray(ramp()).save(moved / "dog/0.png")
    after = dict(zip((images := open_images(moved)).names, images.ids.tolist(), strict=True))
    assert after["dog/deep/c.png"] == before["dog/deep/c.png"]


def test_odd_encodings_are_converted(tmp_path):
    base = ramp()
    picture = Image.fromarray(base)
    Image.fromarray(base[..., 0].astype(np.uint16) * 257).save(tmp_path / "1-deep.png")
    picture.convert("CMYK").save(tmp_path / "2-cmyk.jpg", quality=100)
    picture.quantize(256).save(tmp_path / "3-palette.png")
    alpha = np.dstack([base, np.full(base.shape[:2], 255, np.uint8)])
    alpha[:, :8, 3] = 0
    Image.fromarray(alpha).save(tmp_path / "4-alpha.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: turn clockwise to see it upright
    Image.fromarray(np.rot90(base).copy()).save(tmp_path / "5-rotated.png", exif=exif)
    picture.save(tmp_path / "6-animated.gif", save_all=True, append_images=[Image.new("RGB", picture.size, "red")])
    picture.convert("L").save(tmp_path / "7-gray.png")
    Image.fromarray(base[..., 0] > 100).save(tmp_path / "8-bits.png")
    pixels = open_images(tmp_path).pixels.permute(0, 2, 3, 1).numpy().astype(int)
    assert (pixels[0] == base[..., :1]).all()
    assert np.abs(pixels[1] - base).mean() < 12
    assert np.abs(pixels[2] - base).mean() < 12
    assert (pixels[3][:, :8] == 255).all()
    assert (pixels[3][:, 8:] == base[:, 8:]).all()
    assert (pixels[4] == base).all()
    assert np.abs(pixels[5] - base).mean() < 25
    assert (pixels[6][..., 0] == pixels[6][..., 1]).all()
    assert set(np.unique(pixels[7])) == {0, 255}


def test_bad_files_are_counted_and_listed(folder):
    content = (folder / "cat/a.png").read_bytes()
    (folder / "cat/truncated.png").write_bytes(content[: len(content) // 2])
    (folder / "cat/empty.jpg").write_bytes(b"")
    (folder / "cat/text.png").write_text("no image")
    with pytest.raises(DataError, match=r"3 of 7 images .* cannot be read .* max_bad=3"):
        open_images(folder)
    images = open_images(folder, max_bad=3)
    assert len(images) == 4
    assert sorted(name for name, _ in images.skipped) == ["cat/empty.jpg", "cat/text.png", "cat/truncated.png"]


def test_mixed_sizes_need_a_size_and_are_never_enlarged(folder):
    Image.fromarray(ramp(30, 40)).save(folder / "cat/large.png")
    with pytest.raises(DataError, match="Pass size=12"):
        open_images(folder)
    assert open_images(folder, size=12).pixels.shape == (5, 3, 12, 12)
    with pytest.raises(DataError, match="smaller than a view of 20x20"):
        open_images(folder, size=20)


def test_idx_parquet_and_npz_agree(tmp_path):
    import io

    import pandas as pd

    pixels = np.random.default_rng(0).integers(0, 256, (5, 9, 9), dtype=np.uint8)
    labels = np.array([1, 0, 2, 1, 0], np.uint8)
    header = bytes([0, 0, 8, 3]) + np.array(pixels.shape, ">u4").tobytes()
    with gzip.open(tmp_path / "train-images-idx3-ubyte.gz", "wb") as file:
        file.write(header + pixels.tobytes())
    with gzip.open(tmp_path / "train-labels-idx1-ubyte.gz", "wb") as file:
        file.write(bytes([0, 0, 8, 1]) + np.array([5], ">u4").tobytes() + labels.tobytes())
    np.savez(tmp_path / "set.npz", images=pixels, labels=labels)
    cells = []
    for image in pixels:
        content = io.BytesIO()
        Image.fromarray(image).save(content, "PNG")
        cells.append({"bytes": content.getvalue(), "path": None})
    pd.DataFrame({"img": cells, "label": labels}).to_parquet(tmp_path / "set.parquet")
    idx, npz, parquet = (
        open_images(tmp_path / name) for name in ("train-images-idx3-ubyte.gz", "set.npz", "set.parquet")
    )
    assert torch.equal(idx.pixels, npz.pixels)
    assert (parquet.pixels == idx.pixels).all()
    for images in (idx, npz, parquet):
        assert images.labels.tolist() == labels.tolist()
        assert images.ids.tolist() == [0, 1, 2, 3, 4]


def test_sample_is_balanced_and_labelled():
    images = open_images("sample:train")
    assert images.pixels.shape == (4000, 1, 28, 28)
    assert torch.bincount(images.labels).tolist() == [400] * 10
    assert images.class_names[9] == "Ankle boot"


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("nowhere", DataNotFoundError, "there is no file or folder"),
        ("empty", DataError, "holds no images"),
        ("notes.txt", DataError, "of no kind that memloc reads"),
        ("broken.parquet", DataError, "no readable parquet"),
        ("broken.npz", DataError, "cannot be read"),
        ("t-images-idx3-ubyte", DataError, "no complete IDX file"),
        ("sample:dev", DataError, "no part 'dev'"),
    ],
)
def test_messages(tmp_path, name, error, message):
    (tmp_path / "empty").mkdir()
    for broken in ("notes.txt", "broken.parquet", "broken.npz", "t-images-idx3-ubyte"):
        (tmp_path / broken).write_bytes(b"\x00\x00")
    with pytest.raises(error, match=message):
        open_images(name if name.startswith("sample") else tmp_path / name)


def test_datasets_and_arrays():
    class Pairs:
        def __len__(self):
            return 3

        def __getitem__(self, row):
            return Image.fromarray(ramp()), row % 2

    images = as_images(Pairs())
    assert images.pixels.shape == (3, 3, 12, 16)
    assert images.labels.tolist() == [0, 1, 0]
    with pytest.raises(ShapeError, match="Expected uint8"):
        as_images(torch.rand(2, 3, 4, 4))
    with pytest.raises(DataError, match="2 different ids for 3 images"):
        as_images(np.zeros((3, 4, 4), np.uint8), points=[1, 1, 2])
    with pytest.raises(DataError, match="labels have shape"):
        as_images(np.zeros((3, 4, 4), np.uint8), labels=[1])


def test_concatenation_keeps_ids_apart(folder):
    rows = as_images(np.zeros((3, 4, 4), np.uint8))
    assert concatenate(rows, rows).ids.tolist() == [0, 1, 2, 3, 4, 5]
    same_paths = concatenate(open_images(folder), open_images(folder))
    assert len(same_paths.ids.unique()) == 8
    assert torch.equal(concatenate(open_images(folder), open_images(folder)).ids, same_paths.ids)
    with pytest.raises(DataError, match="cannot be audited together"):
        concatenate(rows, open_images(folder))


def test_concatenation_matches_classes_by_name():
    one = as_images(np.zeros((2, 4, 4), np.uint8), labels=[0, 1])
    two = as_images(np.ones((2, 4, 4, 3), np.uint8), labels=[0, 0])
    from dataclasses import replace

    both = concatenate(replace(one, class_names=("cat", "dog")), replace(two, class_names=("dog",)))
    assert both.labels.tolist() == [0, 1, 1, 1]
    assert both.class_names == ("cat", "dog")
    assert both.pixels.shape == (4, 3, 4, 4)
    unlabelled = concatenate(replace(one, class_names=("cat", "dog")), as_images(np.ones((1, 4, 4), np.uint8)))
    assert unlabelled.labels.tolist() == [0, 1, -1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": np.zeros((3, 8, 4, 4), np.uint8)}, "channels last"),
        ({"images": np.zeros((0, 4, 4), np.uint8)}, "at least one"),
        ({"images": np.zeros((3, 4, 4), np.uint8), "labels": np.zeros(2)}, "2 labels for 3 images"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, content, message):
    np.savez(tmp_path / "set.npz", **content)
    with pytest.raises(DataError, match=message):
        open_images(tmp_path / "set.npz")


def test_labels_may_be_text_or_missing(tmp_path):
    import io

    import pandas as pd

    np.savez(tmp_path / "set.npz", images=np.zeros((3, 4, 4), np.uint8), labels=np.array(["dog", "cat", "dog"]))
    images = open_images(tmp_path / "set.npz")
    assert (images.labels.tolist(), images.class_names) == ([1, 0, 1], ("cat", "dog"))
    content = io.BytesIO()
    Image.fromarray(ramp()).save(content, "PNG")
    pd.DataFrame({"image": [content.getvalue(), None, content.getvalue()], "label": [7, 7, None]}).to_parquet(
        tmp_path / "set.parquet"
    )
    images = open_images(tmp_path / "set.parquet", max_bad=1)
    assert (images.labels.tolist(), images.class_names, len(images.skipped)) == ([0, -1], ("7",), 1)


def test_fingerprint_ignores_order_and_sees_content():
    images = as_images(np.random.default_rng(0).integers(0, 256, (6, 4, 4), dtype=np.uint8))
    turned = images.take(torch.tensor([5, 4, 3, 2, 1, 0]))
    assert turned.fingerprint() == images.fingerprint()
    changed = images.pixels.clone()
    changed[0, 0, 0, 0] ^= 1
    assert as_images(changed).fingerprint() != images.fingerprint()


def test_a_size_below_one_is_refused_and_names_are_not_printed():
    from memloc.errors import SpecError

    with pytest.raises(SpecError, match=r"size is 0\. Expected at least 1 pixel"):
        open_images("sample:test", size=0)
    assert "sample:test[" not in repr(open_images("sample:test"))

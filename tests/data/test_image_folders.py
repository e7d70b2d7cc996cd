"""Folders as people have them: what systems leave in them, other formats, links, metadata, sets and shards."""

import csv
import io
import json
import os
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image

from memloc import load_run
from memloc.cli import main
from memloc.data import as_images, in_size, open_images
from memloc.errors import DataError, MemlocWarning, ShapeError
from memloc.fit import Fit


def picture(path, value=0, size=(8, 8), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path, **options)
    return path


@pytest.fixture
def pets(tmp_path):
    for number, name in enumerate(("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png")):
        picture(tmp_path / "pets" / name, 60 * number)
    return tmp_path / "pets"


@pytest.mark.parametrize(
    "place",
    [
        *(".ipynb_checkpoints/1-checkpoint.png", "cat/.ipynb_checkpoints/1.png", "cat/@eaDir/1.png/SYNO.jpg"),
        *(
            ".Trash-1000/files/1.png",
            "__MACOSX/cat/1.png",
            "$RECYCLE.BIN/S-1/1.png",
            "lost+found/1.png",
            ".git/a/1.png",
        ),
        *("#recycle/1.png", "System Volume Information/1.png", ".thumbnails/1.png", "__pycache__/1.png"),
        *("cat/.AppleDouble/1.png", "@Recycle/1.png"),
    ],
)
def test_hidden_and_system_folders_are_left_out_and_said(pets, place):
    picture(pets / place)
    with pytest.warns(MemlocWarning, match="1 image files in hidden or system folders are left out"):
        images = open_images(pets)
    assert (len(images), images.class_names) == (4, ("cat", "dog"))


def test_hidden_files_and_notes_are_no_images_and_odd_classes_are(pets):
    for name in ("cat/.0.png", "cat/._1.png", ".fuse_hidden01.png"):
        picture(pets / name)
    for name in ("cat/Thumbs.db", "cat/.DS_Store", "cat/desktop.ini", "readme.txt"):
        (pets / name).write_bytes(b"note")
    for name in ("#tag/1.png", "_background/1.png", "0/1.png"):
        picture(pets / name)
    images = open_images(pets)
    assert (len(images), images.class_names) == (7, ("#tag", "0", "_background", "cat", "dog"))


@pytest.mark.parametrize("suffix", [".jfif", ".JPE", ".pjpeg", ".dib", ".apng", ".pbm", ".pnm", ".jp2", ".avif", ""])
def test_other_names_of_images_are_read(pets, suffix):
    kinds = {
        ".dib": "DIB",
        ".apng": "PNG",
        ".pbm": "PPM",
        ".pnm": "PPM",
        ".jp2": "JPEG2000",
        ".avif": "AVIF",
        "": "PNG",
    }
    picture(pets / f"fox/1{suffix}", format=kinds.get(suffix, "JPEG"))
    assert (len(images := open_images(pets)), images.class_names) == (5, ("cat", "dog", "fox"))


@pytest.mark.parametrize(
    "suffix", [".heic", ".HEIF", ".cr2", ".dng", ".jxl", ".svg", ".dcm", ".nii.gz", ".tga", ".exr"]
)
def test_formats_that_are_not_read_are_no_surprise(pets, suffix):
    (pets / f"cat/3{suffix}").write_bytes(b"something")
    with pytest.raises(DataError, match=r"1 of 5 images .* cannot be read .*a format that memloc does not read"):
        open_images(pets)
    images = open_images(pets, max_bad=1)
    assert (len(images), len(images.skipped)) == (4, 1)
    (alone := pets / "alone").mkdir()
    (alone / f"1{suffix}").write_bytes(b"something")
    with pytest.raises(DataError, match="a format that memloc does not read"):
        open_images(alone)


def test_arrays_beside_images_are_said(pets):
    np.save(pets / "features.npy", np.zeros(3))
    with pytest.warns(MemlocWarning, match=r"1 files of arrays .* features.npy"):
        assert len(open_images(pets)) == 4


def test_links_that_lead_nowhere_or_round(pets):
    (pets / "cat/self").symlink_to(pets / "cat/self")
    (pets / "cat/to-dog").symlink_to(pets / "dog")
    (pets / "dog/to-cat").symlink_to(pets / "cat")
    images = open_images(pets)
    assert (len(images), images.class_names) == (4, ("cat", "dog"))
    (pets / "cat/3.png").symlink_to(pets / "gone.png")
    (pets / "cat/4.png").symlink_to(pets / "cat/4.png")
    with pytest.raises(DataError, match=r"2 of 6 images .* max_bad=2"):
        open_images(pets)
    assert len(open_images(pets, max_bad=2)) == 4


def test_a_folder_whose_name_is_no_utf8(tmp_path, capsys):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/d\xe9")
    for number in range(24):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        os.makedirs(folder, exist_ok=True)
        Image.fromarray(pixels).save(f"{folder}/{number}.png")
    out = tmp_path / "run"
    flags = ["--epochs", "1", "--candidates", "4", "--batch-size", "8", "--workers", "1"]
    assert main(["train", folder, *flags, "--out", str(out)]) == 0
    assert main(["audit", str(out), "--views", "2", "--out", str(tmp_path / "found")]) == 0
    assert open_images(images_source := load_run(out).record["data"]).names == open_images(folder).names
    assert os.fsencode(images_source).endswith(b"d\xe9")
    assert "report" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("array", "mean"),
    [
        (np.full((8, 8), 0.5, np.float32), 128),
        (np.full((8, 8), 32768, np.uint16), 128),
        (np.full((8, 8), 128, np.uint8), 128),
    ],
    ids=["floats to 1", "16 bits", "8 bits"],
)
def test_one_rule_for_each_kind_of_pixels(tmp_path, array, mean):
    Image.fromarray(array).save(tmp_path / "1.tiff")
    assert open_images(tmp_path).pixels.float().mean().item() == pytest.approx(mean, abs=1)


@pytest.mark.parametrize(
    "array",
    [
        np.linspace(0, 4095, 64, dtype=np.float32).reshape(8, 8),
        np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8),
        np.full((8, 8), np.nan, np.float32),
        np.linspace(0, 400, 64).astype(np.int32).reshape(8, 8),
        np.linspace(0, 2**31 - 1, 64).astype(np.int32).reshape(8, 8),
    ],
    ids=["floats to 4095", "floats from -1", "NaN", "integers to 400", "integers of 32 bits"],
)
def test_pixels_of_unknown_range_are_refused(tmp_path, array):
    Image.fromarray(array).save(tmp_path / "1.tiff")
    with pytest.raises(DataError, match="its pixels are (floats|32-bit integers) from"):
        open_images(tmp_path)
    with pytest.raises(DataError, match="item 0 of the dataset cannot be read: its pixels are"):
        as_images([Image.fromarray(array)])


def test_twelve_bits_in_sixteen_are_said(tmp_path):
    Image.fromarray(np.full((8, 8), 4095, np.uint16)).save(tmp_path / "1.png")
    with pytest.warns(MemlocWarning, match="No pixel of .* is brighter than 16 of 255"):
        open_images(tmp_path)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (torch.rand(2, 3, 8, 8), r"from 0 to 1: pass \(images \* 255\)"),
        (torch.rand(2, 3, 8, 8) * 200, r"from 0 to 255: pass images.round"),
        (torch.randn(2, 3, 8, 8), r"as normalized ones do: pass them before normalization, and mean= and std="),
        (torch.zeros(2, 1, 8, 8, dtype=torch.bool), "true and false"),
        (torch.full((2, 1, 8, 8), 4095), "from 4095 to 4095: scale them"),
        (np.full((2, 8, 8), 4095, np.uint16), "to 4095: scale them"),
    ],
)
def test_tensors_say_what_they_look_like(pixels, message):
    with pytest.raises(ShapeError, match=message):
        as_images(pixels)


def test_datasets_of_several_sizes(tmp_path):
    items = [Image.new("RGB", (8 + number, 12), "red") for number in range(3)]
    with pytest.raises(ShapeError, match="3 shapes.* Pass size=8"):
        as_images(items)
    assert as_images(items, size=8).pixels.shape == (3, 3, 8, 8)
    with pytest.raises(DataError, match="smaller than a view of 20x20"):
        as_images(items, size=20)


@pytest.mark.parametrize("channels", [2, 4, 5, 6])
def test_more_channels_than_three(tmp_path, channels):
    np.savez(tmp_path / "x.npz", images=np.zeros((3, 16, 12, channels), np.uint8))
    assert open_images(tmp_path / "x.npz").pixels.shape == (3, channels, 16, 12)
    assert in_size(open_images(tmp_path / "x.npz"), Fit(8), "x").pixels.shape == (3, channels, 8, 8)
    with pytest.raises(ShapeError, match="fewer channels than rows and columns"):
        as_images(torch.zeros(2, 16, 12, channels, dtype=torch.uint8))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_labels_from_metadata(pets, kind):
    rows = [{"file_name": f"cat/{number}.png", "label": label} for number, label in ((1, 10), (2, 9))]
    rows += [{"file_name": "dog/1.png", "label": 10}]
    if kind == "csv":
        with (pets / "metadata.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["file_name", "label"])
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "jsonl":
        (pets / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    else:
        parquet.write_table(pa.Table.from_pylist(rows), pets / "metadata.parquet")
    with pytest.warns(MemlocWarning, match="1 of 4 images are not in metadata"):
        images = open_images(pets)
    assert (images.labels.tolist(), images.class_names) == ([1, 0, 1, -1], ("9", "10"))


def test_metadata_in_folders_and_wrong_ones(pets):
    (pets / "cat/metadata.csv").write_text("file_name,label\n1.png,tabby\n2.png,None\n")
    (pets / "dog/metadata.csv").write_text("file_name,label\n1.png,pug\n2.png,pug\n")
    assert open_images(pets).class_names == ("None", "pug", "tabby")
    (pets / "cat/metadata.csv").write_text("name,label\n1.png,tabby\n")
    with pytest.raises(DataError, match="Expected file_name"):
        open_images(pets)
    (pets / "cat/metadata.csv").write_text("file_name,label\nother.png,tabby\n")
    (pets / "dog/metadata.csv").unlink()
    with pytest.raises(DataError, match="names none of the 4 images"):
        open_images(pets)


@pytest.mark.parametrize(
    "sets", [("train", "test"), ("train", "val", "test"), ("training", "validation"), ("Train", "Test")]
)
def test_sets_are_asked_for(tmp_path, sets):
    for number, name in enumerate(sets):
        for kind in ("cat", "dog"):
            picture(tmp_path / name / kind / "1.png", 40 * number)
    with pytest.raises(DataError, match=f"holds the sets .* Pass .*:{sets[0]}"):
        open_images(tmp_path)
    images = open_images(f"{tmp_path}:{sets[0].lower()}")
    assert (images.names, images.class_names) == (("cat/1.png", "dog/1.png"), ("cat", "dog"))
    assert open_images(images.source).names == images.names
    with pytest.raises(DataError, match="has no set 'extra'|has no parts"):
        open_images(f"{tmp_path}:extra")


def encoded(value):
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_sharded_parquet(tmp_path):
    for number in range(2):
        table = pa.table({"image": [encoded(60 * number + row) for row in range(2)], "label": [0, 1]})
        parquet.write_table(table, tmp_path / f"train-0000{number}-of-00002.parquet")
    images = open_images(tmp_path)
    assert images.pixels[:, 0, 0, 0].tolist() == [0, 1, 60, 61]
    parquet.write_table(table, tmp_path / "test-00000-of-00001.parquet")
    with pytest.raises(DataError, match=r"of 2 sets: test, train. .*:train"):
        open_images(tmp_path)
    assert len(open_images(f"{tmp_path}:test")) == 2
    (tmp_path / "train-00000-of-00002.parquet").unlink()
    with pytest.raises(DataError, match="lacks 1 of 2 shards, such as number 0"):
        open_images(f"{tmp_path}:train")


def shard(path, samples):
    with tarfile.open(path, "w") as archive:
        for name, content in samples:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def test_webdataset_shards(tmp_path):
    for number in range(2):
        samples = [(f"{number}{row}.{end}", content) for row in range(2) for end, content in (
            ("png", encoded(60 * number + row)), ("cls", str(10 - row).encode()), ("txt", b"a caption"))]  # fmt: skip
        shard(tmp_path / f"s-{number:06d}.tar", samples)
    for where in (tmp_path, f"{tmp_path}/s-{{000000..000001}}.tar"):
        images = open_images(where)
        assert images.pixels[:, 0, 0, 0].tolist() == [0, 1, 60, 61]
        assert (images.labels.tolist(), images.class_names) == ([1, 0, 1, 0], ("9", "10"))
    one = open_images(tmp_path / "s-000001.tar")
    assert one.names == ("10.png", "11.png")
    shard(tmp_path / "json.tar", [("a.jpg", encoded(0)), ("a.json", b'{"label": "cat"}')])
    assert open_images(tmp_path / "json.tar").class_names == ("cat",)
    shard(tmp_path / "folders.tar", [("cat/1.png", encoded(0)), ("__MACOSX/cat/1.png", b""), ("dog/1.png", encoded(9))])
    assert open_images(tmp_path / "folders.tar").class_names == ("cat", "dog")
    shard(tmp_path / "text.tar", [("a.txt", b"text")])
    with pytest.raises(DataError, match="holds no images that memloc knows"):
        open_images(tmp_path / "text.tar")


def test_zipped_folders_of_images(tmp_path):
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for name in ("cat/1.png", "dog/1.png", "__MACOSX/cat/._1.png"):
            archive.writestr(name, encoded(5))
    assert open_images(tmp_path / "pets.zip").class_names == ("cat", "dog")


def test_classes_and_sets_within_shards(tmp_path):
    for number in range(2):
        shard(tmp_path / f"s-{number}.tar", [(f"cat/{number}.png", encoded(0)), (f"dog/{number}.png", encoded(9))])
    assert open_images(tmp_path).class_names == ("cat", "dog")
    for name in ("train", "test"):
        (tmp_path / f"tables/default/{name}").mkdir(parents=True)
        parquet.write_table(pa.table({"image": [encoded(1)]}), tmp_path / f"tables/default/{name}/0000.parquet")
    with pytest.raises(DataError, match="2 sets: default/test, default/train"):
        open_images(tmp_path / "tables")
    assert len(open_images(f"{tmp_path}/tables:train")) == 1
    for name in ("cifar10", "cifar100"):
        (tmp_path / "two").mkdir(exist_ok=True)
        parquet.write_table(pa.table({"image": [encoded(1)]}), tmp_path / f"two/{name}.parquet")
    with pytest.raises(DataError, match="2 sets: cifar10, cifar100"):
        open_images(tmp_path / "two")
    assert len(open_images(f"{tmp_path}/two:cifar10")) == 1


def test_masks_beside_images_and_names_that_stand_twice(tmp_path):
    shard(tmp_path / "a.tar", [("0.png", encoded(0)), ("0.seg.png", encoded(1)), ("0.cls", b"3")])
    with pytest.warns(MemlocWarning, match="1 further images of samples in a.tar, such as 0.seg.png, are left out"):
        assert open_images(tmp_path / "a.tar").names == ("0.png",)
    shard(tmp_path / "b.tar", [("cat/1.2020.png", encoded(0)), ("dog/2.2021.png", encoded(1))])
    assert open_images(tmp_path / "b.tar").class_names == ("cat", "dog")
    shard(tmp_path / "c.tar", [("0.png", encoded(0)), ("0.png", encoded(1))])
    with pytest.raises(DataError, match=r"holds '0.png' twice"):
        open_images(tmp_path / "c.tar")


def test_sets_beside_other_images_and_in_archives(tmp_path):
    for name in ("train/cat/1.png", "test/dog/1.png", "preview.png", "extra/3.png"):
        picture(tmp_path / "pets" / name)
    with pytest.raises(DataError, match="holds the sets test, train"):
        open_images(tmp_path / "pets")
    assert open_images(f"{tmp_path}/pets:train").class_names == ("cat",)
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for name in ("train2017/cat/1.png", "val2017/cat/1.png"):
            archive.writestr(name, encoded(5))
    with pytest.raises(DataError, match=r"Pass .*pets.zip:train2017"):
        open_images(tmp_path / "pets.zip")
    assert open_images(f"{tmp_path}/pets.zip:train").names == ("cat/1.png",)


def test_pictures_do_not_hide_tables(tmp_path):
    picture(tmp_path / "assets/logo.png")
    (tmp_path / "data").mkdir()
    parquet.write_table(pa.table({"image": [encoded(1)]}), tmp_path / "data/train-00000-of-00001.parquet")
    with pytest.raises(DataError, match="holds 1 images and 1 shards of tables"):
        open_images(tmp_path)


def test_columns_that_only_may_be_labels(pets, tmp_path):
    (pets / "metadata.csv").write_text("file_name;x;y\ncat/1.png;5;15\n")
    assert open_images(pets).class_names == ("cat", "dog")  # places, not labels
    (pets / "metadata.csv").write_text("file_name;label\n" + "".join(f"{name};007\n" for name in ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png")))  # fmt: skip
    assert open_images(pets).class_names == ("007",)
    parquet.write_table(pa.table({"image": [encoded(1)] * 2, "target": [0.5, 1.5]}), tmp_path / "x.parquet")
    with pytest.warns(MemlocWarning, match="The column 'target' is not read as labels"):
        assert open_images(tmp_path / "x.parquet").labels is None


def test_links_that_lead_nowhere_in_a_folder_that_is_read_as_it_is_used(pets, monkeypatch):
    monkeypatch.setattr("memloc.data._files.MEMORY_LIMIT", 100)
    (pets / "cat/gone.png").symlink_to(pets / "nowhere.png")
    with pytest.raises(DataError, match="a link that leads nowhere"):
        open_images(pets, size=8)
    images = open_images(pets, size=8, max_bad=1)
    assert (len(images), len(images.skipped)) == (4, 1)
    assert images.fingerprint()
    with pytest.raises(DataError, match="Open them with size=4"):
        in_size(images, Fit(4), "the images")


def test_arrays_in_another_order_and_one_image_alone():
    with pytest.raises(ShapeError, match=r"NumPy array of shape \(2, 3, 8, 9\).* images.transpose\(0, 2, 3, 1\)"):
        as_images(np.zeros((2, 3, 8, 9), np.uint8))
    with pytest.warns(MemlocWarning, match=r"is taken for 3 gray images. Pass images\[None\]"):
        assert len(as_images(torch.zeros(3, 8, 8, dtype=torch.uint8))) == 3


def test_metadata_without_labels_with_fractions_and_with_rows_too_many(pets):
    (pets / "metadata.csv").write_text("filename,species\ncat/1.png,cat\n")
    with pytest.warns(MemlocWarning, match="has the columns filename, species and none of labels"):
        assert open_images(pets).class_names == ("cat", "dog")
    names = ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png")
    (pets / "metadata.csv").write_text("file_name,label\n" + "".join(f"{name},0.5\n" for name in names))
    with pytest.raises(DataError, match="is 0.5. Expected a class"):
        open_images(pets)
    (pets / "metadata.csv").write_text("file_name,label\n" + "".join(f"{name},a\n" for name in (*names, "gone.png")))
    with pytest.warns(MemlocWarning, match="1 of 5 rows of metadata.csv name images that are not there"):
        open_images(pets)

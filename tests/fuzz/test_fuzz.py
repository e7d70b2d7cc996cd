"""Readers give one clear error for whatever they are given: no traceback, no hang, no crash; and stop at their limits."""

import gzip
import io
import os
import pickle
import tarfile
import time
import zipfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import savemat

from memloc.data import open_images, open_table
from memloc.data._mat import read_mat
from memloc.data._plain_pickle import unpickled
from memloc.errors import DataError
from tests.cli.command import run
from tests.fuzz.fuzzer import fuzzed
from tests.fuzz.inputs import cifar, every_input, matlab, old_pickle


def fuzz(finished, count, seed):
    wrong, tried, opened = [], 0, 0
    for each in every_input(finished):
        for _, state, text in fuzzed(each, count, seed):
            tried += 1
            opened += state == "opened"
            if state not in ("opened", "refused"):
                wrong.append(f"{each.name}: {state} {text[-400:]}")
    assert not wrong, f"{len(wrong)} of {tried}:\n" + "\n".join(wrong[:5])
    return tried, opened


@pytest.mark.long
def test_sound_files_open_and_mutated_ones_are_opened_or_refused(finished):
    from tests.fuzz.fuzzer import tried

    sound = {each.name: tried(each, each.content)[0] for each in every_input(finished)}
    assert set(sound.values()) == {"opened"}, sound
    count, opened = fuzz(finished, 4, 0)
    assert count > 150
    assert 0 < opened < count / 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_twenty_thousand_mutated_files(finished, seed):
    assert fuzz(finished, 120, seed + 1)[0] > 5000


# ------------------------------------------------------------------ what each reader is for


def test_cifars_pickles_are_read_as_before(tmp_path):
    random = np.random.default_rng(0)
    for name, content in cifar(random).items():
        (tmp_path / name).write_bytes(content)
    found = open_images(tmp_path)
    assert len(found) == 10
    assert found.class_names == ("cat", "dog", "bird", "frog")
    for protocol in (2, 4):
        pixels = random.integers(0, 256, (2, 3), dtype=np.uint8)
        content = {"data": pixels, "labels": [1, 2], "columns": np.asfortranarray(pixels), "one": [np.int64(5)]}
        read = unpickled(pickle.dumps(content, protocol=protocol))
        assert (read["data"] == pixels).all()
        assert (read["columns"] == pixels).all()
        assert read["one"] == [5]


class Calls:
    def __init__(self, *arguments):
        self.arguments = arguments

    def __reduce__(self):
        return self.arguments


def with_state(state):
    """A pickle of an array whose state is another one."""

    class Odd:
        def __reduce__(self):
            return (np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), state)

    return old_pickle({b"data": Odd(), b"labels": [1, 1]})


U1 = np.dtype("u1")


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({b"data": Calls(os.system, ("touch trace",))}),
        pickle.dumps({b"data": Calls(eval, ("open('trace', 'w')",))}),
        pickle.dumps(Calls(getattr, ("a", "upper"))),
        with_state((1, (2, 3072), U1, False, b"short")),  # fewer bytes than the shape
        with_state((1, (-1, 4), U1, False, b"")),
        with_state((1, (2**40, 2**40), U1, False, b"x")),
        with_state((1, (2,), np.dtype("O"), False, b"0" * 16)),  # pointers
        with_state((1, (1,), np.dtype([("a", "O")]), False, b"0" * 8)),
        with_state((1, (1,), np.dtype("U4"), False, b"0" * 16)),
        with_state((1, (4,), np.dtype(">i4"), False, b"0" * 16)),
        with_state((1, (1,) * 70, U1, False, b"x")),
        with_state((1, "x", U1, False, b"")),
        with_state(None),
        b"\x80\x02}q\xff",
        b"\x80\x02r\xff\xff\xff\x7f.",  # a memo of two thousand million
        b"\x80\x04\x8d" + (2**62).to_bytes(8, "little"),
        b"(" * 100_000,
        b"]" * 100_000 + b"a" * 99_999 + b".",
        b"cos\nsystem\n(S'touch trace'\ntR.",
    ],
    ids=range(19),
)
def test_pickles_build_arrays_and_nothing_else(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, sound in cifar(np.random.default_rng(0)).items():
        (tmp_path / name).write_bytes(sound)
    (tmp_path / "data_batch_3").write_bytes(content)
    with pytest.raises(DataError):
        open_images(tmp_path)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("compressed", [True, False])
def test_svhns_files_are_read_as_scipy_writes_them(tmp_path, compressed):
    random = np.random.default_rng(0)
    arrays = {"X": random.integers(0, 256, (32, 32, 3, 5), dtype=np.uint8), "y": np.array([[1], [10], [3], [4], [9]], np.uint8)}  # fmt: skip
    others = {"text": "left out", "cells": np.array([1, "a"], dtype=object), "z": np.array([1 + 2j]), "f": np.eye(2)}
    savemat(tmp_path / "train_32x32.mat", {**arrays, **others}, do_compression=compressed)
    read = read_mat(tmp_path / "train_32x32.mat")
    assert set(read) == {"X", "y", "f"}
    assert (read["X"] == arrays["X"]).all()
    assert (read["f"] == np.eye(2)).all()
    found = open_images(tmp_path / "train_32x32.mat")
    assert found.labels.tolist() == [1, 0, 3, 4, 9]
    (tmp_path / "own.mat").write_bytes(matlab(arrays))
    assert (read_mat(tmp_path / "own.mat")["y"] == arrays["y"]).all()


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif"])
def test_an_image_is_taken_for_what_it_is_and_no_program_is_started(tmp_path, monkeypatch, name):
    monkeypatch.setenv("PATH", "")
    (tmp_path / name).write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    )
    with pytest.raises(DataError, match="cannot identify image file|cannot be read"):
        open_images(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.tmp", "BMP")
    (tmp_path / "a.tmp").rename(tmp_path / name)  # a BMP by another name is read
    assert len(open_images(tmp_path)) == 1


@pytest.mark.parametrize("name", ["set.npz", "set.parquet", "t-images-idx3-ubyte", "t-images-idx3-ubyte.gz", "x.tar.gz", "x.zip", "train_X.bin", "x.mat", "unknown"])  # fmt: skip
def test_pipes_and_devices_are_refused_at_once(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="is no file but a device, pipe or socket"):
        open_images(tmp_path / name)
    with pytest.raises(DataError, match="is no file"):
        open_images("/dev/zero")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(FileNotFoundError):
        open_table(tmp_path / "pipe.csv", "a")


def test_pipes_among_images_are_passed_over(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    (tmp_path / "c").mkdir()
    (tmp_path / "c/up").symlink_to(tmp_path)  # a link to a folder above
    assert open_images(tmp_path).names == ("a.png",)


# ------------------------------------------------------------------ limits


def bomb(path, kind):
    zeros = bytes(5_000_000)
    if kind == "idx":
        path = path / "t-images-idx3-ubyte.gz"
        path.write_bytes(
            gzip.compress(b"\0\0\x08\x03" + (5).to_bytes(4, "big") + (1000).to_bytes(4, "big") * 2 + zeros)
        )
    elif kind == "tar":
        path = path / "x.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            info = tarfile.TarInfo("data_batch_1")
            info.size = len(zeros)
            archive.addfile(info, io.BytesIO(zeros))
    elif kind == "zip":
        path = path / "x.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("data_batch_1", zeros)
    elif kind == "npz":
        path = path / "x.npz"
        np.savez_compressed(path, images=np.zeros((5, 1000, 1000), np.uint8))
    elif kind == "mat":
        path = path / "x.mat"
        path.write_bytes(matlab({"X": np.zeros((32, 32, 3, 1700), np.uint8)}))
    elif kind == "parquet":
        path = path / "x.parquet"
        pd.DataFrame({"image": [zeros]}).to_parquet(path)
    return path


@pytest.mark.parametrize("kind", ["idx", "tar", "zip", "npz", "mat", "parquet"])
def test_what_unfolds_stops_at_the_limit(tmp_path, monkeypatch, kind):
    path = bomb(tmp_path, kind)
    assert path.stat().st_size < 300_000
    monkeypatch.setenv("MEMLOC_MAX_BYTES", "1000000")
    with pytest.raises(DataError, match=r"bytes unpacked. Expected at most 1000000.*MEMLOC_MAX_BYTES="):
        open_images(path)


def test_other_limits(tmp_path, monkeypatch):
    (tmp_path / "set").mkdir()
    Image.new("RGB", (200, 100)).save(tmp_path / "set/a.png")
    monkeypatch.setenv("MEMLOC_MAX_PIXELS", "10000")
    with pytest.raises(DataError, match=r"a.png has 20000 pixels. Expected at most 10000"):
        open_images(tmp_path / "set")
    monkeypatch.delenv("MEMLOC_MAX_PIXELS")
    assert len(open_images(tmp_path / "set")) == 1
    monkeypatch.setenv("MEMLOC_MAX_DEPTH", "2")
    (tmp_path / "set/1/2/3/4").mkdir(parents=True)
    with pytest.raises(DataError, match="3 folders deep. Expected at most 2"):
        open_images(tmp_path / "set")
    monkeypatch.setenv("MEMLOC_MAX_ROWS", "5")
    pd.DataFrame({"a": range(9), "b": range(9)}).to_csv(tmp_path / "t.csv", index=False)
    pd.DataFrame({"a": range(9), "b": range(9)}).to_parquet(tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        with pytest.raises(DataError, match="9 rows. Expected at most 5"):
            open_table(tmp_path / name, "b")
    monkeypatch.setenv("MEMLOC_MAX_ROWS", "many")
    with pytest.raises(DataError, match="MEMLOC_MAX_ROWS is 'many'"):
        open_table(tmp_path / "t.csv", "b")
    monkeypatch.delenv("MEMLOC_MAX_ROWS")
    folder = tmp_path / "cifar"
    folder.mkdir()
    for name, content in cifar(np.random.default_rng(0)).items():
        (folder / name).write_bytes(content if name != "data_batch_1" else old_pickle({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 2**60]}))  # fmt: skip
    with pytest.raises(DataError, match="classes. Expected at most 1000000"):
        open_images(folder)


@pytest.mark.parametrize("shape", [(0, 8, 8), (4, 0, 8), (4, 8, 0, 3), (4, 8, 8, 0)])
def test_images_without_pixels(tmp_path, shape):
    np.savez(tmp_path / "x.npz", images=np.zeros(shape, np.uint8))
    with pytest.raises(DataError, match="at least one pixel"):
        open_images(tmp_path / "x.npz")


def test_names_that_are_no_utf8(tmp_path):
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    with open(os.path.join(os.fsencode(tmp_path), b"caf\xe9.png"), "wb") as file:
        file.write(picture.getvalue())
    found = open_images(tmp_path)
    assert found.names == ("caf\\xe9.png",)
    found.names[0].encode()


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "few.npz", "--out", "x", "--seed", "-1"),
        ("train", "few.npz", "--out", "x", "--seed", "9" * 400),
        ("train", "few.npz", "--out", "x", "--epochs", "9" * 400),
        ("audit", "run", "--out", "x", "--seed", "-1"),
        ("audit", "run", "--out", "x", "--views-seed", "-1"),
        ("audit", "run", "--out", "x", "--views-seed", "9" * 400),
        ("audit", "run", "--out", "x", "--seed", "9" * 400),
        ("value", "table.csv", "--target", "kind", "--out", "x", "--seed", "-1"),
        ("value", "table.csv", "--target", "kind", "--out", "x", "--seed", "9" * 400),
        ("coreset", "table.csv", "--target", "kind", "--out", "x", "--seed", "-1"),
        ("coreset", "table.csv", "--target", "kind", "--out", "x", "--seed", "9" * 400),
        ("demo", "--seed", "-1", "--out", "x"),
        ("demo", "--seed", "9" * 400, "--out", "x"),
    ],
    ids=lambda each: " ".join(each)[:40],
)
def test_seeds_that_are_none(finished, arguments):
    done = run(finished, *arguments)
    assert done.returncode == 2, done.stderr[-600:]
    assert "Traceback" not in done.stderr
    assert len(done.stderr) < 2000
    assert not (finished / "x").exists()


def deep(levels, wrap):
    """An object in which each level holds the one below several times: small on disk, endless to walk."""
    found = wrap("x")
    for _ in range(levels):
        found = wrap(found)
    return found


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02}" + pickle.dumps(deep(60, lambda each: (each, each)), protocol=2)[2:-1] + b"K\x01s.",
        pickle.dumps({b"data": deep(40, lambda each: [each] * 300), b"labels": [0, 0]}),
        pickle.dumps(
            {b"data": np.zeros((2, 3072), np.uint8), b"labels": deep(60, lambda each: [each, each])}, protocol=2
        ),
        pickle.dumps({b"data": {1, 2}, b"labels": [0, 0]}, protocol=4),
    ],
    ids=["keys", "data", "labels", "sets"],
)
def test_small_pickles_that_take_for_ever(tmp_path, content):
    for name, sound in cifar(np.random.default_rng(0)).items():
        (tmp_path / name).write_bytes(sound)
    (tmp_path / "data_batch_1").write_bytes(content)
    began = time.monotonic()
    with pytest.raises(DataError):
        open_images(tmp_path)
    assert time.monotonic() - began < 5


def test_repeated_values_count_as_often_as_they_are_there(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMLOC_MAX_BYTES", "50000000")
    pd.DataFrame({"a": ["x" * 100_000] * 4000, "b": range(4000)}).to_parquet(tmp_path / "t.parquet")
    pd.DataFrame({"image": [b"x" * 100_000] * 4000}).to_parquet(tmp_path / "i.parquet")
    assert max(path.stat().st_size for path in tmp_path.iterdir()) < 1_000_000
    for opening in (lambda: open_table(tmp_path / "t.parquet", "b"), lambda: open_images(tmp_path / "i.parquet")):
        with pytest.raises(DataError, match="bytes unpacked"):
            opening()


def test_every_class_number_has_a_name(tmp_path):
    row = bytes([77]) + bytes(3072)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        (tmp_path / f"{name}.bin").write_bytes(row * 2)
    (tmp_path / "batches.meta.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match="has the class number 77 and 2 names"):
        open_images(tmp_path)

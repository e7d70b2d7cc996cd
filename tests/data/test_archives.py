"""Published archives, MATLAB and hub files, and folders that are read as they are used."""

import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from memloc.data import LazyPixels, _files, as_images, concatenate, open_images
from memloc.errors import DataError, DataNotFoundError, ShapeError

RANDOM = np.random.default_rng(0)


def chw(count, size=32):
    return RANDOM.integers(0, 256, (count, 3, size, size), dtype=np.uint8)


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "cifar-10-batches-py"
    folder.mkdir()
    parts = {**{f"data_batch_{number}": chw(4) for number in range(1, 6)}, "test_batch": chw(3)}
    for name, pixels in parts.items():
        content = {
            b"data": pixels.reshape(len(pixels), -1),
            b"labels": [row % 10 for row in range(len(pixels))],
            b"batch_label": b"x",
        }
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    names = [b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse", b"ship", b"truck"]
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, protocol=2))
    return folder, parts


def test_cifar10_as_a_folder_and_as_archives(cifar10, tmp_path):
    folder, parts = cifar10
    train, test = open_images(folder), open_images(f"{folder}:test")
    expected = np.concatenate([parts[f"data_batch_{number}"] for number in range(1, 6)])
    assert np.array_equal(train.pixels.numpy(), expected)
    assert np.array_equal(test.pixels.numpy(), parts["test_batch"])
    assert train.labels.tolist() == [0, 1, 2, 3] * 5
    assert train.class_names[6] == "frog"
    assert (train.names[5], test.names[0]) == ("cifar-10-batches-py:train[5]", "cifar-10-batches-py:test[0]")
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(folder, "cifar-10-batches-py")
    with zipfile.ZipFile(tmp_path / "cifar.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"deep/{file.name}")
    for name in ("cifar-10-python.tar.gz", "cifar.zip"):
        found = open_images(f"{tmp_path / name}:train")
        assert torch.equal(found.pixels, train.pixels)
        again = open_images(found.source)  # a run opens its images again
        assert torch.equal(again.pixels, found.pixels)
    with pytest.raises(DataError, match=r"has no part 'validation'. .*Expected one of train, test"):
        open_images(f"{folder}:validation")
    small = open_images(folder, size=16)
    assert small.pixels.shape == (20, 3, 16, 16)


def test_a_pickle_that_would_run_code_is_not_opened(cifar10, tmp_path):
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (ran.write_text, ("x",))

    folder = tmp_path / "evil"
    folder.mkdir()
    for number in range(1, 6):
        (folder / f"data_batch_{number}").write_bytes(pickle.dumps({b"data": Evil()}))
    with pytest.raises(DataError, match="is damaged .it would call"):
        open_images(folder)
    assert not ran.exists()
    (folder / "data_batch_1").write_bytes(b"")
    with pytest.raises(DataError, match="is damaged"):
        open_images(folder)
    (folder / "data_batch_2").unlink()
    with pytest.raises(DataError, match="is damaged|lacks 'data_batch_2'"):
        open_images(folder)
    (tmp_path / "cut.tar.gz").write_bytes(b"\x1f\x8b\x08")
    with pytest.raises(DataError, match="no complete archive"):
        open_images(tmp_path / "cut.tar.gz")


def test_cifar100_and_the_binary_versions(tmp_path):
    pixels = chw(6)
    python = tmp_path / "cifar-100-python"
    python.mkdir()
    for part in ("train", "test"):
        content = {b"data": pixels.reshape(6, -1), b"fine_labels": [5, 1, 2, 3, 4, 0], b"coarse_labels": [0] * 6}
        (python / part).write_bytes(pickle.dumps(content, protocol=2))
    (python / "meta").write_bytes(
        pickle.dumps({b"fine_label_names": [f"fine{number}".encode() for number in range(6)]}, protocol=2)
    )
    found = open_images(f"{python}:test")
    assert np.array_equal(found.pixels.numpy(), pixels)
    assert (found.labels.tolist(), found.class_names[5]) == ([5, 1, 2, 3, 4, 0], "fine5")
    for name, label_bytes, files, names in (
        ("cifar-10-batches-bin", 1, [f"data_batch_{number}.bin" for number in range(1, 6)], "batches.meta.txt"),
        ("cifar-100-binary", 2, ["train.bin", "test.bin"], "fine_label_names.txt"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        rows = np.concatenate([np.full((6, label_bytes), 9, np.uint8), pixels.reshape(6, -1)], axis=1)
        rows[:, label_bytes - 1] = [0, 1, 2, 0, 1, 2]  # the fine label comes last
        for file in files:
            (folder / file).write_bytes(rows.tobytes())
        (folder / names).write_text("a\nb\nc\n")
        found = open_images(folder)
        assert np.array_equal(found.pixels[:6].numpy(), pixels)
        assert (found.labels[:6].tolist(), found.class_names) == ([0, 1, 2, 0, 1, 2], ("a", "b", "c"))


def test_stl10_and_svhn(tmp_path):
    from scipy.io import savemat

    pixels = chw(3, 96)
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    for part in ("train", "unlabeled"):
        (folder / f"{part}_X.bin").write_bytes(pixels.transpose(0, 1, 3, 2).tobytes())  # column by column
    (folder / "train_y.bin").write_bytes(bytes([1, 10, 3]))
    (folder / "class_names.txt").write_text(
        "\n".join(["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"])
    )
    found = open_images(folder)
    assert np.array_equal(found.pixels.numpy(), pixels)
    assert [found.class_names[label] for label in found.labels.tolist()] == ["airplane", "truck", "car"]
    assert open_images(f"{folder}:unlabeled").labels is None
    assert torch.equal(open_images(folder / "train_X.bin").pixels, found.pixels)
    digits = chw(4)
    savemat(
        tmp_path / "train_32x32.mat",
        {"X": digits.transpose(2, 3, 1, 0), "y": np.array([[1], [10], [3], [9]], dtype=np.uint8)},
    )
    found = open_images(tmp_path / "train_32x32.mat")
    assert np.array_equal(found.pixels.numpy(), digits)
    assert found.labels.tolist() == [1, 0, 3, 9]
    savemat(tmp_path / "other.mat", {"Z": np.zeros(3)})
    with pytest.raises(DataError, match=r"holds Z. Expected X, uint8"):
        open_images(tmp_path / "other.mat")


def test_a_set_of_the_datasets_library(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    pictures = [Image.fromarray(RANDOM.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(5)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    table = datasets.Dataset.from_dict({"image": pictures, "label": [0, 1, 1, 0, 1]}, features=features)
    datasets.DatasetDict({"train": table, "test": table.select([2])}).save_to_disk(tmp_path / "set")
    found = open_images(f"hf:{tmp_path / 'set'}:train")
    assert np.array_equal(found.pixels[3].permute(1, 2, 0).numpy(), np.asarray(pictures[3]))
    assert [found.class_names[label] for label in found.labels.tolist()] == ["cat", "dog", "dog", "cat", "dog"]
    assert len(open_images(f"hf:{tmp_path / 'set'}:test")) == 1
    unlabelled = datasets.Dataset.from_dict({"image": pictures[:3], "label": [1, None, 0]}, features=features)
    unlabelled.save_to_disk(tmp_path / "partly")
    assert open_images(f"hf:{tmp_path / 'partly'}").labels.tolist() == [1, -1, 0]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataNotFoundError, match="'hf:nobody/nothing' cannot be opened"):
        open_images("hf:nobody/nothing")


@pytest.fixture
def photos(tmp_path):
    for row in range(9):
        place = tmp_path / "photos" / ("cat" if row % 2 else "dog/puppy")
        place.mkdir(parents=True, exist_ok=True)
        mode = ("RGB", "L", "RGBA", "P", "CMYK")[row % 5]
        array = RANDOM.integers(0, 256, (40 + 3 * row, 50, 3), dtype=np.uint8)
        Image.fromarray(array).convert(mode).save(place / f"{row}.{'tif' if mode == 'CMYK' else 'png'}")
    return tmp_path / "photos"


def test_a_folder_beyond_memory_is_read_as_it_is_used(photos, monkeypatch):
    whole = open_images(photos, size=32)
    monkeypatch.setattr(_files, "MEMORY_LIMIT", 1000)
    lazy = open_images(photos, size=32)
    assert isinstance(lazy.pixels, LazyPixels)
    assert (lazy.names, lazy.ids.tolist(), lazy.labels.tolist()) == (
        whole.names,
        whole.ids.tolist(),
        whole.labels.tolist(),
    )
    assert torch.equal(lazy.pixels[:], whole.pixels)
    assert torch.equal(lazy.pixels[2:7], whole.pixels[2:7])
    assert torch.equal(lazy.pixels[4], whole.pixels[4])
    rows = torch.tensor([8, 0, 0, 3])
    assert torch.equal(lazy.take(rows).pixels[torch.tensor([3, 1])], whole.pixels[torch.tensor([3, 0])])
    other = as_images(np.zeros((2, 32, 32, 1), np.uint8))
    both = concatenate(lazy, other)
    assert torch.equal(both.pixels[:], torch.cat([whole.pixels, torch.zeros(2, 3, 32, 32, dtype=torch.uint8)]))
    assert torch.equal(concatenate(other, lazy).pixels[2:], whole.pixels)


def test_an_audit_of_a_folder_beyond_memory_equals_one_in_memory(photos, monkeypatch):
    from memloc import Views, audit
    from memloc.encoders import ResNet9

    torch.manual_seed(0)
    f, g, splits = ResNet9(), ResNet9(), ["candidate"] * 5 + ["independent"] * 4
    one = audit(f, g, images=open_images(photos, size=32), splits=splits, views=Views(n=4))
    monkeypatch.setattr(_files, "MEMORY_LIMIT", 1000)
    with pytest.warns(UserWarning, match="identical copies in different splits were not looked for"):
        two = audit(f, g, images=open_images(photos, size=32), splits=splits, views=Views(n=4))
    assert one.point_layers.equals(two.point_layers)


def test_training_on_a_folder_beyond_memory_equals_one_in_memory(photos, monkeypatch, tmp_path):
    from memloc import train_pair

    settings = {"epochs": 1, "batch_size": 4, "candidates": 2, "workers": 1, "precision": "float32"}
    one = train_pair(open_images(photos, size=32), **settings, out=tmp_path / "one")
    monkeypatch.setattr(_files, "MEMORY_LIMIT", 1000)
    lazy = open_images(photos, size=32)
    two = train_pair(lazy, **settings, out=tmp_path / "two")
    states = [pair.f.module.state_dict() for pair in (one, two)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    with pytest.raises(DataError, match="a part of what a folder holds"):
        train_pair(lazy.take(torch.arange(6)), **settings)


def test_large_folders_are_listed_without_being_opened(tmp_path, monkeypatch):
    for place in range(20):
        (tmp_path / f"class{place}").mkdir()
        for row in range(100):
            (tmp_path / f"class{place}/{row}.jpg").write_bytes(b"no image")
    (tmp_path / "class0/notes.txt").write_text("x")
    monkeypatch.setattr(_files, "MEMORY_LIMIT", 1000)
    found = open_images(tmp_path, size=32)
    assert (len(found), len(found.class_names), found.pixels.shape) == (2000, 20, (2000, 3, 32, 32))
    assert len(found.ids.unique()) == 2000
    with pytest.raises(DataError, match=r"class0/0.jpg in .* cannot be read"):
        found.pixels[:1]


def test_a_torch_dataset_and_its_messages():
    class Set(torch.utils.data.Dataset):
        def __init__(self, sizes):
            self.sizes = sizes

        def __len__(self):
            return len(self.sizes)

        def __getitem__(self, row):
            return Image.fromarray(np.full((self.sizes[row], 8, 3), row, np.uint8)), row % 2

    found = as_images(Set([8, 8, 8]))
    assert (found.pixels[:, 0, 0, 0].tolist(), found.labels.tolist()) == ([0, 1, 2], [0, 1, 0])
    with pytest.raises(ShapeError, match="2 shapes"):
        as_images(Set([8, 9]))


def test_items_of_torch_datasets_in_the_forms_they_come_in():
    red = Image.fromarray(np.full((8, 8, 3), (200, 10, 20), np.uint8))
    gray, palette = Image.fromarray(np.full((8, 8), 7, np.uint8)), red.quantize(4)
    found = as_images([(palette, 0), (red.convert("RGBA"), 1), (gray, np.int64(1))])
    assert found.pixels[:, :, 0, 0].tolist() == [[200, 10, 20], [200, 10, 20], [7, 7, 7]]
    assert found.labels.tolist() == [0, 1, 1]
    rows = as_images([{"image": gray, "label": 1}, {"image": gray, "label": 0}])
    assert (tuple(rows.pixels.shape), rows.labels.tolist()) == ((2, 1, 8, 8), [1, 0])
    assert tuple(as_images([torch.zeros(8, 8, dtype=torch.uint8)] * 2).pixels.shape) == (2, 1, 8, 8)
    for items, error, said in (
        ([(red, 0.5)] * 2, DataError, "the label of image 0 of the dataset is 0.5. Expected a class"),
        ([(red, np.array([0, 1]))] * 2, DataError, "the label of image 0"),
        (
            [{"photo": red}] * 2,
            DataError,
            "item 0 of the dataset is a dict of 'photo'. Expected an image under 'image'",
        ),
        (["a.png", "b.png"], ShapeError, "item 0 of the dataset is a str. Expected a PIL image"),
        ([torch.zeros(2, 3, 8, 8)] * 2, ShapeError, r"a tensor of shape \(2, 3, 8, 8\)"),
    ):
        with pytest.raises(error, match=said):
            as_images(items)


def test_folders_of_tables_and_notes_of_macos(tmp_path):
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "._a.png").write_bytes(b"note")
    assert len(open_images(tmp_path)) == 2
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/train.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="train.parquet is no readable parquet file"):
        open_images(tmp_path / "tables")

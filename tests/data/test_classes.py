"""Labels and classes as people have them: what is missing, what is a name, and how two labelled sets meet."""

import decimal
import fractions

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image
from torch import nn

from memloc.coreset import Crust, train_robust
from memloc.data import Images, as_images, concatenate, matched_labels, open_images
from memloc.data._labels import number_labels, plain_labels
from memloc.errors import DataError
from memloc.probe import check_probe

PIXELS = np.zeros((4, 8, 8, 1), np.uint8)
SHADES = {"a": 40, "b": 130, "c": 220}


def named(names, classes, **more):
    """Images whose shade is their class, with class numbers of a list of names."""
    pixels = torch.stack([torch.full((1, 8, 8), SHADES.get(name, 0), dtype=torch.uint8) for name in names])
    labels = torch.tensor([classes.index(name) for name in names])
    return Images(pixels, torch.arange(len(names)), tuple(map(str, range(len(names)))), labels, tuple(classes), **more)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (3, 3),
        (np.int8(3), 3),
        (3.0, 3),
        (np.float32(2), 2),
        (decimal.Decimal(4), 4),
        (torch.tensor(1), 1),
        (np.array([1]), 1),
        (True, "True"),
        (np.bool_(False), "False"),
        ("²", "²"),
        ("--3", "--3"),
        (b"cat", "cat"),
        ("None", "None"),
        ("NA", "NA"),
        ("nan", "nan"),
        ("null", "null"),
        (None, None),
        (float("nan"), None),
        (pd.NA, None),
        (pd.NaT, None),
        ("", None),
        (-1, None),
        (-2.0, None),
    ],
    ids=repr,
)
def test_every_kind_of_label(value, plain):
    assert plain_labels([value], "the set") == [plain]


@pytest.mark.parametrize(
    "value", [0.5, float("inf"), fractions.Fraction(1, 3), b"\xff", 2**70, [1, 2], {"a": 1}, 1 + 2j], ids=repr
)
def test_what_is_no_class_is_refused(value):
    with pytest.raises((DataError, TypeError), match=r"the label of image 0 of the set is|complex"):
        plain_labels([value], "the set")


def test_booleans_among_numbers_are_numbers():
    assert plain_labels([True, 0, np.array([1]), None], "the set") == [1, 0, 1, None]


def test_one_missing_label_leaves_the_others():
    assert as_images(PIXELS, labels=[7, None, 5, -1]).labels.tolist() == [7, -1, 5, -1]
    assert as_images(PIXELS, labels=pd.Series(["b", "a", None, "b"], index=[3, 1, 9, 0])).labels.tolist() == [
        1,
        0,
        -1,
        1,
    ]
    items = [(image, label) for image, label in zip(PIXELS, [1, None, 0, 1], strict=True)]
    assert as_images(items).labels.tolist() == [1, -1, 0, 1]
    for wrong in ([0.7, 1.2, 0, 1], torch.tensor([0.0, 1.0, float("inf"), 0.0])):
        with pytest.raises(DataError, match="Expected a class"):
            as_images(PIXELS, labels=wrong)


@pytest.mark.parametrize("key", ["label", "labels", "fine_label", "target", "targets", "class", "category", "y"])
def test_dicts_call_their_labels_many_things(key):
    images = as_images([{"image": image, key: number} for number, image in enumerate(PIXELS)])
    assert images.labels.tolist() == [0, 1, 2, 3]


def test_datasets_tell_their_classes():
    class Folder(list):
        classes = ("cat", "dog")

    items = Folder((image, number % 2) for number, image in enumerate(PIXELS))
    assert as_images(items).class_names == ("cat", "dog")
    part = torch.utils.data.Subset(items, [1, 2])
    assert (as_images(part).labels.tolist(), as_images(part).class_names) == ([1, 0], ("cat", "dog"))


@pytest.mark.parametrize(
    ("labels", "numbers", "names"),
    [
        (np.array([2.0, 0.0, 10.0, 2.0]), [1, 0, 2, 1], ("0", "2", "10")),
        (np.array(["b", "a", "None", "b"]), [2, 1, 0, 2], ("None", "a", "b")),
        (np.array([b"b", b"a", b"a", b"b"]), [1, 0, 0, 1], ("a", "b")),
        (np.array(["²", "1", "1", "²"]), [1, 0, 0, 1], ("1", "²")),
    ],
)
def test_labels_of_npz(tmp_path, labels, numbers, names):
    np.savez(tmp_path / "x.npz", images=PIXELS, labels=labels)
    images = open_images(tmp_path / "x.npz")
    assert (images.labels.tolist(), images.class_names) == (numbers, names)
    np.savez(tmp_path / "half.npz", images=PIXELS, labels=np.array([0.5, 1, 2, 3]))
    with pytest.raises(DataError, match=r"the label of image 0 of half.npz is 0.5"):
        open_images(tmp_path / "half.npz")


def test_labels_of_parquet(tmp_path):
    Image.fromarray(PIXELS[0, ..., 0]).save(tmp_path / "x.png")
    content = (tmp_path / "x.png").read_bytes()
    features = b'{"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}'
    for column, values, numbers, names in (
        ("target", [1, None, 0], [1, -1, 0], ("0", "1")),
        ("label", [b"dog", b"cat", b"dog"], [1, 0, 1], ("cat", "dog")),
        ("label", [1, 0, 1], [1, 0, 1], ("cat", "dog")),
    ):
        table = pa.table({"image": [content] * 3, column: values})
        if values == [1, 0, 1]:
            table = table.replace_schema_metadata({b"huggingface": features})
        parquet.write_table(table, tmp_path / "x.parquet")
        images = open_images(tmp_path / "x.parquet")
        assert (images.labels.tolist(), images.class_names) == (numbers, names)
    parquet.write_table(pa.table({"image": [content] * 2, "label": [[0, 1], [1]]}), tmp_path / "lists.parquet")
    with pytest.raises(DataError, match=r"is '\[0, 1\]', a list"):
        open_images(tmp_path / "lists.parquet")


def test_numbers_beyond_the_names_are_refused():
    with pytest.raises(DataError, match=r"has the class 2 and 2 names"):
        number_labels([0, 2], 2, "the set", ("cat", "dog"))
    assert number_labels(["dog", 0], 2, "the set", ("cat", "dog"))[0].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("classes", "names"),
    [("abc", "abccba"), ("cba", "abccba"), ("bc", "bccb"), ("c", "cc"), ("xabc", "abc")],
    ids=["the same", "another order", "lacks the first", "one alone", "a further name, unused"],
)
def test_classes_meet_by_name(classes, names):
    known, other = named("aabbcc" * 5, "abc"), named(names, classes)
    assert matched_labels(known, other).tolist() == ["abc".index(name) for name in names]


@pytest.mark.parametrize(
    ("known", "other", "message"),
    [
        (named("abc", "abc"), named("abx", "abx"), "1 of 3 classes that the training images lack, such as 'x'"),
        (named("abc", "abc"), named("AB", "AB"), "2 of 2 classes that the training images lack, such as 'A'"),
        (named("abc", "abc"), named("01", "01"), "2 of 2 classes .* such as '0'"),
        (as_images(PIXELS, labels=[0, 1, 2, 0]), named("ab", "ab"), "name their classes .* and the training images"),
        (named("ab", "ab"), as_images(PIXELS, labels=[0, 1, 2, 0]), "1 of 3 classes .* such as '2'"),
    ],
)
def test_other_classes_are_refused(known, other, message):
    with pytest.raises(DataError, match=message):
        matched_labels(known, other)


class Shade(nn.Module):
    """Tells three shades apart without training."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images):
        shades = torch.tensor(list(SHADES.values())) / 255
        return -self.scale * (images.mean(dim=(1, 2, 3))[:, None] - shades).abs() * 50


@pytest.mark.parametrize("classes", ["abc", "bc", "cab", "c"])
def test_a_robust_training_is_tested_by_name(classes):
    train, test = named("abc" * 8, "abc"), named(classes * 2, classes)
    run = train_robust(Shade(), train, test=test, crust=None, epochs=1, warmup=1, learning_rate=1e-6)
    assert run.history["test_accuracy"].item() == 1.0
    with pytest.raises(DataError, match="such as 'x'"):
        train_robust(Shade(), train, test=named("abx", "abx"), crust=None, epochs=1, warmup=1)


def test_probes_and_joined_sets_meet_by_name(tiny):
    from memloc import load_encoder

    encoder = load_encoder(tiny(0), shape=(1, 8, 8))
    check_probe(encoder, named("aabbcc", "abc"), named("bbcc", "bc"), kind="knn", neighbours=1)
    with pytest.raises(DataError, match="such as 'x'"):
        check_probe(encoder, named("aabb", "ab"), named("ax", "ax"), kind="knn", neighbours=1)
    both = concatenate(named("ab", "ab"), named("bc", "bc"))
    assert (both.labels.tolist(), both.class_names) == ([0, 1, 1, 2], ("a", "b", "c"))
    with pytest.raises(DataError, match="names its classes .* and the other numbers"):
        concatenate(named("ab", "ab"), as_images(PIXELS, labels=[0, 1, 2, 0]))


def test_estimators_are_tested_on_numbers_alone():
    from sklearn.linear_model import LogisticRegression

    X = np.arange(40.0)[:, None]
    y = (X[:, 0] > 20).astype(int)
    with pytest.raises(DataError, match="Number the classes"):
        train_robust(LogisticRegression(), (X, y), test=(X, y.astype(str)), crust=Crust(), folds=2, rounds=1)


def test_given_labels_replace_those_of_the_set_and_odd_numbers_their_names():
    images = named("ab", "ab")
    assert as_images(images, labels=["in", "out"]).class_names == ("in", "out")
    assert as_images(images, labels=[5, 7]).class_names == ()

    class Folder(list):
        classes = ("cat", "dog")

    assert as_images(Folder(zip(PIXELS, [10, 11, 12, 10], strict=True))).class_names == ()

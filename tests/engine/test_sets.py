"""The sets of an audit in Python, in every form that images take; copies among them; and words in which it warns."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from memloc import Views, as_images, audit, load_encoder, open_images, write_report
from memloc.data import concatenate
from memloc.engine._sets import joined_sets, splits_of
from memloc.errors import DataError, MemlocWarning, SpecError, in_python, typed

VIEWS = Views(n=2)


def pictures(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def encoder(tiny):
    return load_encoder(tiny(0, channels=3), shape=(3, 8, 8), mean=0.5, std=0.5)


def in_form(form, images, folder):
    if form == "array":
        return images
    if form == "tensor":
        return torch.from_numpy(images).permute(0, 3, 1, 2)
    if form == "Images":
        return as_images(images)
    if form == "dataset":
        return [(Image.fromarray(each), 0) for each in images]
    if form == "npz":
        np.savez(folder / "x.npz", images=images)
        return folder / "x.npz"
    for number, each in enumerate(images):
        (folder / "pictures").mkdir(exist_ok=True)
        Image.fromarray(each).save(folder / f"pictures/{number}.png")
    return str(folder / "pictures")


@pytest.mark.parametrize("form", ["array", "tensor", "Images", "dataset", "npz", "folder"])
def test_sets_in_every_form_give_what_images_with_splits_give(form, encoder, tmp_path):
    candidate, external = pictures(6, 0), pictures(5, 1)
    plain = audit(encoder, images=np.concatenate([candidate, external]), splits=["candidate"] * 6 + ["external"] * 5, views=VIEWS)  # fmt: skip
    found = audit(encoder, candidate=in_form(form, candidate, tmp_path), external=external, views=VIEWS)
    assert sorted(found.points["split"]) == sorted(plain.points["split"])
    if form != "folder":  # whose ids are of their paths, so that other views are drawn
        pd.testing.assert_frame_equal(found.layers, plain.layers)


def test_further_sets_beside_images(encoder):
    found = audit(encoder, images=pictures(6, 0), external=pictures(5, 1), views=VIEWS)
    assert found.points["split"].tolist() == ["candidate"] * 6 + ["external"] * 5
    splits = ["candidate"] * 4 + ["shared"] * 2
    found = audit(encoder, images=pictures(6, 0), splits=splits, external=pictures(5, 1), views=VIEWS)
    assert found.points["split"].tolist() == [*splits, *["external"] * 5]


@pytest.mark.parametrize(
    "splits",
    [
        {"candidate": [0, 1, 2, 3], "external": [4, 5]},
        {"external": np.array([4, 5]), "candidate": torch.arange(4)},
        {0: "candidate", 1: "candidate", 2: "candidate", 3: "candidate", 4: "external", 5: "external"},
        pd.Series(["candidate"] * 4 + ["external"] * 2),
        (each for each in ["candidate"] * 4 + ["external"] * 2),
    ],
    ids=["ids of splits", "arrays", "splits of ids", "a series", "a generator"],
)
def test_splits_in_every_form(splits, encoder):
    found = audit(encoder, images=pictures(6, 0), splits=splits, views=VIEWS)
    assert found.points["split"].tolist() == ["candidate"] * 4 + ["external"] * 2


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, SpecError, "there are no images. .* Pass images=, or candidate="),
        ({"external": pictures(3, 0)}, SpecError, "there are no candidates"),
        ({"images": pictures(3, 0), "candidate": pictures(3, 0)}, SpecError, "images is given beside candidate"),
        ({"candidate": pictures(3, 0), "splits": ["candidate"] * 3}, SpecError, "splits, points or labels are given"),
        (
            {"candidate": pictures(3, 0), "external": np.zeros((3, 9, 9), np.uint8)},
            DataError,
            "cannot be audited together",
        ),
        (
            {"images": pictures(3, 0), "splits": {"candidate": [0, 1]}},
            SpecError,
            "1 of 3 points are in none, such as 2",
        ),
        ({"images": pictures(3, 0), "splits": {"candidate": [0, 1, 2, 9]}}, SpecError, "9 is no id of a point"),
        (
            {"images": pictures(3, 0), "splits": {"candidate": [0, 1], "external": [1, 2]}},
            SpecError,
            "1 points are in two",
        ),
    ],
)
def test_wrong_sets(arguments, error, message, encoder):
    with pytest.raises(error, match=message):
        audit(encoder, views=VIEWS, **arguments)


def test_joining_and_naming_by_hand():
    images, splits, own = joined_sets({"external": pictures(2, 0), "candidate": pictures(3, 1)})
    assert (len(images), splits, own) == (5, ["candidate"] * 3 + ["external"] * 2, 3)
    assert splits_of(None, images) is None


@pytest.mark.parametrize("alone", [True, False], ids=["one encoder", "f and g"])
def test_external_copies_of_trained_images_are_left_out(alone, tiny):
    f, g = (load_encoder(tiny(seed, channels=3), shape=(3, 8, 8), mean=0.5, std=0.5) for seed in (0, 1))
    candidate, external = pictures(6, 0), pictures(5, 1)
    wrong = external.copy()
    wrong[2] = candidate[4]
    with pytest.warns(MemlocWarning, match=r"1 external images are identical copies of images that were trained on"):
        found = audit(f, None if alone else g, candidate=candidate, external=wrong, views=VIEWS)
    assert not any("reference that has seen" in text for text in found.warnings)
    kept = np.delete(external, 2, axis=0)
    ids = [*range(6), 6, 7, 9, 10]
    images = as_images(np.concatenate([candidate, kept]), points=ids)
    plain = audit(f, None if alone else g, images=images, splits=["candidate"] * 6 + ["external"] * 4, views=VIEWS)
    pd.testing.assert_frame_equal(found.layers, plain.layers)
    assert found.points["point"].tolist() == ids


def test_copies_between_candidates_and_what_g_saw_are_said(tiny):
    f, g = (load_encoder(tiny(seed, channels=3), shape=(3, 8, 8), mean=0.5, std=0.5) for seed in (0, 1))
    candidate, independent = pictures(6, 0), pictures(5, 1)
    independent[0] = candidate[3]
    with pytest.warns(MemlocWarning, match="A reference that has seen a candidate cannot show"):
        audit(f, g, candidate=candidate, independent=independent, views=VIEWS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*copies")
        audit(f, images=np.concatenate([candidate, candidate[:1]]), splits=["candidate"] * 6 + ["shared"], views=VIEWS)


def test_warnings_name_arguments_once_at_the_callers_line(tiny):
    images = pictures(6, 0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        audit(tiny(0, channels=3), images=images, views=VIEWS)
    found = [each for each in caught if issubclass(each.category, MemlocWarning)]
    assert {each.filename for each in found} == {__file__}
    texts = [str(each.message) for each in found]
    assert len(texts) == len(set(texts))
    assert not any("--" in text for text in texts)
    assert any("Pass mean= and std=" in text for text in texts)


@pytest.mark.parametrize(
    ("flags", "arguments"),
    [
        ("Pass --size 32 (at most).", "Pass size=32 (at most)."),
        ("Pass --mean and --std together.", "Pass mean= and std= together."),
        ("Pass --external sample:test, or --held-out 0.", "Pass external=sample:test, or held_out=0."),
        ("Leave --strip-prefix out.", "Leave strip_prefix= out."),
        ("Type: memloc audit RUN --out DIR, or more.", "Type: memloc audit RUN --out DIR, or more."),
        ("See memloc layers --help. Pass --layers fine.", "See memloc layers --help. Pass layers=fine."),
        ("nothing -- to say", "nothing -- to say"),
    ],
)
def test_flags_become_arguments_in_python(flags, arguments):
    assert in_python(flags) == arguments
    assert str(DataError(flags)) == arguments
    with typed():
        assert str(DataError(flags)) == flags


def test_bands_of_two_sets_must_agree():
    with pytest.raises(DataError, match="as many channels in both"):
        concatenate(as_images(np.zeros((2, 8, 8, 4), np.uint8)), as_images(np.zeros((2, 8, 8, 3), np.uint8)))


def test_five_channels_are_audited_without_colours(tmp_path):
    net = torch.nn.Sequential(torch.nn.Conv2d(5, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 3))
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 5), dtype=np.uint8)
    assert len(audit(net, images=images, views=Views("crop", n=2)).layers)
    with pytest.raises(SpecError, match=r"5 channels and the views change colours.* Pass views=Views\('crop'\)"):
        audit(net, images=images, views=VIEWS)
    np.savez(tmp_path / "x.npz", images=images)
    assert open_images(tmp_path / "x.npz").pixels.shape == (8, 5, 8, 8)


def test_a_size_that_is_asked_for_is_not_left_out(encoder):
    with pytest.raises(DataError, match="smaller than a view of 16x16"):
        audit(encoder, images=pictures(6, 0), size=16, views=VIEWS)


def test_a_copy_among_external_images_hides_no_other(tiny):
    f, g = (load_encoder(tiny(seed, channels=3), shape=(3, 8, 8), mean=0.5, std=0.5) for seed in (0, 1))
    candidate, independent, external = pictures(6, 0), pictures(5, 1), pictures(5, 2)
    independent[1] = candidate[3]
    external[3] = candidate[0]  # of the same name as candidate 3
    with pytest.warns(MemlocWarning, match="A reference that has seen a candidate cannot show"):
        audit(f, g, candidate=candidate, independent=independent, external=external, views=VIEWS)


def test_unreadable_files_are_accepted_in_python_too(encoder, tmp_path):
    for number, each in enumerate(pictures(6, 0)):
        Image.fromarray(each).save(tmp_path / f"{number}.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="max_bad=1"):
        audit(encoder, images=tmp_path, views=VIEWS)
    assert len(audit(encoder, images=tmp_path, max_bad=1, views=VIEWS).points) == 6


def test_the_report_says_what_reaches_the_encoder(encoder, tmp_path):
    audit(encoder, candidate=pictures(6, 0), views=VIEWS, out=tmp_path / "found")
    page = write_report(tmp_path / "found").read_text()
    assert "What reaches the encoder, and what is read of it: TinyNet: mean 0.5; std 0.5." in page


def test_numbers_as_they_are_typed(tiny):
    images = pictures(6, 0)
    typed_in = audit(tiny(0, channels=3), images=images, views=2, mean="0.5,0.4,0.3", std="0.2, 0.2, 0.2")
    given = load_encoder(tiny(0, channels=3), shape=(3, 8, 8), mean=(0.5, 0.4, 0.3), std=[0.2] * 3)
    pd.testing.assert_frame_equal(typed_in.layers, audit(given, images=images, views=VIEWS).layers)
    with pytest.raises(SpecError, match="Expected a number per channel"):
        audit(tiny(0, channels=3), images=images, views=2, mean="half", std="one")


def test_gray_beside_colour_is_said(encoder):
    with pytest.warns(MemlocWarning, match="may be colour rather than training"):
        audit(encoder, candidate=pictures(6, 0), external=pictures(5, 1)[..., :1], views=VIEWS)

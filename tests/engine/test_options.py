"""Options of the definitions: pairs with the image itself, protocols, range scaling, earlier checkpoints."""

import numpy as np
import pytest
import torch
from tests.conftest import few_draws

from memloc import Views, audit
from memloc.encoders import ResNet9
from memloc.engine import PROTOCOLS
from memloc.errors import MemlocWarning, SpecError
from memloc.metrics import unitmem
from memloc.report import summarize


@pytest.fixture
def pair(tiny):
    return tiny(0).eval(), tiny(1).eval()


def output_alignment(net, gray, views, point):
    """Mean distance of the image itself to each view, written from the definition."""
    image = torch.from_numpy(gray[point : point + 1]).permute(0, 3, 1, 2)
    drawn = Views(views.policy, n=views.n, seed=views.seed, sampling=views.sampling).draw(image, torch.tensor([point]))[
        0
    ]
    with torch.no_grad():
        whole, seen = net(image.float() / 255), net(drawn)
    unit = torch.nn.functional.normalize
    return float((unit(whole, dim=1) - unit(seen, dim=1)).norm(dim=1).mean()), seen.clamp_min(0).mean(dim=0)


def test_pairs_of_the_image_with_its_views(pair, gray, four_splits):
    views = Views("weak", n=5, seed=2, sampling="independent", original=True)
    found = audit(*pair, images=gray, splits=four_splits, views=views)
    f, g = ([output_alignment(net, gray, views, point) for point in range(40)] for net in pair)
    score = np.array([(b[0] - a[0]) / (b[0] + a[0]) for a, b in zip(f, g, strict=True)])
    assert np.allclose(found.points.sort_values("point")["sslmem"], score, atol=2e-5)
    trained = [row for row, split in enumerate(four_splits) if split in ("shared", "candidate")]
    means = torch.stack([f[row][1] for row in trained])  # the image itself is no augmentation: it is not in UnitMem
    units = found.units[found.units["layer"] == "output"]
    assert np.allclose(units["unitmem"], unitmem(means).value, atol=1e-4)
    assert found.points["sslmem_low"].notna().all()
    assert (found.points["sslmem_low"] < found.points["sslmem"]).all()


def test_the_published_code(pair, gray, four_splits):
    found = audit(*pair, images=gray, splits=four_splits, protocol="published-code")
    assert found.record["views"]["n"] == 5
    assert found.record["views"]["original"]
    assert found.record["spec"]["options"]["rest"] == "median"
    points, candidate = found.points, found.points["split"] == "candidate"
    last = found.layers.iloc[-1]
    raw = points["sslmem_raw"]
    assert last["layermem"] == pytest.approx((raw[candidate] / (raw[candidate].max() - raw[candidate].min())).mean())
    assert last["layermem"] == pytest.approx(points["sslmem_range"][candidate].mean())
    of_output = found.point_layers[found.point_layers["layer"] == "output"].set_index("point")["sslmem"]
    assert np.allclose(
        of_output[points["point"]], points["sslmem"]
    )  # per point the ratio stays, with the range beside it
    assert last["low"] < last["layermem"] < last["high"]
    ratio = audit(*pair, images=gray, splits=four_splits, protocol="published-code", scale="ratio")
    assert ratio.layers["layermem"].iloc[-1] == pytest.approx(points["sslmem"][candidate].mean())


def test_the_papers_text(pair, gray, four_splits):
    found = audit(*pair, images=gray, splits=four_splits, protocol="paper")
    assert (found.record["views"]["n"], found.record["views"]["sampling"], found.record["views"]["policy"]) == (
        10,
        "independent",
        "normal-paper",
    )
    same = audit(*pair, images=gray, splits=four_splits, views=Views("normal-paper", n=10, sampling="independent"))
    assert np.allclose(found.layers["layermem"], same.layers["layermem"])
    marked = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    marked[..., :4] = 255  # bright on the left
    views = Views("normal-paper", n=64).draw(marked, torch.tensor([3]))[0, :, 0]
    bright_right = views[:, :, 4:].mean((1, 2)) >= views[:, :, :4].mean((1, 2))
    assert bright_right.all()  # every view is flipped
    with pytest.raises(SpecError, match="no protocol 'papr'. Nearest: 'paper'"):
        audit(*pair, images=gray, splits=four_splits, protocol="papr")
    assert PROTOCOLS["memloc"]["views"] == Views().n


def test_an_earlier_checkpoint_as_reference(pair, gray, four_splits):
    splits = ["external" if split == "independent" else split for split in four_splits]
    with pytest.warns(MemlocWarning, match="earlier checkpoint of f, so it has seen the candidates"):
        found = audit(*pair, images=gray, splits=splits, views=Views(n=4), earlier=True)
    assert found.record["reference"] == "earlier checkpoint"
    assert found.layers["layermem_calibrated"].isna().all()
    assert found.layers["layermem_own"].notna().all()
    candidate = found.points["split"] == "candidate"
    assert found.points["align_out"][candidate].isna().all()  # both encoders have seen them
    plain = audit(*pair, images=gray, splits=splits, views=Views(n=4))
    assert np.allclose(plain.points["sslmem"], found.points["sslmem"])
    assert "earlier checkpoint" in summarize(found)["answer"][2]
    with few_draws():
        several = audit([pair[0]] * 3, [pair[1]] * 3, images=gray, splits=splits, views=Views(n=4), earlier=True)
    assert several.layers["low"].notna().all()
    with pytest.raises(SpecError, match="independent points and g is an earlier checkpoint"):
        audit(*pair, images=gray, splits=four_splits, views=Views(n=4), earlier=True)
    with pytest.raises(SpecError, match="earlier is set without g"):
        audit(pair[0], images=gray, splits=splits, views=Views(n=4), earlier=True)


def test_one_view_has_no_alignment(pair, gray, four_splits):
    with pytest.raises(SpecError, match="n is 1 view. Expected at least 2"):
        audit(*pair, images=gray, splits=four_splits, views=Views(n=1, sampling="independent"))
    audit(*pair, images=gray, splits=four_splits, views=Views(n=1, sampling="independent", original=True))


def test_gray_images_for_three_channels_are_repeated_and_it_is_said(gray, four_splits):
    nets = [ResNet9() for _ in range(2)]
    with pytest.warns(MemlocWarning, match="the gray channel is repeated"):
        one = audit(*nets, images=gray, splits=four_splits, views=Views(n=4))
    two = audit(*nets, images=np.repeat(gray, 3, axis=3), splits=four_splits, views=Views(n=4))
    assert np.allclose(one.points["sslmem"], two.points["sslmem"], atol=1e-4)  # hues of gray round


@pytest.mark.parametrize("distance", ["l2", "l1", "cosine", "angular"])
def test_every_distance_gives_bounded_scores(pair, gray, four_splits, distance):
    found = audit(*pair, images=gray, splits=four_splits, views=Views(n=4), distance=distance)
    assert found.points["sslmem"].abs().max() <= 1
    assert found.points["sslmem"].std() > 0


def test_the_published_code_draws_views_of_its_own_for_units(gray, four_splits, tiny):
    """Ten views by its own jitter; the range of raw scores is that of the candidates."""
    found = audit(tiny(0), tiny(1), images=gray, splits=four_splits, protocol="published-code")
    assert found.record["spec"]["unit_views"]["policy"] == "published-units"
    assert found.record["timings"]["forward_passes"] == 40 * (6 * 2 + 10)  # the image and five views; ten for units
    drawn = Views("published-units", n=10, sampling="independent").draw(
        torch.from_numpy(gray).permute(0, 3, 1, 2), torch.arange(40)
    )
    with torch.no_grad():
        net = tiny(0).eval()
        active = net.act1(net.norm1(net.conv1(drawn.flatten(0, 1)))).mean(dim=(2, 3)).unflatten(0, (40, 10)).mean(dim=1)
    trained = [number for number, split in enumerate(four_splits) if split in ("candidate", "shared")]
    expected = unitmem(active[trained], rest="median").value
    units = found.units[found.units["layer"] == "conv1"]
    assert units["unitmem"].to_numpy() == pytest.approx(expected.numpy(), abs=1e-5)
    points = found.points
    raw = points.loc[points["split"] == "candidate", "sslmem_raw"]
    assert points["sslmem_range"].to_numpy() == pytest.approx(points["sslmem_raw"] / (raw.max() - raw.min()))
    assert found.layers["layermem"].iloc[-2] == pytest.approx((raw / (raw.max() - raw.min())).mean())
    plain = audit(tiny(0), tiny(1), images=gray, splits=four_splits)
    assert "unit_views" not in plain.record["spec"]

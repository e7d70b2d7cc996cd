"""Views: laws, hand-computed and Pillow golden values, and messages."""

import numpy as np
import pytest
import torch
from PIL import Image

from memloc.errors import DataError, ShapeError, SpecError
from memloc.views import AUTO_COUNTS, POLICIES, Policy, Views
from memloc.views._apply import _hue, apply_views
from memloc.views._parameters import COLUMNS, Parameters


def images(count=6, channels=3, height=32, width=32, seed=0):
    return torch.randint(
        0, 256, (count, channels, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def fixed(count, rows, columns, **changes):
    """Parameters that leave an image as it is, but for the changes."""
    zero, no = torch.zeros(count, dtype=torch.int64), torch.zeros(count, dtype=torch.bool)
    one = torch.ones(count, dtype=torch.float64)
    values = {
        "top": zero, "left": zero, "height": zero + rows, "width": zero + columns, "flip": no, "vertical_flip": no, "jitter": no,
        "brightness": one, "contrast": one, "saturation": one, "hue": one * 0, "order": zero, "grayscale": no, "blur": no, "sigma": one,
        "invert": no, "masked": None,
    }  # fmt: skip
    return Parameters(**{**values, **{key: torch.as_tensor(value) for key, value in changes.items()}})


def draw(picture, policy, size=(32, 32), **changes):
    return apply_views(
        picture, torch.zeros(1, dtype=torch.int64), fixed(1, *picture.shape[2:], **changes), policy, size
    )[0]


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("sampling", ["sobol", "independent"])
def test_views_do_not_depend_on_the_batch(policy, channels, sampling):
    views, pictures, ids = (
        Views(policy, n=6, seed=4, sampling=sampling),
        images(channels=channels),
        torch.tensor([9, 3, 77, 2**40, 5, 6]),
    )
    whole = views.draw(pictures, ids)
    assert whole.shape == (6, 6, channels, 32, 32)
    assert whole.min() >= 0
    assert whole.max() <= 1
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert torch.allclose(views.draw(pictures[order], ids[order]), whole[order], atol=1e-6)
    alone = torch.cat([views.draw(pictures[row : row + 1], ids[row : row + 1]) for row in range(6)])
    assert torch.allclose(alone, whole, atol=1e-6)
    later = Views(policy, n=2, seed=4, sampling=sampling).draw(pictures, ids, first=4)
    assert torch.allclose(later, whole[:, 4:], atol=1e-6)


def test_identity_is_exact():
    picture = images(1)
    assert torch.allclose(draw(picture, Policy()), picture[0] / 255, atol=1e-6)


def test_crop_resize_by_hand():
    """A 2x2 crop enlarged to 4x4: bilinear weights 3/4 and 1/4, clamped at the border."""
    picture = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    picture[0, 0, 1:3, 1:3] = torch.tensor([[0, 100], [200, 60]], dtype=torch.uint8)
    found = draw(picture, Policy(), (4, 4), top=[1], left=[1], height=[2], width=[2]) * 255
    weights = torch.tensor([[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]])
    expected = weights @ torch.tensor([[0.0, 100.0], [200.0, 60.0]]) @ weights.T
    assert torch.allclose(found[0], expected, atol=1e-3)


@pytest.mark.parametrize("box", [(0, 0, 40, 52), (3, 5, 30, 41), (10, 2, 9, 17)])
def test_crop_resize_against_pillow(box):
    top, left, height, width = box
    picture = images(1, 3, 40, 52)
    found = draw(picture, Policy(), (24, 24), top=[top], left=[left], height=[height], width=[width]) * 255
    pillow = Image.fromarray(picture[0].permute(1, 2, 0).numpy()).crop((left, top, left + width, top + height))
    expected = np.asarray(pillow.resize((24, 24), Image.Resampling.BILINEAR), dtype=float)
    assert np.abs(found.permute(1, 2, 0).numpy() - expected).max() < 1.01  # Pillow rounds to whole values twice


def test_flips_are_flips():
    picture = images(1)
    assert torch.allclose(draw(picture, Policy(), flip=[True]), (picture[0] / 255).flip(2), atol=1e-6)
    assert torch.allclose(draw(picture, Policy(), vertical_flip=[True]), (picture[0] / 255).flip(1), atol=1e-6)


def test_jitter_parts_by_hand():
    picture = torch.tensor([[[[40, 200]], [[80, 10]], [[120, 90]]]], dtype=torch.uint8).expand(1, 3, 1, 2)
    base = picture[0] / 255
    gray = 0.2989 * base[0] + 0.587 * base[1] + 0.114 * base[2]
    jitter = {"jitter": [True], "height": [1], "width": [2]}
    bright = draw(picture, Policy(jitter=(0.8, 0, 0, 0)), (1, 2), brightness=[1.5], **jitter)
    assert torch.allclose(bright, (base * 1.5).clamp(0, 1), atol=1e-6)
    contrast = draw(picture, Policy(jitter=(0, 0.8, 0, 0)), (1, 2), contrast=[0.4], **jitter)
    assert torch.allclose(contrast, (0.4 * base + 0.6 * gray.mean()).clamp(0, 1), atol=1e-6)
    saturation = draw(picture, Policy(jitter=(0, 0, 0.8, 0)), (1, 2), saturation=[1.7], **jitter)
    assert torch.allclose(saturation, (1.7 * base - 0.7 * gray).clamp(0, 1), atol=1e-6)


def test_hue_against_colorsys():
    import colorsys

    colours = torch.rand(200, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    colours[:20, 1] = colours[:20, 0]  # ties for the maximum
    colours[20:30] = colours[20:30, :1]  # grays
    shift = torch.rand(200, 1, 1, 1, generator=torch.Generator().manual_seed(1)) - 0.5
    found = colours.clone()
    _hue(found, shift)
    for before, turn, after in zip(
        colours[..., 0, 0].tolist(), shift.flatten().tolist(), found[..., 0, 0].tolist(), strict=True
    ):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        assert after == pytest.approx(colorsys.hsv_to_rgb((hue + turn) % 1.0, saturation, value), abs=2e-6)


def test_jitter_order_matters_and_is_followed():
    picture = images(1)
    policy = Policy(jitter=(0.8, 0.8, 0, 0))
    orders = {}
    for order, parts in ((0, "brightness first"), (23, "contrast first")):
        orders[parts] = draw(picture, policy, jitter=[True], brightness=[1.7], contrast=[0.3], order=[order])
    base = picture[0] / 255
    bright = (base * 1.7).clamp(0, 1)
    mean = (0.2989 * bright[0] + 0.587 * bright[1] + 0.114 * bright[2]).mean()
    assert torch.allclose(orders["brightness first"], (0.3 * bright + 0.7 * mean).clamp(0, 1), atol=1e-5)
    assert not torch.allclose(orders["contrast first"], orders["brightness first"], atol=1e-3)


def test_invert_blur_and_grayscale():
    picture = images(1)
    base = picture[0] / 255
    assert torch.allclose(draw(picture, Policy(invert=0.2), invert=[True]), 1 - base, atol=1e-6)
    gray = draw(picture, Policy(grayscale=0.2), grayscale=[True])
    assert torch.allclose(gray[0], 0.2989 * base[0] + 0.587 * base[1] + 0.114 * base[2], atol=1e-6)
    assert torch.equal(gray[0], gray[2])
    blurred = draw(picture, Policy(blur=0.8), blur=[True], sigma=[3.0])
    assert blurred.std() < 0.5 * base.std()
    assert float(blurred.mean()) == pytest.approx(float(base.mean()), abs=0.03)
    point = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    point[0, 0, 16, 16] = 255
    weights = torch.exp(-0.5 * torch.arange(-4, 5) ** 2 / 4.0)
    column = draw(point, Policy(blur=0.8), blur=[True], sigma=[2.0])[0, 12:21, 16]
    across = torch.exp(-0.5 * torch.arange(-2, 3) ** 2 / 4.0)
    assert torch.allclose(column, weights / weights.sum() * (across / across.sum())[2], atol=1e-6)


def test_mask_hides_three_quarters_of_the_patches_with_the_mean():
    pictures = images(3)
    views = Views("mask", n=4, patch=8).draw(pictures, torch.arange(3))
    base = (pictures / 255)[:, None]
    kept = (views - base).abs().amax(dim=2) < 1e-6
    patches = kept.unflatten(3, (4, 8)).unflatten(2, (4, 8)).all(dim=(3, 5))  # (point, view, 4, 4)
    assert (patches.sum(dim=(2, 3)) == 4).all()
    mean = base.mean(dim=(3, 4), keepdim=True).expand_as(views)
    hidden = ~patches.repeat_interleave(8, 2).repeat_interleave(8, 3)
    assert torch.allclose(views.permute(0, 1, 3, 4, 2)[hidden], mean.permute(0, 1, 3, 4, 2)[hidden], atol=1e-5)


def test_probabilities_and_ranges_of_normal():
    from memloc.views import uniforms
    from memloc.views._parameters import parameters

    count = 20_000
    drawn = uniforms(0, torch.arange(count), torch.zeros(1, dtype=torch.int64), len(COLUMNS))[:, 0]
    chosen = parameters(
        POLICIES["normal"],
        drawn,
        (32, 32),
        (32, 32),
        seed=0,
        point=torch.arange(count),
        view=torch.zeros(count, dtype=torch.int64),
    )
    assert float(chosen.flip.double().mean()) == pytest.approx(0.5, abs=0.015)
    assert float(chosen.jitter.double().mean()) == pytest.approx(0.8, abs=0.015)
    assert float(chosen.grayscale.double().mean()) == pytest.approx(0.2, abs=0.015)
    for name, low, high in (
        ("brightness", 0.2, 1.8),
        ("contrast", 0.2, 1.8),
        ("saturation", 0.2, 1.8),
        ("hue", -0.2, 0.2),
    ):
        value = getattr(chosen, name)
        assert low <= float(value.min()) < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < float(value.max()) <= high
    area = (chosen.height * chosen.width).double() / 32**2
    ratio = chosen.width.double() / chosen.height
    assert 0.05 < float(area.min()) < 0.1
    assert float(area.max()) <= 1.0
    assert float(ratio.min()) > 0.6
    assert float(ratio.max()) < 1.67
    assert bool((chosen.top + chosen.height <= 32).all())
    assert bool((chosen.left + chosen.width <= 32).all())


def test_large_images_are_shrunk_to_the_view():
    assert Views(n=2, size=16).draw(images(2, 3, 50, 40), torch.arange(2)).shape == (2, 2, 3, 16, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"policy": "normla"}, "Nearest: 'normal'"),
        ({"n": 5}, "n must be even. Pass n=6"),
        ({"n": 1}, "at least 2"),
        ({"sampling": "halton"}, "Expected 'sobol' or 'independent'"),
        ({"size": 0}, "Expected at least 1"),
    ],
)
def test_wrong_recipes(arguments, message):
    with pytest.raises(SpecError, match=message):
        Views(**arguments)


def test_wrong_images():
    with pytest.raises(DataError, match="smaller than a view of 64x64"):
        Views(size=64).draw(images(1), torch.arange(1))
    with pytest.raises(ShapeError, match="Expected uint8"):
        Views().draw(images(1).float(), torch.arange(1))
    with pytest.raises(SpecError, match=r"2 channels and the views change colours.*Views\('crop'\)"):
        Views().draw(images(1, 2), torch.arange(1))
    for policy in ("crop", "mask", "independent"):
        assert Views(policy, n=2).draw(images(1, 5), torch.arange(1)).shape[2] == 5
    with pytest.raises(ShapeError, match="one id per image"):
        Views().draw(images(2), torch.arange(3))
    with pytest.raises(SpecError, match="only an audit"):
        Views(n="auto").draw(images(1), torch.arange(1))


def test_crops_reach_every_place():
    """A quarter of 4x4 pixels at its own size: pixels say where it begins, 0 to 2 alike in either direction."""
    rows = torch.arange(4).repeat_interleave(4).view(1, 1, 4, 4)
    for picture in (rows, rows.transpose(2, 3)):
        views = Views(Policy(crop_scale=(0.25, 0.25), crop_ratio=(1.0, 1.0)), n=300, size=2, sampling="independent")
        drawn = views.draw(picture.contiguous().to(torch.uint8), torch.tensor([0]))
        begins = (drawn.amin(dim=(0, 2, 3, 4)) * 255).round().long()
        assert torch.bincount(begins).tolist() == pytest.approx([100, 100, 100], abs=30)


def test_a_crop_that_does_not_fit_is_drawn_ten_times():
    """Squares of 8x32 pixels: an attempt fits with chance .22, so the central square is left to .78 ** 10, and to 1 % by chance."""
    from memloc.views import uniforms
    from memloc.views._parameters import parameters

    count, zero = 4000, torch.zeros(1, dtype=torch.int64)
    drawn = uniforms(0, torch.arange(count), zero, len(COLUMNS), "independent")[:, 0]
    policy = Policy(crop_scale=(0.08, 1.0), crop_ratio=(1.0, 1.0))
    found = parameters(policy, drawn, (8, 32), (8, 8), seed=0, point=torch.arange(count), view=zero.expand(count))
    central = (found.left == 12) & (found.width == 8)
    assert float(central.double().mean()) == pytest.approx(0.78**10 + 0.011, abs=0.02)


def test_an_audit_that_chooses_doubles_the_views():
    assert AUTO_COUNTS == (4, 8, 16, 32, 64)


def test_blurs_are_uniform_between_their_ends():
    from memloc.views import uniforms
    from memloc.views._parameters import parameters

    count, zero = 4000, torch.zeros(1, dtype=torch.int64)
    drawn = uniforms(0, torch.arange(count), zero, len(COLUMNS), "independent")[:, 0]
    policy = Policy(blur=0.8, blur_sigma=(0.5, 2.5))
    found = parameters(policy, drawn, (8, 8), (8, 8), seed=0, point=torch.arange(count), view=zero.expand(count))
    assert 0.5 <= float(found.sigma.min()) < 0.51
    assert 2.49 < float(found.sigma.max()) <= 2.5
    assert float(found.sigma.mean()) == pytest.approx(1.5, abs=0.05)
    assert float(found.blur.double().mean()) == pytest.approx(0.8, abs=0.02)

"""Views against torchvision's functional operations with the same parameters."""

import pytest
import torch

from memloc.views import POLICIES, Views, uniforms
from memloc.views._parameters import ORDERS, columns_needed, parameters

pytestmark = pytest.mark.vision


@pytest.mark.parametrize("policy", ["weak", "normal", "strong", "independent"])
@pytest.mark.parametrize(
    ("height", "width", "size", "channels"), [(32, 32, None, 3), (28, 28, None, 1), (75, 60, 32, 3)]
)
def test_every_view_equals_torchvision(torchvision, policy, height, width, size, channels):
    from torchvision.transforms.v2 import functional as tv

    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (8, channels, height, width), dtype=torch.uint8, generator=random)
    ids, count = torch.arange(8) + 100, 6
    recipe = Views(policy, n=count, seed=5, size=size)
    drawn = recipe.draw(images, ids)
    extent = recipe.view_size(height, width)
    values = uniforms(5, ids, torch.arange(count), columns_needed(POLICIES[policy], *extent)).flatten(0, 1)
    point, view = ids.repeat_interleave(count), torch.arange(count).repeat(8)
    chosen = parameters(POLICIES[policy], values, (height, width), extent, seed=5, point=point, view=view)
    operations = {
        0: lambda x, row: tv.adjust_brightness(x, float(chosen.brightness[row])),
        1: lambda x, row: tv.adjust_contrast(x, float(chosen.contrast[row])),
        2: lambda x, row: tv.adjust_saturation(x, float(chosen.saturation[row])),
        3: lambda x, row: tv.adjust_hue(x, float(chosen.hue[row])),
    }
    for row in range(8 * count):
        x = images[row // count].float() / 255
        box = (int(chosen.top[row]), int(chosen.left[row]), int(chosen.height[row]), int(chosen.width[row]))
        x = tv.resized_crop(x, *box, size=list(extent), antialias=True)
        x = tv.horizontal_flip(x) if chosen.flip[row] else x
        x = tv.vertical_flip(x) if chosen.vertical_flip[row] else x
        if chosen.jitter[row]:
            for part in ORDERS[int(chosen.order[row])]:
                x = operations[part](x, row)
        x = tv.rgb_to_grayscale(x, num_output_channels=channels) if chosen.grayscale[row] else x
        x = tv.gaussian_blur(x, [5, 9], [float(chosen.sigma[row])]) if chosen.blur[row] else x
        x = tv.invert(x) if chosen.invert[row] else x
        assert torch.allclose(drawn[row // count, row % count], x, atol=2e-5), (policy, row)


def test_crops_are_distributed_as_torchvisions(torchvision):
    from torchvision.transforms import RandomResizedCrop

    count = 6000
    image = torch.zeros(3, 24, 40)
    torch.manual_seed(0)
    theirs = torch.tensor(
        [RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(count)]
    ).double()
    points = torch.arange(count)
    values = uniforms(0, points, torch.zeros(1, dtype=torch.int64), 16, "independent")[:, 0]
    chosen = parameters(
        POLICIES["normal"], values, (24, 40), (24, 24), seed=0, point=points, view=torch.zeros(count, dtype=torch.int64)
    )
    ours = torch.stack([chosen.top, chosen.left, chosen.height, chosen.width], dim=1).double()
    assert torch.allclose(ours.mean(0), theirs.mean(0), atol=0.35)
    assert torch.allclose(ours.std(0), theirs.std(0), atol=0.35)

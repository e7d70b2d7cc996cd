"""ResNet9, the small encoder of the memorization papers (REFERENCE A6), for images of 32 pixels and up."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from memloc.encoders._layer import Reading


class MapConv2d(nn.Conv2d):
    """A 3x3 convolution with padding 1, computed as one dense product where its map is 2x2.

    There every output sees every input, so for a batch of 16 and more the product has fewer operations than the padded
    convolution; with 256 channels the backward pass is several times as fast (oneDNN spends most of its time reordering
    weights). Equal to rounding.
    """

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if x.shape[2:] != (2, 2) or len(x) < 16 or bias is None:
            return super()._conv_forward(x, weight, bias)
        if torch.is_autocast_enabled(x.device.type):
            weight = weight.to(torch.get_autocast_dtype(x.device.type))
        kernel = weight.permute(0, 2, 3, 1)  # contiguous where weights are channels-last
        window = [
            kernel[:, 1 - row : 3 - row, 1 - column : 3 - column].flatten(1) for row in (0, 1) for column in (0, 1)
        ]
        flat = nn.functional.linear(x.permute(0, 2, 3, 1).flatten(1), torch.cat(window), bias.repeat(4))
        return flat.view(len(x), 2, 2, self.out_channels).permute(0, 3, 1, 2)


class ConvBlock(nn.Sequential):
    """3x3 convolution, batch-norm, ReLU; its own output is the layer's reading."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = MapConv2d(inputs, outputs, kernel_size=3, padding=1)
        self.norm = nn.BatchNorm2d(outputs)
        self.act = nn.ReLU(inplace=True)


class Sum(nn.Module):
    """A residual sum as a module, so that it can be tapped."""

    def forward(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        """Add the two."""
        return branch + shortcut


class ResNet9(nn.Module):
    """Eight 3x3 convolutions in two residual stages, max-pooled to 256 features.

    The residual sums are named res2 and res6 after the layer their shortcut comes from, as in LocMem Table 1. Inputs
    below 32 pixels are padded with zeros to 32.

    >>> ResNet9()(torch.zeros(2, 3, 28, 28)).shape
    torch.Size([2, 256])
    >>> [sum(p.numel() for p in m.parameters()) for m in ResNet9().modules() if isinstance(m, nn.Conv2d)]
    [896, 18496, 36928, 36928, 73856, 295168, 590080, 590080]
    """

    features, smallest = 256, 32
    memloc_reading = Reading(suffix=".conv", signed=False)  # every row follows a ReLU

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv1 = ConvBlock(channels, 32)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2_0 = ConvBlock(32, 64)
        self.pool2 = nn.MaxPool2d(2)
        self.conv2_1 = ConvBlock(64, 64)
        self.conv2_2 = ConvBlock(64, 64)
        self.res2 = Sum()
        self.conv3 = ConvBlock(64, 128)
        self.pool3 = nn.MaxPool2d(2)
        self.conv4_0 = ConvBlock(128, 256)
        self.pool4 = nn.MaxPool2d(2)
        self.conv4_1 = ConvBlock(256, 256)
        self.conv4_2 = ConvBlock(256, 256)
        self.res6 = Sum()
        self.pool = nn.AdaptiveMaxPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        """Encode images of shape (point, channel, height, width) into (point, 256)."""
        down, across = max(self.smallest - x.shape[2], 0), max(self.smallest - x.shape[3], 0)
        if down or across:
            x = nn.functional.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
        x = self.pool1(self.conv1(x))
        x = self.pool2(self.conv2_0(x))
        x = self.res2(self.conv2_2(self.conv2_1(x)), x)
        x = self.pool3(self.conv3(x))
        x = self.pool4(self.conv4_0(x))
        x = self.res6(self.conv4_2(self.conv4_1(x)), x)
        return torch.flatten(self.pool(x), 1)

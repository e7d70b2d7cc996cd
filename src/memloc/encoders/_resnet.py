"""ResNet18, 34 and 50 for small images: torchvision's parameter names, a 3x3 stem without pooling, and no
classification head."""

from __future__ import annotations

from torch import Tensor, nn

from memloc.encoders._resnet9 import Sum


class Block(nn.Module):
    """Two 3x3 convolutions (ResNet18, 34) or 1x1, 3x3, 1x1 with four times the channels (ResNet50), and a residual sum.

    As in torchvision the stride is on the 3x3 convolution. Every activation is a module of its own, so each can be
    tapped.
    """

    def __init__(self, inputs: int, width: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        outputs = width * 4 if bottleneck else width
        sizes = (
            [(inputs, width, 1), (width, width, 3), (width, outputs, 1)]
            if bottleneck
            else [(inputs, width, 3), (width, width, 3)]
        )
        for number, (before, after, kernel) in enumerate(sizes, start=1):
            strided = stride if number == (2 if bottleneck else 1) else 1
            conv = nn.Conv2d(before, after, kernel, stride=strided, padding=kernel // 2, bias=False)
            self.add_module(f"conv{number}", conv)
            self.add_module(f"bn{number}", nn.BatchNorm2d(after))
            if number < len(sizes):
                self.add_module(f"act{number}", nn.ReLU(inplace=True))
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.sum = Sum()
        self.act = nn.ReLU(inplace=True)
        self._convolutions = len(sizes)

    def forward(self, x: Tensor) -> Tensor:
        """Map features of shape (point, channel, height, width)."""
        main = x
        for number in range(1, self._convolutions + 1):
            main = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(main))
            if number < self._convolutions:
                main = self.get_submodule(f"act{number}")(main)
        return self.act(self.sum(main, x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """A ResNet for images of 28 to 64 pixels.

    Source: He et al., Deep Residual Learning for Image Recognition, CVPR 2016; the stem of its CIFAR variant.

    >>> import torch
    >>> ResNet((2, 2, 2, 2))(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 512])
    """

    def __init__(self, depths: tuple[int, int, int, int], *, bottleneck: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.act = nn.ReLU(inplace=True)
        inputs = 64
        for stage, depth in enumerate(depths):
            blocks = []
            for number in range(depth):
                width = 64 * 2**stage
                blocks.append(Block(inputs, width, 2 if stage and not number else 1, bottleneck=bottleneck))
                inputs = width * 4 if bottleneck else width
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Encode images of shape (point, 3, height, width) into (point, 512), or 2048 with bottlenecks."""
        x = self.act(self.bn1(self.conv1(x)))
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.avgpool(x).flatten(1)

"""What a frozen encoder, or one of its layers, says of images as they are."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from memloc.encoders._device import pick_device
from memloc.encoders._encoder import Encoder, check_images
from memloc.encoders._layer import OUTPUT, Layer
from memloc.encoders._memory import Batches
from memloc.encoders._output import AUTO, averaged
from memloc.encoders._resnet9 import ResNet9
from memloc.encoders._taps import tapped
from memloc.errors import EncoderError, LayerNotFoundError, nearest
from memloc.progress import Report, silent

_AT_ONCE = 250  # images


def represent(
    encoder: Encoder,
    pixels: Tensor,
    *,
    layer: str = OUTPUT,
    dense: bool = False,
    device: str = "auto",
    progress: Report = silent,
) -> Tensor:
    """The reading of a layer for every image as it is, without augmentation, on the device.

    Args:
        pixels: uint8 images, shape (point, channel, height, width).
        layer: one of the encoder's layers; "output" is what it returns.
        dense: keep positions apart instead of averaging maps and tokens.
    Returns:
        float32, shape (point, unit), or (point, position, unit) where `dense`; the class token and registers of a ViT
        are no positions.
    Raises:
        LayerNotFoundError, EncoderError: a layer that is not there, or has no positions.

    >>> from memloc.encoders import load_encoder
    >>> images = torch.zeros(3, 3, 32, 32, dtype=torch.uint8)
    >>> represent(load_encoder("resnet9"), images, layer="conv4_2", device="cpu").shape
    torch.Size([3, 256])
    """
    known = {each.name: each for each in encoder.layers}
    if layer not in known:
        raise LayerNotFoundError(
            f"{encoder.name} has no layer {layer!r}. {nearest(layer, known)} List them with: memloc layers ENCODER"
        )
    if dense and isinstance(encoder.module, ResNet9) and min(pixels.shape[2:]) < ResNet9.smallest:
        raise EncoderError(
            f"{encoder.name} pads images below {ResNet9.smallest} pixels, so its positions are not those of the image."
            f" Expected images of {ResNet9.smallest} pixels or more. Pass --size {ResNet9.smallest}."
        )
    check_images(encoder, pixels)
    where, home, kind = pick_device(device), *home_of(encoder.module)
    found: list[Tensor] = []

    def reduce(row: Layer, output: Tensor) -> None:
        found.append((_positions(row, output) if dense else averaged(row, output)).float())

    def read(rows: slice) -> Tensor:
        progress("representing images", rows.start, len(pixels))
        found.clear()
        forward(encoder.prepare(pixels[rows].to(where).float() / 255).to(kind))
        return found.pop()

    row = known[layer]
    if dense and row.kind == OUTPUT and row.take == AUTO:
        row = replace(row, take="tokens")  # of several tensors, the one that has positions
    encoder.module.to(where)
    try:
        with tapped(encoder.module, [row], reduce) as forward:
            parts = list(Batches(_AT_ONCE, "representing images").map(slice(0, len(pixels)), read))
    finally:
        encoder.module.to(home)
    progress("representing images", len(pixels), len(pixels))
    return torch.cat(parts)


def home_of(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    """The device and number format of a module's weights; the processor and float32 without any."""
    first = next((each for each in module.parameters() if each.is_floating_point()), None)
    return (torch.device("cpu"), torch.float32) if first is None else (first.device, first.dtype)


def _positions(row: Layer, output: Tensor) -> Tensor:
    """(point, position, unit), positions row by row; of tokens the last square number, which leaves the class token and
    registers out."""
    if output.ndim == 4:
        return (output if row.last else output.movedim(1, 3)).flatten(1, 2)
    if output.ndim == 3:
        side = int(output.shape[1] ** 0.5)
        return output[:, output.shape[1] - side * side :]
    raise EncoderError(
        f"layer {row.name!r} gives one vector an image. Expected maps or tokens for a dense probe. Name an earlier"
        " layer with --layer."
    )

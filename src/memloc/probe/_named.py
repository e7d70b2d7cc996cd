"""An encoder and images that a user named, and what a command will take with them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from memloc.data import Images, open_images
from memloc.encoders import Encoder, encoder_name, fit_for, load_encoder, read_weights, represent
from memloc.errors import SpecError
from memloc.fit import Fit
from memloc.progress import roughly

# images to time, images at once, floats of activations per float of input in a small net
_TIMED, _AT_ONCE, _ACTIVATIONS = 32, 250, 60


def opened(
    text: str,
    weights: str | None,
    *,
    state_key: str | None = None,
    strip_prefix: str | None = None,
    output: str = "auto",
    images: Images | None = None,
) -> tuple[Encoder, dict[str, str]]:
    """An encoder that a user named, and the text to keep with weights that are made from it."""
    shape = None if images is None else (images.pixels.shape[1], images.pixels.shape[2], images.pixels.shape[3])
    named = encoder_name(text)
    with torch.random.fork_rng(devices=[]):  # random weights are the same in every call
        torch.manual_seed(0)
        encoder = load_encoder(
            text,
            weights=weights,
            state_key=state_key,
            strip_prefix=strip_prefix,
            output=output,
            shape=None if named.has_own_size else shape,
        )
    if named.is_checkpoint and weights is None:
        return encoder, {**read_weights(text)[1], "format": "memloc"}
    found = {"encoder": text, "format": "memloc"}
    if shape is not None:
        found["shape"] = " ".join(map(str, shape))
    if encoder.preprocess.mean:
        found |= {key: " ".join(map(repr, getattr(encoder.preprocess, key))) for key in ("mean", "std")}
    if encoder.preprocess.flip:
        found["flip"] = "1"
    return encoder, found if encoder.augmentation is None else {**found, "augmentation": encoder.augmentation}


@dataclass(frozen=True)
class Named:
    """An encoder by its name, and labelled images of a probe by theirs, as a user types them.

    Attributes:
        encoder: see `load_encoder`. weights: its checkpoint, or "random". state_key, strip_prefix: as in
            `load_encoder`.
        train, test: labelled images; both or neither. size: pixels to bring images to. max_bad: unreadable images to
            accept.
        device: to compute on. output: as in `load_encoder`.
    """

    encoder: str
    weights: str | None = None
    state_key: str | None = None
    strip_prefix: str | None = None
    train: str | None = None
    test: str | None = None
    size: int | None = None
    max_bad: int = 0
    device: str = "auto"
    output: str = "auto"

    @property
    def paths(self) -> tuple[str | None, ...]:
        """What is read of the disk, if it is a file or folder."""
        return self.encoder, self.weights, self.train, self.test

    def opened(self, images: Images | None = None) -> tuple[Encoder, dict[str, str]]:
        """The encoder for these images, and the text to keep with weights that are made from it."""
        return opened(
            self.encoder,
            self.weights,
            state_key=self.state_key,
            strip_prefix=self.strip_prefix,
            output=self.output,
            images=images,
        )

    def fit(self) -> Fit:
        """How images are brought to the size that the user says, else to that which an encoder of another library, or a
        ViT, takes: as its own preprocessing does."""
        return fit_for(self.encoder, self.size, lambda: self.opened()[0])

    def labelled(self, size: int | Fit | None) -> tuple[Images, Images] | None:
        """Images of the probe, brought to a size."""
        if (self.train is None) != (self.test is None):
            raise SpecError(
                "only one of --train and --test is given. Expected both, or neither. Pass labelled images for both."
            )
        if self.train is None or self.test is None:
            return None
        train, test = (open_images(each, size=size, max_bad=self.max_bad) for each in (self.train, self.test))
        return train, test

    def opened_with_probe(self) -> tuple[Encoder, dict[str, str], tuple[Images, Images] | None]:
        """The encoder with the text to keep with its weights, and the images of a probe, if any."""
        parts = self.labelled(self.fit())
        source, metadata = self.opened(parts and parts[0])
        return source, metadata, parts


def planned(encoder: Encoder, images: Images, *, forward: int, backward: int = 0, **chosen: Any) -> dict[str, Any]:
    """What a command will take, from a few timed images: passes, and expected seconds and memory.

    Args:
        forward: images that go through the encoder. backward: those of them that are trained on. chosen: what the
            command has chosen.
    """
    few = images.pixels[:_TIMED]
    represent(encoder, few, device="cpu")
    began = time.perf_counter()
    represent(encoder, few, device="cpu")
    each = (time.perf_counter() - began) / len(few)
    weights = sum(value.numel() * value.element_size() for value in encoder.module.state_dict().values())
    batch = _ACTIVATIONS * 4 * _AT_ONCE * few[0].numel()
    return {
        **chosen,
        "forward_passes": forward,
        "backward_passes": backward,
        "seconds": roughly(each * (forward + 2 * backward)),
        "memory_mb": round((2 * images.pixels.numel() + 4 * weights + batch) / 2**20),
    }

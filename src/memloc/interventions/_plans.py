"""What acting on an encoder takes, and the probe that is fitted before and after."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from memloc.data import Images
from memloc.encoders import Encoder, represent
from memloc.probe import Probe, check_probe, probe_encoder
from memloc.progress import roughly

# images to time, images at once, floats of activations per float of input in a small net
_TIMED, _AT_ONCE, _ACTIVATIONS = 32, 250, 60


def measured(
    encoder: Encoder, parts: tuple[Images, Images] | None, device: str, seed: int
) -> Callable[[Encoder], Probe] | None:
    """The probe to fit before and after, its images checked at once."""
    if parts is None:
        return None
    train, test = parts
    check_probe(encoder, train, test, device=device)
    return lambda each: probe_encoder(each, train, test, device=device, seed=seed)


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


def probing(encoder: Encoder, parts: tuple[Images, Images] | None, **chosen: Any) -> dict[str, Any]:
    """The plan of a command that only probes before and after."""
    if parts is None:
        return {**chosen, "forward_passes": 0, "backward_passes": 0, "seconds": 0.0}
    return planned(encoder, parts[0], forward=2 * (len(parts[0]) + len(parts[1])), **chosen)

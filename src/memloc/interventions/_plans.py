"""The probe that is fitted before and after an act, and what it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from memloc.data import Images
from memloc.encoders import Encoder
from memloc.probe import Probe, check_probe, planned, probe_encoder


def measured(
    encoder: Encoder, parts: tuple[Images, Images] | None, device: str, seed: int
) -> Callable[[Encoder], Probe] | None:
    """The probe to fit before and after, its images checked at once."""
    if parts is None:
        return None
    train, test = parts
    check_probe(encoder, train, test, device=device)
    return lambda each: probe_encoder(each, train, test, device=device, seed=seed)


def probing(encoder: Encoder, parts: tuple[Images, Images] | None, **chosen: Any) -> dict[str, Any]:
    """The plan of a command that only probes before and after."""
    if parts is None:
        return {**chosen, "forward_passes": 0, "backward_passes": 0, "seconds": 0.0}
    return planned(encoder, parts[0], forward=2 * (len(parts[0]) + len(parts[1])), **chosen)

"""Déjà Vu: does an encoder know what an image shows from a part of it that does not show it?"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from memloc.data import Images
from memloc.encoders import Encoder, represent
from memloc.errors import DataError
from memloc.metrics import auroc, kendall_tau
from memloc.probe._encoders import labels_of_both
from memloc.probe._probes import Features, check_neighbours
from memloc.probe._specs import CORNER, DejavuSpec
from memloc.progress import Report, silent
from memloc.results import ranking_column

_CORNERS = 4


def label_share(
    queries: Features,
    labels: NDArray[np.integer],
    public: Features,
    public_labels: NDArray[np.integer],
    *,
    neighbours: int = 20,
) -> NDArray[np.float64]:
    """Share of each query's nearest public points (cosine) that have the query's own label.

    Args:
        queries, public: features, shape (point, feature). labels, public_labels: class numbers.
    Returns:
        float64, shape (point,), 0 to 1.

    >>> label_share(np.eye(2), np.array([0, 1]), np.eye(2), np.array([0, 0]), neighbours=1).tolist()
    [1.0, 0.0]
    """
    from sklearn.neighbors import NearestNeighbors

    near = (
        NearestNeighbors(n_neighbors=neighbours, metric="cosine").fit(public).kneighbors(queries, return_distance=False)
    )
    return (public_labels[near] == labels[:, None]).mean(axis=1)


def corners(pixels: Tensor, side: float = CORNER) -> Tensor:
    """The four corners of every image, scaled to its size: uint8, shape (point, corner, channel, height, width).

    >>> corners(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape
    torch.Size([2, 4, 3, 32, 32])
    """
    height, width = pixels.shape[2:]
    down, across = max(round(side * height), 1), max(round(side * width), 1)
    places = [(top, left) for top in (0, height - down) for left in (0, width - across)]
    parts = torch.stack([pixels[:, :, top : top + down, left : left + across] for top, left in places], dim=1).flatten(
        0, 1
    )
    scaled = torch.nn.functional.interpolate(parts.float(), (height, width), mode="bilinear", align_corners=False)
    return scaled.round().clamp(0, 255).to(torch.uint8).unflatten(0, (-1, len(places)))


def dejavu(
    f: Encoder,
    g: Encoder,
    images: Images,
    public: Images,
    *,
    side: float = CORNER,
    neighbours: int = 20,
    device: str = "auto",
    progress: Report = silent,
) -> pd.DataFrame:
    """How much better f than g infers an image's label from its corners, by nearest neighbours among public images.

    The original crops the background that its data set marks; where objects are not marked, as here, the four corners
    stand in for it.

    Args:
        f, g: an encoder that saw the candidates among the images, and one that did not. images: with labels.
        public: images with labels that neither was trained on. side: of a corner, as a share of the image's.
    Returns:
        One row per image: point, share_f, share_g (of neighbours with the right label, over the corners), dejavu =
            share_f − share_g.
    Raises:
        DataError: labels missing, or a public image among those scored. SpecError.
    Source: Meehan et al., Do SSL Models Have Déjà Vu?, NeurIPS 2023.

    >>> from memloc import load_encoder, open_images
    >>> images, encoder = open_images("sample:train"), load_encoder("resnet9")
    >>> few, public = images.take(torch.arange(8)), images.take(torch.arange(8, 60))
    >>> float(dejavu(encoder, encoder, few, public)["dejavu"].abs().max())
    0.0
    """
    known_labels, labels = labels_of_both(public, images, ("public", "scored"))
    DejavuSpec(side)  # raises what is wrong
    check_neighbours(neighbours, len(public))
    check_public(images, public)
    parts = corners(images.pixels[:], side).flatten(0, 1)
    repeated = labels.repeat(_CORNERS)
    shares = {}
    for name, encoder in (("share_f", f), ("share_g", g)):
        known, asked = (
            represent(encoder, pixels, device=device, progress=progress).cpu().numpy()
            for pixels in (public.pixels, parts)
        )
        shares[name] = (
            label_share(asked, repeated, known, known_labels, neighbours=neighbours).reshape(-1, _CORNERS).mean(axis=1)
        )
    return pd.DataFrame({"point": images.ids.numpy(), **shares, "dejavu": shares["share_f"] - shares["share_g"]})


def check_public(images: Images, public: Images) -> None:
    """Raise DataError if a public image is among images that were scored or trained on."""
    copies = np.isin(public.hashes(), images.hashes())
    if copies.any():
        raise DataError(
            f"{int(copies.sum())} public images are among those that were scored or trained on. Expected others. Pass"
            " images that no encoder of the run saw."
        )


def dejavu_agreement(scores: pd.DataFrame, points: pd.DataFrame) -> dict[str, float]:
    """How Déjà Vu's score separates candidates from external points, and how it agrees with the audit's of candidates.

    Args:
        scores: what `dejavu` returned. points: the points of an audit (point, split, score or sslmem).
    Returns:
        auroc with auroc_low, auroc_high (NaN without external points), kendall and its p-value, and the numbers of
        points.

    >>> splits = ["candidate"] * 2 + ["external"] * 2
    >>> points = pd.DataFrame({"point": range(4), "split": splits, "sslmem": [0.3, 0.1, 0.0, 0.0]})
    >>> dejavu_agreement(pd.DataFrame({"point": range(4), "dejavu": [0.5, 0.2, 0.0, 0.1]}), points)["auroc"]
    1.0
    """
    column = ranking_column(points)
    both = scores.merge(points[["point", "split", column]], on="point")
    candidates, external = (both[both["split"] == split] for split in ("candidate", "external"))
    if not len(candidates):
        raise DataError(
            "no candidate has both scores. Expected the points of one audit. Pass the audit of the same run."
        )
    found: dict[str, float] = {"candidates": len(candidates), "external": len(external)}
    one, two = (torch.tensor(part["dejavu"].to_numpy()) for part in (candidates, external))
    separated = auroc(one, two) if len(external) else None
    found |= dict(
        zip(
            ("auroc", "auroc_low", "auroc_high"),
            (separated.value, separated.low, separated.high) if separated else (float("nan"),) * 3,
            strict=True,
        )
    )
    tau, p_value = kendall_tau(one, torch.tensor(candidates[column].to_numpy()))
    return {
        **found,
        "kendall": tau,
        "kendall_p": p_value,
        "mean_dejavu": float(candidates["dejavu"].mean()),
        "mean_external": float(external["dejavu"].mean()),
    }

"""Settings of probes; read without torch."""

from __future__ import annotations

from dataclasses import dataclass

from memloc.settings import SEEDS, check_limits, documented, setting

KINDS = ("linear", "knn", "dense")
NEIGHBOURS, CORNER = 20, 0.5


@documented
@dataclass(frozen=True)
class ProbeSpec:
    """How a frozen encoder's layers are probed."""

    kind: str = setting("linear", "linear, knn, or dense (a label per patch).")
    layer: list[str] | None = setting(None, "Layers to probe; repeat for more; output by default; all for every layer.")
    neighbours: int = setting(NEIGHBOURS, "Of the knn probe.", low=1)
    seed: int = setting(0, "Of the part that the regularization is chosen on.", low=0, high=SEEDS)

    def __post_init__(self) -> None:
        check_limits(self)


@documented
@dataclass(frozen=True)
class DejavuSpec:
    """How the label of an image is inferred from its corners."""

    side: float = setting(
        CORNER,
        "Of the corners that stand in for the background, as a share of the image.",
        above=0,
        below=1,
    )
    neighbours: int = setting(NEIGHBOURS, "Public images that vote on the label.", low=1)

    def __post_init__(self) -> None:
        check_limits(self)

"""How images are brought to the size that an encoder takes."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Fit:
    """How images are brought to the size that an encoder takes.

    Attributes:
        size: height and width in the end; None leaves images as they are.
        kept: share of the shorter side that the crop of the centre keeps; 1 for all of it.
        squash: resize both sides alike, whatever the shape.
        resample: nearest, bilinear, bicubic, lanczos, box or hamming.
        rounds: whether half a pixel of the crop's place is rounded, as torchvision does, or cut off.
        suggested: a size to name to a person whose images have several.

    >>> Fit(224, kept=0.875).edge, Fit(224, kept=0.875).at(112).edge
    (256, 128)
    """

    size: int | None = None
    kept: float = 1.0
    squash: bool = False
    resample: str = "bilinear"
    rounds: bool = True
    suggested: int | None = None

    def at(self, size: int) -> Fit:
        """The same for another size."""
        return replace(self, size=size)

    @property
    def edge(self) -> int:
        """Pixels of the shorter side before the crop."""
        assert self.size is not None, "it was looked at"
        return int(self.size / self.kept + 1e-6)

    @property
    def is_plain(self) -> bool:
        """Whether images are resized and cropped at once, as those of no encoder are."""
        return self.kept == 1 and not self.squash and self.resample == "bilinear"

    def in_words(self) -> str:
        """How, for a person to check."""
        how = "both sides" if self.squash else "the shorter side"
        cut = f", {self.kept:.3g} of it kept" if self.kept < 1 else ""
        return f"{how} by {self.resample} interpolation{cut}"

    def __str__(self) -> str:
        found = f"{self.size}"
        return found if self.is_plain else f"{found} {self.kept} {self.squash} {self.resample} {self.rounds}"

"""Augmentation policies as data; read without torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from memloc.errors import SpecError, nearest


@dataclass(frozen=True)
class Policy:
    """What may happen to an image; probabilities and ranges as in torchvision's transforms.

    Applied in this order: crop, horizontal flip, vertical flip, jitter (its four parts in random order), grayscale,
    Gaussian blur, invert, patch mask.

    >>> POLICIES["normal"].jitter
    (0.8, 0.8, 0.8, 0.2)
    """

    crop_scale: tuple[float, float] | None = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.0
    vertical_flip: float = 0.0
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)  # brightness, contrast, saturation, hue
    jitter_probability: float = 0.0
    grayscale: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 5.0)
    blur_kernel: tuple[int, int] = (5, 9)  # width, height: torchvision's documented example for these sigmas
    blur: float = 0.0
    invert: float = 0.0
    mask: float = 0.0  # share of patches replaced by the image's mean colour
    patch: int = 4


POLICIES = {  # LocMem App. B, REFERENCE A6
    "weak": Policy(jitter=(0.9, 0.9, 0.9, 0.5), jitter_probability=0.4, flip=0.5, grayscale=0.1),
    "normal": Policy(jitter=(0.8, 0.8, 0.8, 0.2), jitter_probability=0.8, flip=0.5, grayscale=0.2),
    "strong": Policy(jitter=(0.8, 0.8, 0.8, 0.2), jitter_probability=0.9, flip=0.5, grayscale=0.5, vertical_flip=1.0),
    "independent": Policy(blur=0.8, invert=0.2, vertical_flip=1.0),
    "crop": Policy(flip=0.5),  # MAE's own training augmentation
    "mask": Policy(crop_scale=None, mask=0.75),
    # of the papers' script of UnitMem (REFERENCE A12)
    "published-units": Policy(jitter=(0.9, 0.9, 0.9, 0.1), jitter_probability=0.9, flip=0.5, grayscale=0.1),
}
for _name in ("normal", "strong"):  # the papers' list flips every image, their code half of them
    POLICIES[f"{_name}-paper"] = replace(POLICIES[_name], flip=1.0)


def policy_named(name: str | Policy) -> Policy:
    """A policy by its name; a Policy is returned as it is.

    >>> policy_named("weka")
    Traceback (most recent call last):
    memloc.errors.SpecError: there is no view policy 'weka'. Nearest: 'weak'. Pass one of weak, normal, strong, \
independent, crop, mask, published-units, normal-paper, strong-paper, or a memloc.views.Policy.
    """
    if isinstance(name, Policy):
        return name
    if name not in POLICIES:
        raise SpecError(
            f"there is no view policy {name!r}. {nearest(name, POLICIES)} Pass one of {', '.join(POLICIES)}, "
            "or a memloc.views.Policy."
        )
    return POLICIES[name]


def check_colour(policy: Policy, channels: int) -> None:
    """Raise SpecError where a policy changes colours and images have other channels than gray or RGB.

    >>> check_colour(POLICIES["crop"], 4)
    """
    if channels in (1, 3) or not (policy.grayscale or any(policy.jitter)):
        return
    able = ", ".join(name for name, each in POLICIES.items() if not (each.grayscale or any(each.jitter)))
    raise SpecError(
        f"the images have {channels} channels and the views change colours, which are defined for gray and RGB."
        f" Expected a policy without. Pass --policy crop; of these there are {able}."
    )

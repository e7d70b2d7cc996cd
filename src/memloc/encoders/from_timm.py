"""Encoders of timm, without their classification head."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from memloc.encoders._built import Built, Recipe
from memloc.errors import DataNotFoundError, EncoderError, MissingExtraError, nearest
from memloc.fit import Fit


def build(name: str, options: dict[str, Any], *, pretrained: bool, follow: bool = True) -> Built:
    """A timm model that returns features.

    Args:
        name: as in timm.list_models(). options: of timm.create_model, such as img_size. pretrained: with timm's
            weights.
    """
    try:
        import timm
    except ImportError as problem:
        raise MissingExtraError(
            "timm is not installed. Expected it for timm: encoders. Install it with: pip install 'memloc[timm]'"
        ) from problem
    except RuntimeError as problem:  # a torchvision of another build than torch
        raise MissingExtraError(
            f"timm cannot be imported ({str(problem).splitlines()[0]}). Expected a torchvision that matches torch. See:"
            " memloc doctor"
        ) from problem
    if name.split(".")[0] not in timm.list_models():
        raise EncoderError(
            f"timm has no model {name!r}. {nearest(name, timm.list_models())} Expected one of timm.list_models(). Pass"
            " timm:NAME."
        )
    try:
        module = timm.create_model(name, pretrained=pretrained, **{"num_classes": 0, **options})
    except (TypeError, ValueError) as problem:
        raise EncoderError(
            f"timm:{name} takes no such option ({problem}). Expected options of timm.create_model. Correct it."
        ) from problem
    except (OSError, RuntimeError) as problem:
        if not pretrained:
            raise
        raise DataNotFoundError(
            f"the weights of timm:{name} cannot be fetched ({type(problem).__name__}). Expected a network, or weights"
            " in timm's cache. Pass --f-weights FILE, or --f-weights random."
        ) from problem
    recipe = timm_recipe(module, f"timm:{name}") if follow else None
    height = int(timm.data.resolve_data_config({}, model=module)["input_size"][1])
    fixed = bool(getattr(getattr(module, "patch_embed", None), "img_size", None))
    size = options.get("img_size", height) if fixed or pretrained else None
    return Built(module, None if recipe is None else replace(recipe, fit=replace(recipe.fit, size=size)), size)


def timm_recipe(module: Any, name: str) -> Recipe:
    """The preprocessing that a timm model's own configuration asks for.

    Raises:
        EncoderError: letterboxing (crop_mode border), which is not done.
    """
    import timm

    data = timm.data.resolve_data_config({}, model=module)
    if data.get("crop_mode", "center") not in ("center", "squash"):
        raise EncoderError(
            f"{name} asks for crop_mode {data['crop_mode']!r}, which memloc does not do. Expected a crop of the centre,"
            " or squash. Prepare the images yourself and pass --mean and --std (and --size)."
        )
    height = int(data["input_size"][1])
    resample = data.get("interpolation", "bicubic")
    fit = Fit(
        kept=float(data.get("crop_pct") or 1.0),
        squash=data.get("crop_mode") == "squash",
        resample="bilinear" if resample == "random" else resample,
        suggested=height,
    )
    return Recipe(tuple(data["mean"]), tuple(data["std"]), fit=fit)

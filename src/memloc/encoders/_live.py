"""A module that a user made: the preprocessing that its own configuration names, and what its output is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from memloc.encoders._built import Built, Recipe
from memloc.encoders.from_timm import timm_recipe
from memloc.encoders.from_transformers import processing
from memloc.fit import Fit

# of transformers, whose positions are not interpolated
_OF_ONE_SIZE = ("ViT", "DeiT", "Beit", "CLIPVision", "SiglipVision")


def live(module: nn.Module, *, follow: bool = True) -> Built:
    """A module with what timm's, transformers' and open_clip's configurations on it say of its input.

    A configuration on a part of the module says nothing of the whole, which may normalize by itself.

    Args:
        follow: whether its preprocessing is asked for, rather than given.
    """
    size, recipe = _size(module), _recipe(module) if follow else None
    if recipe is not None:
        fit = replace(recipe.fit, size=size, suggested=size or recipe.fit.suggested or recipe.fit.size)
        recipe = replace(recipe, fit=fit)
    return Built(module, recipe, size, _note(module))


def _recipe(module: Any) -> Recipe | None:
    name = type(module).__name__
    if _is_timms(module):
        return timm_recipe(module, name)
    config = getattr(module, "config", None)
    origin = getattr(config, "_name_or_path", "")
    if isinstance(origin, str) and origin and hasattr(config, "model_type"):
        size = getattr(config, "image_size", None)
        return processing(origin, size if isinstance(size, int) else None, here=not Path(origin).is_dir())
    mean, std = (getattr(module, f"image_{what}", None) for what in ("mean", "std"))  # open_clip
    if isinstance(mean, (tuple, list)) and isinstance(std, (tuple, list)):
        return Recipe(tuple(map(float, mean)), tuple(map(float, std)), fit=Fit(resample="bicubic"))
    return None


def _size(module: Any) -> int | None:
    """The size of images that a ViT with positions for it takes."""
    if _is_timms(module):
        size = getattr(getattr(module, "patch_embed", None), "img_size", None)
        strict = getattr(module.patch_embed, "strict_img_size", True) if size else False
        return int(size[0]) if strict and isinstance(size, (tuple, list)) else None
    size = getattr(getattr(module, "config", None), "image_size", None)
    return size if isinstance(size, int) and type(module).__name__.startswith(_OF_ONE_SIZE) else None


def _is_timms(module: Any) -> bool:
    found = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    return bool(found) and type(module).__module__.partition(".")[0] == "timm"


def _note(module: Any) -> str:
    """That a classifier's scores are no features, where the module says that it ends in one."""
    classes = getattr(module, "num_classes", 0) if _is_timms(module) else 0
    if classes:
        return (
            f"its output is the scores of its classifier for {classes} classes; for its features take the classifier"
            " off: module.reset_classifier(0)"
        )
    if type(module).__name__ in ("ViTModel", "DeiTModel") and getattr(module, "pooler", None) is not None:
        return (
            "its output is that of its pooler, which many published ViTs lack: where transformers drew it at random,"
            " pass --output cls or tokens"
        )
    if type(module).__name__.endswith("ForImageClassification"):
        return "its output is the scores of its classifier; for its features pass the model inside it"
    return ""

"""Encoders of torchvision, without their classification head."""

from __future__ import annotations

from typing import Any

from torch import nn

from memloc.encoders._built import Built, Recipe
from memloc.errors import DataNotFoundError, EncoderError, MissingExtraError, nearest
from memloc.fit import Fit


def build(name: str, options: dict[str, Any], *, pretrained: bool, follow: bool = True) -> Built:
    """A torchvision classification model that returns the features before its last linear layer.

    Args:
        name: as in torchvision.models.list_models(), with @WEIGHTS for others than the default ones. options: of the
            model.
        pretrained: with torchvision's weights.
    """
    try:
        import torchvision
    except ImportError as problem:
        raise MissingExtraError(
            "torchvision is not installed. Expected it for torchvision: encoders. Install it with: pip install"
            " 'memloc[vision]'"
        ) from problem
    except RuntimeError as problem:
        raise MissingExtraError(
            f"torchvision cannot be imported ({str(problem).splitlines()[0]}). Expected one that matches torch. See:"
            " memloc doctor"
        ) from problem
    models = torchvision.models
    name, _, which = name.partition("@")
    if name not in models.list_models(module=models):
        raise EncoderError(
            f"torchvision has no model {name!r}. {nearest(name, models.list_models(module=models))} Expected one of its"
            " classification models. Pass torchvision:NAME."
        )
    known = models.get_model_weights(name)
    if which and which not in known.__members__:
        raise EncoderError(
            f"torchvision:{name} has no weights {which!r}. {nearest(which, known.__members__)} Pass one of them"
            " after @."
        )
    weights = known[which or "DEFAULT"]
    try:
        module = models.get_model(name, weights=weights if pretrained else None, **options)
    except (TypeError, ValueError) as problem:
        raise EncoderError(
            f"torchvision:{name} takes no such option ({problem}). Expected options of the model. Correct it."
        ) from problem
    except (OSError, RuntimeError) as problem:
        if not pretrained:
            raise
        raise DataNotFoundError(
            f"the weights of torchvision:{name} cannot be fetched ({type(problem).__name__}). Expected a network, or"
            " weights in torch's cache. Pass --f-weights FILE, or --f-weights random."
        ) from problem
    _behead(module, name)
    transform = weights.transforms()
    fixed = getattr(module, "image_size", None)
    size = fixed or (transform.crop_size[0] if pretrained else None)
    crop = int(transform.crop_size[0])
    kept = crop / int(transform.resize_size[0])
    fit = Fit(size, min(kept, 1.0), resample=transform.interpolation.value, suggested=crop)
    return Built(module, Recipe(tuple(transform.mean), tuple(transform.std), fit=fit) if follow else None, size)


def _behead(module: nn.Module, model: str) -> None:
    """Replace the last linear layer by the identity."""
    name, last = next(
        (name, part)
        for name, part in reversed(list(module.named_modules()))
        if isinstance(part, (nn.Linear, nn.Conv2d))
    )
    if not isinstance(last, nn.Linear):
        raise EncoderError(
            f"torchvision:{model} ends in a convolution, not in a linear layer that could be taken off. Expected a net"
            " with one. Pass a function that returns the part to audit: file.py:factory."
        )
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, nn.Identity())

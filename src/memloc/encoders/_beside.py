"""Where a projection head lies in a checkpoint: by its name, beside the encoder that it was trained with."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

# Of two heads side by side the one that is named first here is taken.
_PROJECTORS = (
    "projector",
    "projection_head",
    "proj_head",
    "projection",
    "expander",
    "contrastive_head",
    "mlp_head",
    "dino_head",
    "head",
    "fc",
)
_PREDICTORS = ("predictor", "prediction_head", "pred_head")
_COPIES = frozenset(("momentum", "target", "ema", "k", "key", "teacher"))  # words that name the slow network of a pair
_LEARNERS = frozenset(("student", "online", "q", "query", "base"))  # and those that name the other
HEADS = tuple(f"{name}." for name in _PROJECTORS + _PREDICTORS)


@dataclass(frozen=True)
class Found:
    """A head in a checkpoint.

    Attributes:
        weights: by names below the head; below "projector." and "predictor." where there are both.
        places: what the names in the checkpoint begin with.
    """

    weights: dict[str, Tensor]
    places: tuple[str, ...]


def head_beside(state: Mapping[str, Tensor], encoder: str, taken: Iterable[str]) -> Found:
    """The projection head that an encoder was trained with; an empty one where there is none.

    A projection head is what lies under a name such as projector, projection_head, head or fc, in the encoder or beside
    it. A single linear layer under head or fc is a classifier, unless it is that of a query encoder (MoCo v1); two or
    more are a projection head. The head of a teacher or momentum encoder is that network's own, and a predictor
    belongs to the other one.

    Args:
        state: a whole checkpoint, by path. encoder: what the encoder's names begin with, with a dot, or "". taken: the
            encoder's own names.

    >>> from torch import ones
    >>> names = ("backbone.w", "projector.0.weight", "momentum_backbone.w", "momentum_projector.0.weight")
    >>> state = {name: ones(2, 2) for name in names}
    >>> head_beside(state, "backbone.", ["backbone.w"]).places, head_beside(state, "momentum_backbone.", []).places
    (('projector',), ('momentum_projector',))
    """
    own = set(taken)
    places = [
        place
        for place in _places({name: value for name, value in state.items() if name not in own})
        if encoder.startswith(place.parent)
        and _is_copy(encoder[len(place.parent) :]) == _is_copy(place.leaf)
        and not place.is_classifier
    ]
    if not any(place.name in _PROJECTORS for place in places):
        return Found({}, ())
    return _joined(places, lambda place: -len(place.parent))


def head_within(state: Mapping[str, Tensor]) -> Found:
    """The projection head of a checkpoint that may hold more: a teacher's where there is one, else the one that learns;
    an empty one where no name is a head's.

    >>> from torch import ones
    >>> head_within({"module.projector.0.weight": ones(2, 2), "module.queue": ones(2)}).weights.keys()
    dict_keys(['0.weight'])
    """
    places = [place for place in _places(state) if not _is_one_of_several(place, state)]
    taught = [place for place in places if "teacher" in _words(place.path)]
    places = taught or [place for place in places if not _is_copy(place.path)] or places
    return _joined(places, lambda place: place.parent.count("."))


@dataclass(frozen=True)
class _Place:
    """A name of a head in a checkpoint.

    Attributes:
        parent: what stands before it, with a dot, or "". leaf: its last part, such as momentum_projector. name: the
            same without the words that tell copies apart. weights: what lies below.
    """

    parent: str
    leaf: str
    name: str
    weights: dict[str, Tensor]

    @property
    def path(self) -> str:
        return self.parent + self.leaf

    @property
    def is_classifier(self) -> bool:
        matrices = sum(value.ndim == 2 and value.shape[1] > 1 for value in self.weights.values())
        of_moco = {"encoder_q", "encoder_k"} & set(self.parent.split("."))
        return self.name in ("head", "fc") and matrices < 2 and not of_moco


def _places(state: Mapping[str, Tensor]) -> list[_Place]:
    """Every place of a head, by the first part of a name that names one."""
    found: dict[str, _Place] = {}
    for path, value in state.items():
        parts = path.split(".")
        for number, leaf in enumerate(parts[:-1]):
            name = "_".join(word for word in leaf.split("_") if word not in _COPIES | _LEARNERS)
            if name in _PROJECTORS + _PREDICTORS:
                parent = "".join(f"{part}." for part in parts[:number])
                place = found.setdefault(parent + leaf, _Place(parent, leaf, name, {}))
                place.weights[".".join(parts[number + 1 :])] = value
                break
    return list(found.values())


def _is_one_of_several(place: _Place, state: Mapping[str, Tensor]) -> bool:
    """Whether a place is one layer among others, as `fc` is in an MLP of `projection`, `fc` and `norm`."""
    layers = {path.rpartition(".")[0] for path in state if path.startswith(place.parent)}
    beside = [layer for layer in layers if layer != place.path and "." not in layer[len(place.parent) :]]
    return set(place.weights) <= {"weight", "bias"} and any(len(layer) > len(place.parent) for layer in beside)


def _joined(places: list[_Place], distance: Callable[[_Place], int]) -> Found:
    """The nearest projector and the nearest predictor."""
    nearest: dict[str, _Place] = {}
    for part, names in (("projector", _PROJECTORS), ("predictor", _PREDICTORS)):
        fitting = [place for place in places if place.name in names]
        if fitting:
            nearest[part] = min(fitting, key=lambda place: (distance(place), names.index(place.name)))
    weights = {
        f"{part}.{own}" if len(nearest) > 1 else own: value
        for part, place in nearest.items()
        for own, value in place.weights.items()
    }
    return Found(weights, tuple(place.path for place in nearest.values()))


def _is_copy(path: str) -> bool:
    return bool(_words(path) & _COPIES)


def _words(path: str) -> set[str]:
    return set(re.split(r"[._]", path))

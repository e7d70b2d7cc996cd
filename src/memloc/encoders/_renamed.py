"""Names of weights that are not the encoder's own, brought to them: without what wrappers put in, by libraries'
filters, and by the hooks with which a module takes older names."""

from __future__ import annotations

import copy
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from memloc.encoders._checkpoints import tensors_of

_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module", "module")
_OLD = ((r"\.gamma$", ".weight"), (r"\.beta$", ".bias"), (r"(denselayer\d+\.(?:norm|conv))\.(\d)\.", r"\1\2."))
_IGNORED = ("num_batches_tracked", "total_ops", "total_params", "_extra_state")

Renamed = tuple[str, dict[str, Tensor], list[str]]


def renamed_states(state: Mapping[str, Tensor], module: nn.Module, heads: tuple[str, ...]) -> Iterator[Renamed]:
    """Ways to read a state by other names: how, the encoder's weights by its own names, and what is left over.

    Args:
        state: weights, by the names of a checkpoint. module: the encoder, which is not changed.
        heads: how names begin that may be left over.
    """
    own = tensors_of(module)
    plain = without_wrappers(state, own)
    for how, names in (
        ("without the names of wrappers", plain),
        ("older names of layers", _older(plain, own)),
        ("timm's own filter of checkpoints", _by_timm(plain, module)),
    ):
        if names is not None and any(name in own for name in names):
            found = _loaded(names, module, heads)
            if found is not None:
                yield how, *found
    found = _by_transformers(plain, module, heads)
    if found is not None:
        yield "transformers' own names of older checkpoints", *found


def without_wrappers(state: Mapping[str, Tensor], own: Mapping[str, Any]) -> dict[str, Tensor]:
    """Names without the parts that torch.compile, FSDP, checkpointing and DataParallel put in, and without counters.

    >>> from torch import ones
    >>> without_wrappers({"layer1._orig_mod.weight": ones(1), "total_ops": ones(1)}, {"layer1.weight": ones(1)}).keys()
    dict_keys(['layer1.weight'])
    """
    known = {part for name in own for part in name.split(".")}
    drop = set(_WRAPPERS) - known
    return {
        ".".join(part for part in name.split(".") if part not in drop): value
        for name, value in state.items()
        if not name.endswith(_IGNORED)
    }


def _older(state: Mapping[str, Tensor], own: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """Names of old checkpoints: gamma and beta of norms, and torchvision's old DenseNets; None where there are none."""
    found = {}
    for name, value in state.items():
        new = name
        if name not in own:
            for pattern, replacement in _OLD:
                new = re.sub(pattern, replacement, new)
        found[new] = value
    return found if found.keys() != dict(state).keys() else None


def _by_timm(state: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor] | None:
    """What timm's filter for the model makes of a checkpoint: other sizes of images, published names."""
    home = sys.modules.get(type(module).__module__)
    if home is None or not type(module).__module__.startswith("timm."):
        return None
    filtered = getattr(home, "checkpoint_filter_fn", None)
    if filtered is None:
        return None
    try:
        found = filtered(dict(state), module)
    except Exception:  # a filter for other checkpoints raises whatever it meets
        return None
    return {str(name): value for name, value in found.items() if isinstance(value, Tensor)}


def _by_transformers(
    state: Mapping[str, Tensor], module: Any, heads: tuple[str, ...]
) -> tuple[dict[str, Tensor], list[str]] | None:
    """What transformers' loader makes of a checkpoint of an older version, and what it has no place for; None where
    weights are missing."""
    kind = type(module)
    if not kind.__module__.startswith("transformers.") or not hasattr(kind, "from_pretrained"):
        return None
    from memloc.encoders.from_transformers import quiet

    parts = {"add_pooling_layer": False} if getattr(module, "pooler", 0) is None else {}
    try:
        with quiet():
            loaded, report = kind.from_pretrained(
                None, config=copy.deepcopy(module.config), state_dict=dict(state), output_loading_info=True, **parts
            )
    except Exception:  # whatever the library meets in a checkpoint of something else
        return None
    if report["missing_keys"] or report["mismatched_keys"]:
        return None
    over = [str(name) for name in report["unexpected_keys"]]
    return tensors_of(loaded), [name for name in over if not name.startswith(heads) and not name.endswith(_IGNORED)]


def _loaded(
    state: Mapping[str, Tensor], module: nn.Module, heads: tuple[str, ...]
) -> tuple[dict[str, Tensor], list[str]] | None:
    """The weights that a copy of the module has after it took a state by its own hooks; None where some are missing."""
    trial = copy.deepcopy(module)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            missing, unexpected = trial.load_state_dict(dict(state), strict=False)
    except Exception:  # other shapes, or a hook that takes other states
        return None
    if any(not name.endswith(_IGNORED) for name in missing):
        return None
    return tensors_of(trial), [name for name in unexpected if not name.startswith(heads)]

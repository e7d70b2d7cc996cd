"""Find an encoder's weights in the checkpoints that others write: nested dictionaries, prefixes, and heads beside the
encoder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from memloc.encoders._beside import HEADS, Found, head_beside
from memloc.encoders._renamed import renamed_states
from memloc.errors import CheckpointError, nearest

HEADS_BESIDE = (  # parts that training adds to an encoder
    *HEADS,
    "heads.",
    "classifier.",
    "linear.",
    "prototypes.",
    "decoder",
    "mask_token",
    "pooler.",
    "queue",
    "last_layer.",
    "ibot_head.",
    "lm_head.",
    "embeddings.mask_token",
    "fc_norm.",
    "norm_pix",
    "head_dist.",
)
# Copies by what their keys are called: those that are published and evaluated, and those that are neither.
_FIRST = (
    *("ema", "state_dict_ema", "model_ema", "ema_model", "ema_state_dict", "params_ema", "ema_params"),
    *("target_encoder", "teacher", "teacher_model", "teacher_backbone"),
)
_SECOND = ("student", "momentum", "encoder_k", "target", "_k.")
_CHILDREN = {
    "0": "conv1",
    "1": "bn1",
    "4": "layer1",
    "5": "layer2",
    "6": "layer3",
    "7": "layer4",
}  # of a ResNet, by number
_SIGNS = (  # what a layout is called, and what gives it away: a nested key, and a part of the prefix
    ("DINO", "teacher", "backbone."),
    ("MoCo", "state_dict", "encoder_q."),
    ("MoCo v3", "state_dict", "base_encoder."),
    ("solo-learn or lightly", "state_dict", "backbone."),
    ("solo-learn", "state_dict", "encoder."),
    ("lightly", "", "backbone."),
    ("DINO", "teacher", ""),
    ("MAE", "model", ""),
)


_COUNTERS = ("total_ops", "total_params", "num_batches_tracked", "_extra_state")  # of profilers and of training
_TRIED = 8  # copies of which other names are tried
_CHUNK = re.compile(r"(\bblocks\.)\d+\.(?=\d+\.)")
_TIMM = (
    "These are the names of timm and of the published repositories of MAE, DINO and DINOv2: pass the encoder as"
    " timm:NAME, such as timm:vit_small_patch14_dinov2, with this file as its weights."
)


@dataclass(frozen=True)
class Picked:
    """An encoder's weights from a checkpoint.

    Attributes:
        weights: by the encoder's own names. note: where they were found, in words; "" for a plain state_dict.
        head: of the projection head that lies beside them, for `build_head`; empty where there is none.
    """

    weights: dict[str, Tensor]
    note: str
    head: dict[str, Tensor]


def pick_weights(
    content: Mapping[str, Any],
    own: Mapping[str, Tensor],
    *,
    name: str,
    state_key: str | None = None,
    strip_prefix: str | None = None,
    module: nn.Module | None = None,
) -> Picked:
    """The weights in a checkpoint that have an encoder's own names, once a prefix is taken away.

    Checkpoints of DINO, DINOv2, MAE, MoCo, SimCLR, lightly and solo-learn are recognized by trying: every nested
    dictionary and every prefix under which all of the encoder's names are found. Of two such copies the one that the
    method publishes and evaluates is taken (averaged weights, DINO's teacher, I-JEPA's target encoder, MoCo's query
    encoder, the online rather than the momentum network); the others are named, with the flags that take them.

    Where no copy has the encoder's names, names are brought to those of the module: without parts that wrappers put in
    (`_orig_mod`, `module`), by the library's own filter, and by the hooks of the module.

    The projection head is that of the same copy: layers named projector, projection_head, head, fc and the like, in the
    encoder or beside it, with the predictor of SimSiam, BYOL and MoCo v3. A single linear layer named head or fc, or
    anything named classifier, is a classifier and no projection head, except in MoCo's query encoder.

    Args:
        content: what `read_weights` read. own: the encoder's state_dict. name: of the checkpoint, for messages.
        state_key: the nested dictionary to use, such as "teacher" or "model.ema". strip_prefix: the prefix to take
            away. module: the encoder, for what its hooks and its library make of other names.
    Raises:
        CheckpointError: names that are missing or unexpected, with the nearest ones; no such key or prefix; two copies
            that fit.

    >>> from torch import ones
    >>> state = {"module.encoder_q.w": ones(1), "module.encoder_q.fc.weight": ones(2, 2), "module.queue": ones(1)}
    >>> picked = pick_weights({"state_dict": state}, {"w": ones(1)}, name="moco.pth")
    >>> print(picked.note)
    MoCo layout: 'state_dict' without the prefix 'module.encoder_q.',
    projection head found in 'state_dict.module.encoder_q.fc'
    >>> picked.head.keys()
    dict_keys(['weight'])
    """
    buffers = set() if module is None else {each for each, _ in module.named_buffers()} - set(own)
    options = [
        replace(option, unexpected=[each for each in option.unexpected if each not in buffers])
        for option in _options(content, own, name, state_key, strip_prefix)
    ]
    whole = [option for option in options if not option.missing]
    if module is not None and not any(option.fits(own) for option in whole):
        renamed = _renamed(options, module, own)
        options, whole = options + renamed, renamed or whole
    online = any("online" in option.where for option in whole)  # whose targets are no more than targets
    ranks = {option.where: _rank(option.where, online=online) for option in whole}
    first = [option for option in whole if ranks[option.where] == min(ranks.values())]
    found = {option.where: option for option in first if not option.unexpected} or {
        option.where: option for option in first
    }
    if not found:
        best = max(options, key=lambda option: len(option.weights), default=None)
        raise _misfit(name, best, own, content)
    if len(found) > 1 and not _same(list(found.values())):
        listed = ", ".join(f"{where!r} ({option.flags})" for where, option in found.items())
        raise CheckpointError(
            f"{name} holds {len(found)} copies that fit the encoder, under {listed}. Expected one. Say which with"
            " --state-key or --strip-prefix."
        )
    chosen = next(iter(found.values()))
    if chosen.unexpected:
        raise _misfit(name, chosen, own, content)
    head = head_beside(flat(content), _path(chosen.key, chosen.prefix), chosen.taken)
    others = {option.where: option for option in whole if not option.unexpected and not _same([chosen, option])}
    note = chosen.note(head)
    if others:
        note += f"; {'another copy lies' if len(others) == 1 else 'other copies lie'} in " + ", ".join(
            f"{where.strip('./')!r} ({option.flags})" for where, option in list(others.items())[:3]
        )
    return Picked(chosen.weights, note, head.weights)


def _rank(where: str, *, online: bool = False) -> int:
    """0 for a copy that is published and evaluated, 2 for one that is not, 1 for others.

    Args:
        online: whether there is an online network, which BYOL publishes rather than its target.
    """
    parts = [part for part in re.split(r"[./]", where) if part]
    if any(part in _FIRST for part in parts) and not (online and "target" in where):
        return 0
    return 2 if any(sign in where for sign in _SECOND) else 1


def _renamed(options: list[Option], module: nn.Module, own: Mapping[str, Tensor]) -> list[Option]:
    """The same copies with names and shapes that the encoder's hooks, its library, or the lack of a wrapper explain."""
    found: dict[str, Option] = {}
    for option in sorted(options, key=lambda option: -len(option.weights))[:_TRIED]:
        if option.where in found or not option.under:
            continue
        for how, weights, unexpected in renamed_states(option.under, module, HEADS_BESIDE):
            if all(each in weights for each in own if not each.endswith(_COUNTERS)):
                taken = [_path(option.key, f"{option.prefix}{each}") for each in option.under]
                plain = replace(option, missing=[], left_out=[], unexpected=unexpected)
                found[option.where] = replace(plain, weights=weights, taken=taken, renamed=how)
                break
    return list(found.values())


def flat(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Every tensor of a checkpoint, by its path through nested dictionaries.

    >>> from torch import ones
    >>> flat({"epoch": 3, "teacher": {"head.weight": ones(1)}})
    {'teacher.head.weight': tensor([1.])}
    """
    return {_path(key, each): value for key, state in _states(content) for each, value in state.items()}


@dataclass(frozen=True)
class Option:
    """One way to read a checkpoint; `taken` and `left_out` are paths in it."""

    key: str
    prefix: str
    weights: dict[str, Tensor]
    missing: list[str]
    unexpected: list[str]
    taken: list[str]
    left_out: list[str]
    masked: bool  # whether a decoder or mask token lies beside the encoder
    renamed: str
    under: dict[str, Tensor]  # everything under the prefix, by its name without it

    @property
    def where(self) -> str:
        return f"{self.key}/{self.prefix}" if self.key else self.prefix

    def fits(self, own: Mapping[str, Tensor]) -> bool:
        """Whether every weight has the encoder's shape."""
        return all(own[name].shape == value.shape for name, value in self.weights.items())

    @property
    def flags(self) -> str:
        """What to type to take it."""
        found = [f"--state-key {self.key}"] if self.key else []
        return " ".join([*found, *([f"--strip-prefix {self.prefix}"] if self.prefix else [])]) or "no flag"

    def note(self, head: Found) -> str:
        signs = (name for name, key, part in _SIGNS if key == self.key and part in self.prefix)
        layout = next((name for name in signs if name != "MAE" or self.masked), None)
        parts = [repr(self.key)] if self.key else []
        if self.prefix:
            parts.append(f"without the prefix {self.prefix!r}")
        left_out = [path for path in self.left_out if not path.startswith(tuple(f"{place}." for place in head.places))]
        if left_out:
            parts.append(f"{len(left_out)} entries of heads left out")
        found = [f"projection head found in {' and '.join(map(repr, head.places))}"] if head.places else []
        words = ", ".join([*([" ".join(parts)] if parts else []), *([self.renamed] if self.renamed else []), *found])
        return f"{layout} layout: {words}" if layout else words


def _options(
    content: Mapping[str, Any], own: Mapping[str, Tensor], name: str, state_key: str | None, strip_prefix: str | None
) -> Iterator[Option]:
    states = dict(_states(content))
    if strip_prefix and not strip_prefix.endswith("."):
        with_dot = any(each.startswith(f"{strip_prefix}.") for state in states.values() for each in state)
        strip_prefix = f"{strip_prefix}." if with_dot else strip_prefix
    if state_key is not None:
        if state_key not in states:
            keys = [key for key in states if key]
            raise CheckpointError(
                f"{name} has no weights under {state_key!r}."
                f" {nearest(state_key, keys) if keys else 'It has no nested dictionaries.'} Expected the key of a"
                " dictionary of tensors. Pass another --state-key, or none."
            )
        states = {state_key: states[state_key]}
    for key, state in states.items():
        for renamed, names in (
            ("", {each: each for each in state}),
            ("numbered children as a ResNet's", _as_resnet(state, own)),
            ("blocks without the number of their chunk", _without_chunks(state)),
        ):
            if not names:
                continue
            prefixes = {strip_prefix} if strip_prefix is not None else _prefixes(names.values(), own)
            for prefix in sorted(prefixes, key=lambda prefix: (len(prefix), prefix)):
                under = {new.removeprefix(prefix): old for old, new in names.items() if new.startswith(prefix)}
                if strip_prefix is not None and not under:
                    continue
                weights = {each: state[under[each]] for each in own if each in under}
                missing = [each for each in own if each not in under and not each.endswith("num_batches_tracked")]
                extra = [each for each in under if each not in own and not each.endswith(_COUNTERS)]
                unexpected = [each for each in extra if not each.startswith(HEADS_BESIDE)]
                taken = [_path(key, under[each]) for each in weights]
                left_out = [_path(key, under[each]) for each in extra if each.startswith(HEADS_BESIDE)]
                masked = any("mask_token" in each or "decoder" in each for each in extra)
                below = {each: state[old] for each, old in under.items()}
                yield Option(key, prefix, weights, missing, unexpected, taken, left_out, masked, renamed, below)
    if strip_prefix is not None and not any(
        each.startswith(strip_prefix) for state in states.values() for each in state
    ):
        known = sorted({each.split(".")[0] + "." for state in states.values() for each in state})
        raise CheckpointError(
            f"{name} has no weights that begin with {strip_prefix!r}. {nearest(strip_prefix, known)}"
            " Expected a prefix of its names. Pass another --strip-prefix, or none."
        )


def _states(
    content: Mapping[str, Any], path: str = "", above: tuple[int, ...] = ()
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every dictionary of tensors in a checkpoint, by its path of keys; one that holds itself is entered once."""
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if tensors:
        yield path, tensors
    for key, value in content.items():
        trained = any(word in str(key) for word in ("optimizer", "scheduler"))
        if isinstance(value, Mapping) and not trained and id(value) not in above:
            yield from _states(value, f"{path}.{key}" if path else str(key), (*above, id(content)))


def _path(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _prefixes(names: Any, own: Mapping[str, Tensor]) -> set[str]:
    """Prefixes under which one of the encoder's names stands; the empty one too."""
    anchors = [each for each in own if each.endswith("weight")][:1] + list(own)[-1:]
    return {""} | {each[: -len(anchor)] for each in names for anchor in anchors if each.endswith(anchor)}


def _as_resnet(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, str]:
    """Names of a ResNet's children by number, as in nn.Sequential(*resnet.children()), as the ResNet's own; {} for
    other encoders."""
    if not any(each.startswith("layer4.") for each in own):
        return {}
    renamed = {}
    for name in state:
        parts = name.split(".")
        place = next((place for place, part in enumerate(parts) if part.isdigit()), None)
        if place is not None and parts[place] in _CHILDREN and "layer" not in name:
            parts[place] = _CHILDREN[parts[place]]
            renamed[".".join(parts)] = name
    return {old: new for new, old in renamed.items()}


def _without_chunks(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Names such as blocks.1.7.norm1.weight, of training files of DINOv2, as blocks.7.norm1.weight; {} where there are
    none."""
    if not any(_CHUNK.search(each) for each in state):
        return {}
    return {each: _CHUNK.sub(r"\1", each) for each in state}


def _same(options: list[Option]) -> bool:
    """Whether copies under several keys are one and the same tensors."""
    return all(
        option.weights.keys() == options[0].weights.keys()
        and all(_equal(option.weights[name], options[0].weights[name]) for name in option.weights)
        for option in options
    )


def _equal(one: Tensor, two: Tensor) -> bool:
    return one.data_ptr() == two.data_ptr() or (one.shape == two.shape and torch.equal(one, two))


def _misfit(name: str, option: Option | None, own: Mapping[str, Tensor], content: Mapping[str, Any]) -> CheckpointError:
    if option is None or not option.weights:
        held = [each for _, state in _states(content) for each in state]
        example = next(iter(own), "")
        step = "Pass the checkpoint of this architecture, or --state-key and --strip-prefix."
        return CheckpointError(
            f"{name} does not fit the encoder: none of its {len(held)} keys is one of the encoder's {len(own)}."
            f" {nearest(example, held)} Expected {example!r} and so on, after a prefix."
            f" {_TIMM if _is_timms(held, own) else step}"
        )
    example = option.missing[0] if option.missing else option.unexpected[0]
    others = option.unexpected if option.missing else list(own)
    where = f" under {option.where!r}" if option.where else ""
    return CheckpointError(
        f"{name} does not fit the encoder: {len(option.missing)} keys are missing and {len(option.unexpected)}"
        f" unexpected{where}, such as {example!r}. {nearest(example, others) if others else ''} Expected the keys of"
        " its state_dict. "
        + (
            _TIMM
            if _is_timms([each for _, state in _states(content) for each in state], own)
            else "Pass the checkpoint of this architecture, or --state-key and --strip-prefix."
        )
    )


def _is_timms(held: list[str], own: Mapping[str, Tensor]) -> bool:
    """Whether a checkpoint has the names of timm's ViTs and the encoder does not."""
    return any("blocks." in each and ".attn.qkv." in each for each in held) and not any(
        ".attn.qkv." in each for each in own
    )

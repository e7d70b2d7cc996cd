"""What an encoder returns as one vector per image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from memloc.encoders._flow import as_tensor
from memloc.encoders._layer import Layer
from memloc.errors import EncoderError, nearest

AUTO = "auto"
EMBEDDINGS = ("image_embeds", "pooler_output", "image_features", "embedding", "embeddings", "x_norm_clstoken")
"""What models that return several tensors call the one that they are used by."""
_POOLED, _CLS, _TOKENS = "pooled", "cls", "tokens"
_MAP = 4  # axes
_TOKEN_KEYS = ("last_hidden_state", "x_norm_patchtokens")


def output_name(output: object, take: str = AUTO) -> str:
    """Which of an encoder's tensors is its output, in words.

    Args:
        take: "auto", "pooled", "cls", "tokens", or a key or place of what it returns.

    >>> output_name({"last_hidden_state": 0, "pooler_output": 1}), output_name({"last_hidden_state": 0}, "cls")
    ('pooler_output', 'the first token of last_hidden_state')
    """
    key, what = _key(output, take), "what it returns"
    if key is not None:
        what = str(key)
    elif isinstance(output, (tuple, list)) and len(output) > 1:
        what = f"the first of {len(output)} it returns"
    if take == _CLS:
        return f"the first token of {what}"
    tensor = as_tensor(output) if key is None else as_tensor(output[key])  # type: ignore[index]
    axes = 0 if tensor is None or tuple(tensor.shape[2:]) == (1, 1) else tensor.ndim
    if take == _TOKENS or (key in _TOKEN_KEYS and take == AUTO and axes != _MAP):
        return f"the mean over the tokens of {what}"
    return f"the mean over the places of {what}" if axes == _MAP else what


def output_of(output: object, take: str = AUTO) -> Tensor | None:
    """The tensor that is read as an encoder's output; None where it returns none.

    Of several, the embedding that the model is used by is taken where it names one (image_embeds, pooler_output), else
    last_hidden_state, else the first.

    Raises:
        EncoderError: a name or a kind that is not there.

    >>> import torch
    >>> given = {"last_hidden_state": torch.ones(2, 5, 3), "pooler_output": torch.zeros(2, 3)}
    >>> output_of(given).shape, output_of(given, "cls").shape, output_of(given, "tokens").shape
    (torch.Size([2, 3]), torch.Size([2, 3]), torch.Size([2, 5, 3]))
    """
    key = _key(output, take)
    whole: Any = output
    tensor = as_tensor(output) if key is None else as_tensor(whole[key])
    if take == _CLS and tensor is not None:
        if tensor.ndim != 3:
            raise EncoderError(
                f"the encoder returns shape {tuple(tensor.shape)}, which has no tokens. Expected (point, token,"
                " feature) for the output cls. Pass --output auto."
            )
        return tensor[:, 0]
    return tensor


def features_of(output: object) -> Tensor:
    """An encoder's output as one vector per view: tokens and maps are averaged.

    >>> import torch
    >>> features_of(torch.ones(2, 5, 3)).shape, features_of(torch.ones(2, 3, 4, 4)).shape
    (torch.Size([2, 3]), torch.Size([2, 3]))
    """
    return _averaged(output_of(output), output)


def features_at(layer: Layer, output: object) -> Tensor:
    """The same of the row that an encoder's output is read as, which says which of its tensors that is."""
    return averaged(layer, output_of(output, layer.take))


def averaged(layer: Layer, tensor: Tensor | None) -> Tensor:
    """What was read of a row as one vector per view; its units may be the last axis of four.

    >>> import torch
    >>> averaged(Layer("output", "", 0, "output", None, 3, last=True), torch.ones(2, 4, 5, 3)).shape
    torch.Size([2, 3])
    """
    if tensor is not None and tensor.ndim == 4 and layer.last:
        tensor = tensor.movedim(3, 1)
    return _averaged(tensor, tensor)


def _averaged(tensor: Tensor | None, output: object) -> Tensor:
    if tensor is None or tensor.ndim not in (2, 3, 4):
        shape = type(output).__name__ if tensor is None else tuple(tensor.shape)
        raise EncoderError(
            f"the encoder returns {shape}. Expected (point, feature), (point, token, feature) or (point, channel,"
            " height, width). Wrap it in a module that returns one of these."
        )
    if tensor.ndim == 3:
        return tensor.mean(dim=1)
    return tensor.mean(dim=(2, 3)) if tensor.ndim == 4 else tensor


def _key(output: object, take: str) -> Any:
    """Where in what an encoder returns its output is; None for the whole, or the first tensor in it."""
    if isinstance(output, Mapping):
        known = [key for key in output if output[key] is not None]
        if take in (AUTO, _POOLED):
            found = next((key for key in EMBEDDINGS if key in known), None)
            if found is not None or take == AUTO:
                return found if found is not None else "last_hidden_state" if "last_hidden_state" in known else None
            raise _absent("pooled output", known)
        if take in (_CLS, _TOKENS):
            found = next((key for key in _TOKEN_KEYS if key in known), None)
            if found is None:
                raise _absent("tokens", known)
            return found
        if take not in known:
            raise _absent(repr(take), known, take)
        return take
    if take in (AUTO, _CLS, _TOKENS) or isinstance(output, Tensor):
        if take in (AUTO, _CLS, _TOKENS):
            return None
        raise _absent(repr(take), ["one tensor"])
    places = list(range(len(output))) if isinstance(output, (tuple, list)) else []
    if take.isdigit() and int(take) in places:
        return int(take)
    raise _absent(repr(take), [str(place) for place in places], take)


def _absent(what: str, known: list[str], take: str | None = None) -> EncoderError:
    step = nearest(take, known) if take is not None and known else f"It returns {', '.join(map(str, known))}."
    return EncoderError(
        f"the encoder returns no {what}. {step} Expected auto, pooled, cls, tokens or a name of what it returns. Pass"
        " another --output."
    )

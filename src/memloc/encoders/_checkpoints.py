"""Weights on disk: safetensors, or PyTorch files that cannot run code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memloc.encoders._index import INDEX, index_of, read_shards
from memloc.encoders._inert import Refused, read_inert
from memloc.errors import CheckpointError, DataNotFoundError, EncoderError, NonFiniteError, nearest
from memloc.results import CHECKSUM, new_digest, replacing, verify

_EXTRA = "_extra_state"


def read_weights(path: str | Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Read a checkpoint: its tensors by name, in dictionaries as they were saved, and the text metadata of a
    safetensors file.

    PyTorch files are read with `weights_only=True`, and where that refuses with stand-ins for what is known to be
    inert. A folder, or an index of shards, gives all of them. `pick_weights` finds the encoder in what is returned.

    Raises:
        DataNotFoundError: no such file. CheckpointError: unreadable, or a file that would run code when loaded.
    """
    path = index_of(Path(path).expanduser())
    if path.name.endswith(INDEX):
        return read_shards(path, lambda shard: _read_one(shard)[0]), {}
    return _read_one(path)


def _read_one(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """One file of weights."""
    if not path.is_file():
        raise DataNotFoundError(
            f"there is no checkpoint {str(path)!r}. Expected a .safetensors or PyTorch file, or the index of several."
            " Check the path."
        )
    verify(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    content = _read_torch(path)
    if not isinstance(content, Mapping) or not content or not _has_tensors(content):
        raise CheckpointError(
            f"{path} holds no dictionary of tensors. Expected the state_dict of an encoder. Save model.state_dict()"
            " alone."
        )
    return dict(content), {}


def _read_torch(path: Path) -> Any:
    """What a PyTorch file holds: its tensors, and stand-ins for what else is known to be inert."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as first:  # torch.load raises whatever the bytes lead it to
        try:
            return read_inert(path)
        except Refused as problem:
            raise CheckpointError(
                f"{path} holds {problem.what}, a Python object that would run code when loaded, so it was not opened."
                f" Expected tensors, text and numbers. Save model.state_dict() alone; or, if you know who made it, take"
                f" its tensors out in a process of its own: memloc convert {path} --trust"
            ) from problem
        except Exception:
            raise CheckpointError(
                f"{path} is no complete PyTorch checkpoint ({first}). Expected one. Save it again."
            ) from first


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The tensors and the metadata, which must have the checksum that is among it, if any."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as opened:
            names = opened.keys()
            tensors = {name: opened.get_tensor(name) for name in names}
            metadata = dict(opened.metadata() or {})
    except (SafetensorError, OSError, ValueError, UnicodeDecodeError) as problem:
        raise CheckpointError(
            f"{path} is no complete safetensors file ({problem}). Expected one. Save it again."
        ) from problem
    checksum = metadata.pop(CHECKSUM, None)
    if checksum is not None and checksum != _checksum(tensors, metadata):
        raise CheckpointError(
            f"{path} is damaged: its weights do not have the checksum that was stored with them. Expected the file as"
            " memloc wrote it. Restore it, or train it again."
        )
    return tensors, metadata


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """A hash of tensors, their names, shapes and number formats, and of text stored with them."""
    found = new_digest()
    for name, value in sorted(tensors.items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().data)
    found.update(repr(sorted(metadata.items())).encode())
    return found.hexdigest()


def _has_tensors(content: Mapping[str, Any], above: tuple[int, ...] = ()) -> bool:
    inner = (*above, id(content))
    return any(
        isinstance(value, Tensor)
        or (isinstance(value, Mapping) and id(value) not in inner and _has_tensors(value, inner))
        for value in content.values()
    )


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], *, name: str) -> None:
    """Copy weights into a module, in place; every key must fit.

    Raises:
        CheckpointError: keys that are missing or unexpected, or shapes that differ, with the nearest names.
    """
    own = tensors_of(module)
    missing = sorted(key for key in set(own) - set(weights) if not key.endswith("num_batches_tracked"))
    unexpected = sorted(set(weights) - set(own))
    if missing or unexpected:
        example = missing[0] if missing else unexpected[0]
        others = unexpected if missing else list(own)
        raise CheckpointError(
            f"{name} does not fit the encoder: {len(missing)} keys are missing and {len(unexpected)} unexpected, such"
            f" as {example!r}. {nearest(example, others) if others else ''} Expected the keys of its state_dict. Pass"
            " the checkpoint of this architecture."
        )
    shapes = [key for key in own if key in weights and own[key].shape != weights[key].shape]
    if shapes:
        key = shapes[0]
        raise CheckpointError(
            f"{name} does not fit the encoder: {key!r} has shape {tuple(weights[key].shape)} and {len(shapes) - 1} more"
            f" differ. Expected {tuple(own[key].shape)}. Pass the checkpoint of this architecture."
        )
    complete = {key: weights.get(key, value) for key, value in module.state_dict().items()}
    module.load_state_dict(complete)


def save_weights(path: Path, module: nn.Module, metadata: Mapping[str, str]) -> None:
    """Write a module's weights as safetensors, whole or not at all."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous().clone() for name, value in module.state_dict().items()}
    with replacing(path) as temporary:
        try:
            save_file(state, temporary, metadata={**metadata, CHECKSUM: _checksum(state, metadata)})
        except SafetensorError as problem:  # the disk is full, for instance
            raise OSError(str(problem)) from problem
        _sort_metadata(temporary)


def _sort_metadata(path: Path) -> None:
    """Put the metadata in order of its names, which safetensors writes in another one every time."""
    with path.open("rb+") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > length:
            raise OSError(f"the header of {path} does not fit its place")
        file.seek(8)
        file.write(text.ljust(length))


def fingerprint(module: nn.Module) -> str:
    """A hash of a module's weights and their names."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(tensors_of(module).items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_finite(module: nn.Module, *, name: str) -> None:
    """Raise NonFiniteError if any weight is NaN or infinite."""
    for key, value in tensors_of(module).items():
        if value.is_floating_point() and not value.isfinite().all():
            raise NonFiniteError(
                f"{name} has NaN or Inf in {key!r}. Expected finite weights. Pass a checkpoint from before training"
                " diverged."
            )


def check_storable(module: nn.Module, *, name: str, stored: bool = True) -> None:
    """Raise EncoderError for a module whose state is no plain tensors: lazy, quantized or on no device, or with a state
    of its own beside them.

    Args:
        stored: whether it will be written, so that a state of its own would be lost.
    """
    for key, part in module.named_modules():
        held = (*part._parameters.values(), *part._buffers.values())
        if any(nn.parameter.is_lazy(each) for each in held):
            raise EncoderError(
                f"{name} has weights without a shape yet, in {key!r} ({type(part).__name__}). Expected weights. Run it"
                " once on a batch of your images first."
            )
    for key, value in module.state_dict().items():
        if key.endswith(_EXTRA) and (not stored or isinstance(value, Tensor)):
            continue
        if not isinstance(value, Tensor):
            what = "state of its own" if key.endswith(_EXTRA) else f"a {type(value).__name__}"
            raise EncoderError(
                f"{name} keeps {what} in {key!r} beside its tensors, as quantized modules do. Expected tensors alone,"
                " which are what is compared and stored. Pass the module before quantization, or without its extra"
                " state."
            )
        if value.is_quantized or value.device.type == "meta":
            what = "quantized" if value.is_quantized else "on the meta device, without values"
            raise EncoderError(
                f"{name} has weights that are {what}, such as {key!r}. Expected values. Pass the module in float32."
            )


def check_own_memory(module: nn.Module, *, name: str) -> None:
    """Raise EncoderError where two different weights lie in the same memory: copies of the module would part them."""
    seen: dict[int, str] = {}
    for key, value in module.named_parameters():  # one that has two names is listed once
        place = value.untyped_storage().data_ptr()
        if value.numel() and place in seen:
            raise EncoderError(
                f"the weights {seen[place]!r} and {key!r} of {name} are views of the same memory, which a copy or a"
                " stored file would part. Expected weights of their own, or one weight with two names. Assign the"
                " parameter itself, or a clone of it."
            )
        seen[place] = key


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """A module's state without what is no tensor."""
    return {key: value for key, value in module.state_dict().items() if isinstance(value, Tensor)}

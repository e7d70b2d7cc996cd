"""Weights on disk: safetensors, or PyTorch files that cannot run code."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from memloc.errors import CheckpointError, DataNotFoundError, NonFiniteError, nearest
from memloc.results import replacing


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a checkpoint: its tensors by name, and the text metadata of a safetensors file.

    PyTorch files are read with `weights_only=True`; a dictionary of weights under "state_dict" or "model" is found.

    Raises:
        DataNotFoundError: no such file. CheckpointError: unreadable, or a file that would run code when loaded.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise DataNotFoundError(
            f"there is no checkpoint {str(path)!r}. Expected a .safetensors or PyTorch file. Check the path."
        )
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as opened:
                return {name: opened.get_tensor(name) for name in opened.keys()}, dict(opened.metadata() or {})  # noqa: SIM118
        except (SafetensorError, OSError) as problem:
            raise CheckpointError(
                f"{path} is no complete safetensors file ({problem}). Expected one. Save it again."
            ) from problem
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as problem:
        raise CheckpointError(
            f"{path} holds Python objects that would run code when loaded, so it was not opened. Expected tensors alone. "
            "Save them with: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
        ) from problem
    except Exception as problem:  # torch.load raises whatever the bytes lead it to
        raise CheckpointError(
            f"{path} is no complete PyTorch checkpoint ({problem}). Expected one. Save it again."
        ) from problem
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(value, Tensor) for value in content.values())
    ):
        raise CheckpointError(
            f"{path} holds no dictionary of tensors. Expected the state_dict of an encoder. Save model.state_dict() alone."
        )
    return dict(content), {}


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], *, name: str) -> None:
    """Copy weights into a module, in place; every key must fit.

    Raises:
        CheckpointError: keys that are missing or unexpected, or shapes that differ, with the nearest names.
    """
    own = module.state_dict()
    missing, unexpected = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
    if missing or unexpected:
        example = missing[0] if missing else unexpected[0]
        others = unexpected if missing else list(own)
        raise CheckpointError(
            f"{name} does not fit the encoder: {len(missing)} keys are missing and {len(unexpected)} unexpected, such as "
            f"{example!r}. {nearest(example, others) if others else ''} Expected the keys of its state_dict. "
            "Pass the checkpoint of this architecture."
        )
    shapes = [key for key in own if own[key].shape != weights[key].shape]
    if shapes:
        key = shapes[0]
        raise CheckpointError(
            f"{name} does not fit the encoder: {key!r} has shape {tuple(weights[key].shape)} and {len(shapes) - 1} more differ. "
            f"Expected {tuple(own[key].shape)}. Pass the checkpoint of this architecture."
        )
    module.load_state_dict(dict(weights))


def save_weights(path: Path, module: nn.Module, metadata: Mapping[str, str]) -> None:
    """Write a module's weights as safetensors, whole or not at all."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    with replacing(path) as temporary:
        try:
            save_file(state, temporary, metadata=dict(metadata))
        except SafetensorError as problem:  # the disk is full, for instance
            raise OSError(str(problem)) from problem


def fingerprint(module: nn.Module) -> str:
    """A hash of a module's weights and their names."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_finite(module: nn.Module, *, name: str) -> None:
    """Raise NonFiniteError if any weight is NaN or infinite."""
    for key, value in module.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise NonFiniteError(
                f"{name} has NaN or Inf in {key!r}. Expected finite weights. Pass a checkpoint from before training diverged."
            )

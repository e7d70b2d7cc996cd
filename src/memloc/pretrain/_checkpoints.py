"""Checkpoints of a training: the state of an epoch by name, with the version of what it holds."""

from __future__ import annotations

import secrets
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from memloc.errors import MemlocWarning
from memloc.results import replacing

CHECKPOINT_VERSION = 2  # of what a checkpoint holds; 1 (memloc 0.1) did not say which it was


def save_checkpoint(
    path: Path,
    module: nn.Module,
    head: nn.Module,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    secret: int | None = None,
) -> None:
    """Write the state of a training after so many epochs.

    Args:
        secret: what a private training's draws follow from.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "version": CHECKPOINT_VERSION,
        "module": module.state_dict(),
        "head": head.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": epoch,
        **({} if secret is None else {"secret": secret}),
    }
    with replacing(path) as temporary:
        torch.save(content, temporary)


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """What a checkpoint holds; None where there is none, or one of another version, which is said."""
    if not path.is_file():
        return None
    stored: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if stored.get("version") != CHECKPOINT_VERSION:
        warnings.warn(
            f"the checkpoint {str(path)!r} was stored by another version of memloc ({stored.get('version', 1)}, now"
            f" {CHECKPOINT_VERSION}); its encoder is trained from the start.",
            MemlocWarning,
            stacklevel=2,
        )
        return None
    return stored


def resume_checkpoint(path: Path, module: nn.Module, head: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Take the state of a checkpoint, if there is one that can be used; returns the epochs done."""
    stored = read_checkpoint(path)
    if stored is None:
        return 0
    module.load_state_dict(stored["module"])
    head.load_state_dict(stored["head"])
    optimizer.load_state_dict(stored["optimizer"])
    return int(stored["epoch"])


def epochs_of(path: Path) -> int:
    """The epochs that a checkpoint's training has done; 0 without one that can be used."""
    stored = read_checkpoint(path)
    return 0 if stored is None else int(stored["epoch"])


def secret_of(path: Path) -> int:
    """What a private training's draws and noise follow from: new, or that of the checkpoint it goes on from."""
    stored = read_checkpoint(path)
    return secrets.randbits(48) if stored is None else int(stored["secret"])

"""Checkpoints of a training: the state of an epoch by name, with the version of what it holds."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import torch
from torch import nn

from memloc.results import sealing, set_aside, unsealed

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
    with sealing(path) as temporary:
        torch.save(content, temporary)


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """What a checkpoint holds; None where there is none, or one that is damaged or of another version, which is set
    aside and said."""
    what, instead = "the checkpoint", "its encoder is trained from the start"
    content = unsealed(path, what, instead)
    if content is None:
        return None
    stored: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
    if stored.get("version") != CHECKPOINT_VERSION:
        set_aside(path, what, instead)
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

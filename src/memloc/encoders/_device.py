"""What the machine can do: devices and bfloat16."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import numpy as np
import torch

from memloc.errors import SpecError
from memloc.machine import own_version


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """The device to compute on: "auto" takes a GPU where there is one.

    >>> pick_device("cpu").type
    'cpu'
    """
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        picked = torch.device(device)
    except RuntimeError as problem:
        raise SpecError(
            f"there is no device {str(device)!r}. Expected auto, cpu or cuda. Pass --device auto."
        ) from problem
    if picked.type == "cuda" and not torch.cuda.is_available():
        raise SpecError(
            "the device cuda was asked for and this torch sees no GPU. Expected auto, cpu or a GPU build. Pass --device"
            " auto."
        )
    return picked


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device computes faster in bfloat16: recent GPUs, and processors with bf16 matrix or dot-product
    units."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    cpuinfo = Path("/proc/cpuinfo")
    if device.type != "cpu" or not cpuinfo.is_file():
        return False
    flags = cpuinfo.read_text()
    return "amx_bf16" in flags or "avx512_bf16" in flags


def versions() -> dict[str, str]:
    """Versions of what computes, and the machine.

    >>> sorted(versions())
    ['machine', 'memloc', 'numpy', 'python', 'torch']
    """
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    if torch.cuda.is_available():
        machine += f", {torch.cuda.get_device_name()}"
    return {
        "memloc": own_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": machine,
    }

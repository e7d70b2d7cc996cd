"""What coresets are selected from, brought into one form: gradients, groups, and where they lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memloc.errors import DataError, NonFiniteError, ShapeError


def loss_gradients(logits: Tensor, labels: Tensor) -> Tensor:
    """The gradient of the cross-entropy at the last layer, softmax(logits) - onehot(labels), shape (point, class).

    >>> loss_gradients(torch.zeros(1, 2), torch.tensor([0]))
    tensor([[-0.5000,  0.5000]])
    """
    gradients = logits.softmax(dim=1)
    gradients[torch.arange(len(labels), device=logits.device), labels] -= 1
    return gradients


def points_of(given: Any, what: str = "gradients") -> Tensor:
    """Gradients as a tensor of floats, checked."""
    points = given.detach() if isinstance(given, Tensor) else _from_numpy(np.asarray(given), what)
    if points.ndim != 2 or not points.numel():
        raise ShapeError(
            f"the {what} have shape {tuple(points.shape)}. Expected (point, feature), at least one of each. Pass a"
            " table of numbers."
        )
    if not points.is_floating_point():
        points = points.double()
    elif points.dtype not in (torch.float32, torch.float64):
        points = points.float()
    good = torch.isfinite(points).all(dim=1)
    if not bool(good.all()):
        raise NonFiniteError(
            f"row {int((~good).nonzero()[0])} of the {what} holds NaN or Inf. Expected finite numbers. Drop such rows,"
            " or train at a lower learning rate."
        )
    return points


def _from_numpy(array: NDArray[Any], what: str) -> Tensor:
    if array.dtype.kind not in "fiub":
        raise DataError(f"the {what} are {array.dtype}. Expected numbers. Pass a table of floats.")
    native = array.astype(array.dtype.newbyteorder("="), copy=not array.flags.writeable)
    return torch.from_numpy(np.ascontiguousarray(native))


def names_of(groups: NDArray[Any]) -> NDArray[Any]:
    """The different groups, in order."""
    try:
        return np.unique(groups)
    except TypeError as problem:
        raise DataError(
            f"the groups are of several kinds ({problem}). Expected numbers or texts alone, for every point. Drop"
            " points without a group."
        ) from problem


def on_host(given: Any) -> NDArray[Any]:
    return given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)


def moved(array: Any, device: torch.device | None) -> Any:
    if device is None:
        return on_host(array)
    return array if isinstance(array, np.ndarray) and array.dtype.kind in "OUS" else torch.as_tensor(array).to(device)

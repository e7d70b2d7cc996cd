"""LARS: You, Gitman and Ginsburg, Large Batch Training of Convolutional Networks, 2017, as SimCLR uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose step is scaled, tensor by tensor, to the size of the weights.

    v = m·v + lr · trust · ‖w‖ / ‖g + wd·w‖ · (g + wd·w); w = w - v. Biases and norms (tensors with one axis) are
    neither scaled nor decayed.

    >>> weight = torch.nn.Parameter(torch.tensor([[3.0, 4.0]]))
    >>> weight.grad = torch.tensor([[1.0, 0.0]])
    >>> _ = LARS([weight], learning_rate=1.0, trust=0.1).step()      # 0.1 · 5 / 1 = 0.5 along the gradient
    >>> weight.tolist()
    [[2.5, 4.0]]
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        learning_rate: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
    ) -> None:
        super().__init__(
            parameters, {"lr": learning_rate, "momentum": momentum, "weight_decay": weight_decay, "trust": trust}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, after the closure where one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                change = weight.grad
                if weight.ndim > 1:
                    change = change + group["weight_decay"] * weight
                    size, step = weight.norm(), change.norm()
                    ratio = torch.where(
                        (size > 0) & (step > 0), group["trust"] * size / step.clamp_min(1e-12), torch.ones_like(size)
                    )
                    change = change * ratio
                state = self.state[weight]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(weight)
                state["momentum"].mul_(group["momentum"]).add_(change, alpha=group["lr"])
                weight.sub_(state["momentum"])
        return loss

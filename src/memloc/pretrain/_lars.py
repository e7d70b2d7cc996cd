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
        learning_rate: float | Tensor,
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
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            changes = [weight.grad for weight in weights]
            scaled = [number for number, weight in enumerate(weights) if weight.ndim > 1]
            if scaled:
                own = [weights[number] for number in scaled]
                decayed = torch._foreach_add([changes[number] for number in scaled], own, alpha=group["weight_decay"])
                sizes, steps = (torch.stack(torch._foreach_norm(each)) for each in (own, decayed))
                moves = (sizes > 0) & (steps > 0)
                ratios = torch.where(moves, group["trust"] * sizes / steps.clamp_min(1e-12), 1.0)
                torch._foreach_mul_(decayed, list(ratios.unbind()))
                for number, change in zip(scaled, decayed, strict=True):
                    changes[number] = change
            for weight in weights:
                if "momentum" not in self.state[weight]:
                    self.state[weight]["momentum"] = torch.zeros_like(weight)
            momenta = [self.state[weight]["momentum"] for weight in weights]
            torch._foreach_mul_(momenta, group["momentum"])
            torch._foreach_add_(momenta, torch._foreach_mul(changes, group["lr"]))  # a number, or a tensor in a graph
            torch._foreach_sub_(weights, momenta)
        return loss

"""What decides the views of a batch, resolved: plain values that can be compared."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from memloc.views._draws import Sampling, sobol_points, uniforms
from memloc.views._parameters import Parameters, columns_needed, parameters
from memloc.views._policies import Policy


@dataclass(frozen=True)
class Recipe:
    """Views with everything that was left open decided.

    Attributes:
        policy: what may happen. n: views of each image. seed: of the draws.
        size: height and width of a view. sampling: as in Views.
    """

    policy: Policy
    n: int
    seed: int
    size: tuple[int, int]
    sampling: Sampling

    @property
    def columns(self) -> int:
        """Uniform numbers that a view uses."""
        return columns_needed(self.policy, *self.size)

    def numbers(self, images: Tensor, first: int | Tensor) -> Tensor:
        """The numbers of the views, on the images' device."""
        return torch.arange(self.n, device=images.device) + first

    def sequence(self, first: int | Tensor, device: torch.device) -> Tensor | None:
        """The Sobol points that the views need; None for plain draws."""
        return sobol_points(self.columns, int(first) + self.n, device) if self.sampling == "sobol" else None

    def parameters(
        self,
        images: Tensor,
        points: Tensor,
        number: Tensor,
        *,
        sequence: Tensor | None = None,
        static: bool = False,
        seed: int | Tensor | None = None,
    ) -> Parameters:
        """What happens to each view, point after point.

        Args:
            seed: where it is not the recipe's own, or lies on a device.
        """
        key = self.seed if seed is None else seed
        drawn = uniforms(key, points, number, self.columns, self.sampling, sequence=sequence)
        return parameters(
            self.policy,
            drawn.flatten(0, 1),
            (images.shape[2], images.shape[3]),
            self.size,
            seed=key,
            point=points[:, None].expand(-1, self.n).flatten(),
            view=number.repeat(len(points)),
            static=static,
        )

"""The shape annotations of formulas are checked while tests run, whatever has passed before."""

import jaxtyping
import pytest
import torch
from beartype import beartype

from memloc.metrics import percentile_interval, unitmem
from memloc.stats import UnitState


def test_a_wrong_shape_or_element_type_is_found_after_right_ones():
    for _ in range(3):
        percentile_interval(torch.ones(3))
        for wrong in (torch.ones(3, 2), torch.ones(3, dtype=torch.int64), [1.0]):
            with pytest.raises(jaxtyping.TypeCheckError):
                percentile_interval(wrong)
        UnitState.of(torch.ones(4, 2), torch.arange(4))
        with pytest.raises(jaxtyping.TypeCheckError):
            UnitState.of(torch.ones(4, 2), torch.arange(3))
        unitmem(torch.ones(4, 2), rest="mean")
        with pytest.raises(jaxtyping.TypeCheckError):
            unitmem(torch.ones(4, 2), rest="mode")


def test_a_wrong_result_is_found_after_right_ones():
    def positive(values: jaxtyping.Float[torch.Tensor, " point"]) -> jaxtyping.Float[torch.Tensor, " point"]:  # noqa: F722
        return values[values > 0]

    checked = jaxtyping.jaxtyped(positive, typechecker=beartype)
    for _ in range(2):
        assert len(checked(torch.ones(3))) == 3
        with pytest.raises(jaxtyping.TypeCheckError, match="return value"):
            checked(torch.tensor([1.0, -1.0, 1.0]))

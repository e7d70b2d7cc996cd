"""Exports in other tools' conventions."""

import numpy as np
import pytest

from memloc import Views, audit
from memloc.errors import DataError
from memloc.integrations import issues_table

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 1), dtype=np.uint8)


def test_candidates_in_cleanlabs_convention(tiny):
    splits = ["candidate"] * 10 + ["independent"] * 10 + ["external"] * 10
    table = issues_table(audit(tiny(0), tiny(1), images=PIXELS, splits=splits, views=Views(n=4)))
    assert len(table) == 10
    assert table["memorized_score"].is_monotonic_increasing
    assert (table["memorized_score"] == (1 - table["sslmem"]) / 2).all()


def test_an_audit_of_one_encoder_has_nothing_to_export(tiny):
    found = audit(tiny(0), images=PIXELS, splits=["candidate"] * 15 + ["external"] * 15, views=Views(n=4))
    with pytest.raises(DataError, match="no score per point"):
        issues_table(found)

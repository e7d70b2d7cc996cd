"""Exports in other tools' conventions."""

from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest

from memloc import Views, audit
from memloc.errors import DataError, MemlocWarning
from memloc.integrations import issues_table, write_any
from memloc.results import Audit

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 1), dtype=np.uint8)


def test_candidates_in_cleanlabs_convention(tiny):
    splits = ["candidate"] * 10 + ["independent"] * 10 + ["external"] * 10
    found = audit(tiny(0), tiny(1), images=PIXELS, splits=splits, views=Views(n=4))
    table = issues_table(found)
    assert len(table) == 10
    assert table["memorized_score"].is_monotonic_increasing
    assert table["score"].tolist() == found.points.set_index("point")["score"][table["point"]].tolist()
    above = [1 - NormalDist().cdf(score) for score in table["score"]]
    assert table["memorized_score"].tolist() == pytest.approx(above, abs=1e-12)


def test_an_audit_of_memloc_0_1_keeps_its_score():
    with pytest.warns(MemlocWarning, match="was written by an older memloc"):
        old = Audit.load(Path(__file__).parents[1] / "written_by_0_1/audit")
    table = issues_table(old)
    assert table["score"].tolist() == old.points.set_index("point")["sslmem"][table["point"]].tolist()
    assert (table["memorized_score"] == (1 - table["score"]) / 2).all()


def test_an_audit_of_one_encoder_has_scores_where_it_has_points_never_seen(tiny):
    splits = ["candidate"] * 15 + ["external"] * 15
    table = issues_table(audit(tiny(0), images=PIXELS, splits=splits, views=Views(n=4)))
    assert len(table) == 15
    assert table["score"].notna().all()
    with pytest.raises(DataError, match="neither a reference nor external points.*external=DATA"):
        issues_table(audit(tiny(0), images=PIXELS, views=Views(n=4)))


def test_a_spreadsheet_takes_no_text_for_a_formula(tmp_path):
    text = ["=cmd|'/c calc'!A1", "+1", "-2.png", "@sum", "\tx", "\rx", "plain=1", None, "'kept"]
    table = pd.DataFrame({"name": text, "=head": range(9), "score": [-0.5] * 9, "kind": pd.Categorical(text[:1] * 9)})
    write_any(table, tmp_path / "a.csv")
    found = pd.read_csv(tmp_path / "a.csv", keep_default_na=False, lineterminator="\n")
    assert found["name"].tolist() == ["'=cmd|'/c calc'!A1", "'+1", "'-2.png", "'@sum", "'\tx", "'\rx", "plain=1", "", "'kept"]  # fmt: skip
    assert list(found) == ["name", "'=head", "score", "kind"]
    assert found["score"].tolist() == [-0.5] * 9  # numbers stay numbers
    assert found["kind"].str.startswith("'=").all()
    for name, read in (("a.jsonl", lambda path: pd.read_json(path, lines=True)), ("a.parquet", pd.read_parquet)):
        write_any(table, tmp_path / name)
        assert read(tmp_path / name)["name"].tolist()[:3] == text[:3]

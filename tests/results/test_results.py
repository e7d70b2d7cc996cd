"""Tables on disk: what does not conform is refused, what was written is read again, nothing is half-written."""

import json

import pandas as pd
import pytest

from memloc.errors import DataNotFoundError, MemlocWarning, OutputError, ResultsError
from memloc.results import (
    TABLES,
    Audit,
    claimed,
    conform,
    read_json,
    read_table,
    replacing,
    write_json,
    write_table,
)

AUDIT = ("points", "point_layers", "layers", "units", "thumbnails")


def example(name):
    """A table of two rows with every column."""
    values = {"int": [1, 2], "float": [0.5, 0.25], "text": ["a", "b"], "bytes": [b"a", b"b"], "bool": [True, False]}
    flags = {"int": [0, 1]}
    return pd.DataFrame(
        {
            column.name: (flags if column.high == 1 else values).get(column.kind, values[column.kind])
            for column in TABLES[name]
        }
    )


@pytest.fixture
def audit():
    return Audit(**{name: example(name) for name in AUDIT}, record={"seed": 3, "warnings": ["careful"]})


@pytest.mark.parametrize("name", TABLES)
def test_columns_come_in_schema_order_and_optional_ones_may_lack(name):
    table = example(name)
    assert list(conform(name, table[table.columns[::-1]])) == list(table)
    needed = [column.name for column in TABLES[name] if not column.optional]
    assert list(conform(name, table[needed])) == needed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sslmem": [0.5, 1.5]}, r"sslmem has values from 0.5 to 1.5. Expected -1 to 1"),
        ({"sslmem": ["high", "low"]}, r"sslmem holds .* values. Expected float"),
        ({"point": [0.5, 1.5]}, r"point holds float64 values. Expected int"),
        ({"name": [1, 2]}, r"name holds int64 values. Expected text"),
        ({"colour": [1, 2]}, r"unknown column 'colour'"),
    ],
)
def test_what_does_not_conform_is_refused(change, message):
    with pytest.raises(ResultsError, match=message):
        conform("points", example("points").assign(**change))


def test_a_saved_audit_is_read_again(audit, tmp_path):
    again = Audit.load(audit.save(tmp_path / "found"))
    for name in AUDIT:
        pd.testing.assert_frame_equal(getattr(again, name), getattr(audit, name), check_dtype=False)
    assert again.warnings == ["careful"]


def test_a_folder_without_a_finished_audit(audit, tmp_path):
    with pytest.raises(DataNotFoundError, match="holds no finished audit"):
        Audit.load(tmp_path)
    folder = audit.save(tmp_path / "found")
    (folder / "units.parquet").write_bytes(b"PAR1")
    with pytest.raises(ResultsError, match=r"units.parquet' is missing or damaged"):
        Audit.load(folder)


def test_a_folder_of_another_version(audit, tmp_path):
    folder = audit.save(tmp_path / "found")
    record = json.loads((folder / "audit.json").read_text())
    (folder / "audit.json").write_text(json.dumps({**record, "schema_version": 99}))
    with pytest.raises(ResultsError, match="schema version 99. Expected version 1"):
        Audit.load(folder)


def fill_the_disk(path):
    with replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"a": float("nan"), "b": [1]})
    with pytest.raises(OutputError, match="cannot be written"):
        fill_the_disk(path)
    assert read_json(path) == {"a": None, "b": [1]}
    assert [part.name for part in tmp_path.iterdir()] == ["file.json"]


def test_tables_carry_their_metadata(tmp_path):
    import pyarrow.parquet as parquet

    write_table(tmp_path / "t.parquet", pd.DataFrame({"a": [1]}), {"memloc_seed": "3"})
    assert parquet.read_schema(tmp_path / "t.parquet").metadata[b"memloc_seed"] == b"3"
    assert read_table(tmp_path / "t.parquet").a.tolist() == [1]


def claim(folder, spec, **options):
    with claimed(folder, spec, **options):
        return folder


def test_a_folder_is_claimed_once(tmp_path):
    folder = claim(tmp_path / "out", {"epochs": 3})
    assert claim(folder, {"epochs": 3}) == folder
    with pytest.raises(ResultsError, match="epochs: 3 there, 4 now"):
        claim(folder, {"epochs": 4})
    with claimed(folder, {"epochs": 3}):
        write_json(folder / "mine.json", {})
    (folder / "kept.txt").write_text("")
    with pytest.warns(MemlocWarning, match=r"1 files .* left alone: kept.txt"):
        claim(folder, {"epochs": 4}, overwrite=True)
    assert sorted(path.name for path in folder.iterdir()) == ["kept.txt", "manifest.json", "spec.json"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.txt").write_text("")
    with pytest.raises(ResultsError, match="was not made by memloc"):
        claim(tmp_path / "other", {"epochs": 4}, overwrite=True)
    assert (tmp_path / "other/thesis.txt").exists()


def test_what_differs_is_named_by_its_path_and_kept_short(tmp_path):
    spec = {"views": {"n": 16, "policy": {"flip": 0.5, "blur": 0.1}}, "splits": ["candidate"] * 100, "seed": 0}
    claim(tmp_path / "a", spec)
    claim(tmp_path / "a", spec)
    other = {"views": {"n": 16, "policy": {"flip": 0.7, "blur": 0.1}}, "splits": ["external"] * 100, "seed": 0}
    with pytest.raises(ResultsError) as caught:
        claim(tmp_path / "a", other)
    text = str(caught.value)
    assert "views.policy.flip: 0.5 there, 0.7 now" in text
    assert "blur" not in text
    assert "splits: ['candidate', 'candidate'" in text
    assert len(text) < 500

"""Tables as people have them: what each column is read as, what is said of it, and which rows are kept."""

import bz2
import gzip
import io
import json
import lzma
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import feather

from memloc.data import TableSpec, is_table, open_table, read_columns, read_table, read_table_file
from memloc.errors import DataError, DataNotFoundError, SpecError

ROWS = 60
RNG = np.random.default_rng(0)
A = RNG.normal(size=ROWS).round(3)
TARGET = np.where(A > 0, "yes", "no")
WORDS = np.array(
    [
        "the",
        "train",
        "was",
        "late",
        "again",
        "and",
        "nobody",
        "on",
        "platform",
        "two",
        "knew",
        "why",
        "it",
        "had",
        "not",
        "left",
    ]
)
PROSE = [" ".join(RNG.choice(WORDS, 7)) for _ in range(ROWS)]
DAYS = pd.date_range("2021-01-05", periods=ROWS, freq="3D")


def read(column, **spec):
    table = read_table(pd.DataFrame({"a": A, "x": column, "y": TARGET}), "y", TableSpec(**spec))
    return table, table.columns[1]


def numbers(form):
    return [form.format(n) for n in range(ROWS)]


NUMBERS = {
    "thousands": ([f"{1000 * n + 7:,}" for n in range(ROWS)], 1000 * np.arange(ROWS) + 7),
    "decimal commas": ([f"{n},{n % 10}" for n in range(ROWS)], [n + n % 10 / 10 for n in range(ROWS)]),
    "points in thousands": ([f"{n}.{100 + n},5" for n in range(ROWS)], [1000 * n + 100 + n + 0.5 for n in range(ROWS)]),
    "spaces in thousands": ([f"{n + 1}\u00a0000" for n in range(ROWS)], 1000 * np.arange(1, ROWS + 1)),
    "apostrophes": ([f"{n + 1}'500" for n in range(ROWS)], 1000 * np.arange(1, ROWS + 1) + 500),
    "dollars": (numbers("${:.2f}"), np.arange(ROWS)),
    "euros behind": (numbers("{} €"), np.arange(ROWS)),
    "codes of currencies": (numbers("USD {}"), np.arange(ROWS)),
    "per cent": (numbers("{} %"), np.arange(ROWS)),
    "a unit": (numbers("{} kg"), np.arange(ROWS)),
    "a unit without space": (numbers("{}.5cm"), np.arange(ROWS) + 0.5),
    "brackets": (numbers("({})"), -np.arange(ROWS)),
    "millions": ([f"{n}.5M" if n % 2 else f"{n}k" for n in range(ROWS)], [(n + 0.5) * 1e6 if n % 2 else n * 1e3 for n in range(ROWS)]),
    "holes of many kinds": (["N/A", "-", "?", "null", "None", "", "#N/A", "nan", "missing", *numbers("{}")[9:]], [np.nan] * 9 + list(range(9, ROWS))),
    "one odd cell": (["twelve", *numbers("{}.5")[1:]], [np.nan, *(np.arange(1, ROWS) + 0.5)]),
}  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
def test_text_that_is_numbers(name):
    cells, expected = NUMBERS[name]
    table, reading = read(cells)
    assert reading.kind == "number", reading
    assert table.X["x"].to_numpy() == pytest.approx(np.asarray(expected, dtype=float), nan_ok=True)
    if name not in ("brackets", "holes of many kinds"):
        assert any("x" in notice for notice in table.notices)
    again = read_table(table.X.assign(y=table.y), "y")
    pd.testing.assert_frame_equal(again.X, table.X)


DATES = {
    "ISO": ("%Y-%m-%d", ""), "ISO with times": ("%Y-%m-%d %H:%M:%S", ""), "with zones": ("%Y-%m-%dT%H:%M:%SZ", ""),
    "American": ("%m/%d/%Y", ""), "European": ("%d/%m/%Y", ""), "with points": ("%d.%m.%Y", ""), "two digits": ("%m/%d/%y", ""),
    "months by name": ("%b %d, %Y", ""), "months in full": ("%d %B %Y", ""), "compact": ("%Y%m%d", ""), "slashes": ("%Y/%m/%d", ""),
    "half days": ("%m/%d/%Y %I:%M %p", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", DATES)
def test_text_that_is_dates(name):
    table, reading = read(DAYS.strftime(DATES[name][0]))
    assert reading.kind == "date", reading
    assert table.X["x"].tolist() == DAYS.tolist()
    assert any("dates are read as days" in notice for notice in table.notices)
    encoded = read_columns(table.X)
    assert [each.kind for each in encoded] == ["number", "date"]


def test_days_and_months_that_either_could_be_are_said():
    few = pd.date_range("2021-01-01", "2021-01-12").strftime("%m/%d/%Y")
    table, reading = read(np.resize(few, ROWS))
    assert reading.kind == "date"
    assert any("month before day, which either could be" in notice for notice in table.notices)
    mixed, reading = read([*np.resize(["13/01/2021", "01/13/2021"], ROWS)])
    assert reading.kind == "category"
    assert any("cannot be compared" in notice for notice in mixed.notices)


KINDS = {
    "counts the rows": (np.arange(ROWS), "id", "name rows: x"),
    "numbers called id": (RNG.permutation(10_000)[:ROWS], "number", None),
    "codes": ([f"A-{n:05d}" for n in RNG.permutation(ROWS)], "id", "name rows: x"),
    "hashes": ([f"{n:032x}" for n in RNG.permutation(ROWS) + 10**9], "id", "name rows: x"),
    "prose": (PROSE, "text", "left out as free text: x"),
    "postcodes": (np.resize(["02139", "01002", "10001"], ROWS), "category", "begin with 0"),
    "yes and no": (np.resize(["Yes", "no", "No"], ROWS), "boolean", None),
    "one value": (["same"] * ROWS, "constant", "every cell is the same or missing: x"),
    "nothing": ([None] * ROWS, "empty", "every cell is the same or missing: x"),
    "question marks": (np.resize(["red", "?", "blue"], ROWS), "category", "'?' 20 times"),
    "spoken": (np.resize(["45 min", "2 h 5 min", "1 hr", "1 hour, 30 mins", "90 min"], ROWS), "duration", "seconds"),
    "of the C library": (np.resize(["Mon Jan  6 12:30:00 2020", "Tue Mar 10 09:00:00 2020"], ROWS), "date", "dates are"),
    "basic ISO": (np.resize(["20200105T1230", "20210306T093000"], ROWS), "date", "dates are"),
    "titles": (np.resize(["12 Angry Men", "7 Samurai", "Alien", "Brazil", "Psycho", "Up"], ROWS), "category", None),
    "quarters": (np.resize(["2021Q1", "2021Q2", "2022 Q4"], ROWS), "date", "dates are"),
    "lap times": (np.resize(["1:23.4", "0:59.9", "2:01.0"], ROWS), "duration", "seconds"),
    "powers with commas": (np.resize(["6,260E-05", "1,5E-03"], ROWS), "number", "decimal commas"),
    "points that may group": (np.resize(["2.101", "203", "4.103", "5.220"], ROWS), "number", "1.234 is 1.234, not 1234"),
    "footnotes": ([f"{n / 7:.3f}{'*' if n % 8 == 0 else ''}" for n in range(ROWS)], "text", "beside other text"),
    "times": (np.resize(["08:30", "12:15", "23:59"], ROWS), "duration", "hours of a day"),
    "spans": (np.resize(["1 days 02:00:00", "3 days"], ROWS), "duration", "seconds"),
    "lists": ([[1, 2]] * ROWS, "text", "hold several values: x"),
    "mixed units": (np.resize(["3 kg", "4 lb", "5 kg"], ROWS), "category", "kg and lb"),
    "half numbers": ([str(n) if n % 3 else f"about {n % 4}" for n in range(ROWS)], "category", "beside other text"),
    "ordinals": (np.resize(["1st", "2nd", "3rd"], ROWS), "category", None),
    "spaces around": (np.resize(["red", " red", "blue "], ROWS), "category", None),
    "decimals": (pd.array([n / 4 for n in range(ROWS)], dtype="double[pyarrow]"), "number", None),
    "days of Arrow": (pd.array(DAYS.date, dtype=pd.ArrowDtype(pa.date32())), "date", "dates are read"),
    "periods": (pd.PeriodIndex(DAYS, freq="D"), "date", "dates are read"),
    "infinity": ([np.inf, *A[1:]], "number", "1 infinite"),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_kinds_of_columns(name):
    cells, kind, said = KINDS[name]
    table, reading = read(cells)
    assert reading.kind == kind
    assert ("x" in table.X) == (kind not in ("id", "text", "constant", "empty"))
    if said is None:
        assert table.notices == ()
    else:
        assert [said in notice for notice in table.notices].count(True) == 1


def test_a_column_called_id_is_one_where_its_cells_differ():
    table = read_table(pd.DataFrame({"a": A, "customer_id": RNG.permutation(10_000)[:ROWS], "y": TARGET}), "y")
    assert [each.kind for each in table.columns] == ["number", "id"]
    assert table.ids.name == "customer_id"
    again = read_table(pd.DataFrame({"a": A, "store_id": np.arange(ROWS) % 5, "y": TARGET}), "y")
    assert [each.kind for each in again.columns] == ["number", "number"]


def test_flags_go_before_what_cells_say():
    cells = {
        "no": np.arange(ROWS),
        "zip": np.resize(["02139", "01002"], ROWS),
        "note": PROSE,
        "code": np.arange(ROWS) % 3,
        "a": A,
        "y": TARGET,
    }
    frame = pd.DataFrame(cells)
    spec = TableSpec(numeric="no", categorical=("code", "zip"), text="hash", drop="a")
    table = read_table(frame, "y", spec)
    assert {each.name: each.kind for each in table.columns} == {
        "no": "number", "zip": "category", "note": "text", "code": "category", "a": "dropped",
    }  # fmt: skip
    assert list(table.X) == ["no", "zip", "note", "code"]
    assert list(read_table(frame, "y", TableSpec(only="code,a")).X) == ["code", "a"]
    assert read_table(frame, "y", TableSpec(id="zip")).columns[1].kind == "id"
    assert read_table(frame.assign(a=[-200.0, *A[1:]]), "y", TableSpec(na="-200")).X["a"].isna().sum() == 1


def test_all_that_is_wrong_with_flags_is_said_at_once():
    frame = pd.DataFrame({"a": A, "b": A, "y": TARGET})
    with pytest.raises(SpecError, match=r"these 2 are wrong. drop=z: there is no such column.*id=.?a: another flag"):
        read_table(frame, "y", TableSpec(drop=("z", "a"), id="a"))
    with pytest.raises(SpecError, match=r"target=q: there is no such column.*drop=z: there is no such column"):
        read_table(frame, "q", TableSpec(drop="z"))
    with pytest.raises(SpecError, match="numeric=b: no cell is a number"):
        read_table(frame.assign(b=TARGET), "y", TableSpec(numeric="b"))


@pytest.mark.parametrize("missing", ["", "?", "N/A", "null", None, np.nan])
def test_rows_without_a_target_are_left_out_and_keep_their_numbers(missing):
    target = np.array(TARGET, dtype=object)
    target[[3, 8]] = missing
    table = read_table(pd.DataFrame({"a": A, "y": target}), "y")
    assert table.left_out == 2
    assert table.rows.tolist() == [row for row in range(ROWS) if row not in (3, 8)]
    assert table.X["a"].tolist() == A[table.rows].tolist()
    assert any("2 of 60 rows have no target" in notice for notice in table.notices)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (PROSE, "different texts in 60 rows"),
        (DAYS.strftime("%Y-%m-%d"), "holds dates"),
        ([None] * ROWS, "missing in every row"),
    ],
)
def test_targets_that_are_none(cells, message):
    with pytest.raises(DataError, match=message):
        read_table(pd.DataFrame({"a": A, "y": cells}), "y")


def test_targets_of_numbers_and_of_names():
    def target(cells):
        return read_table(pd.DataFrame({"a": A, "y": cells}), "y").y.tolist()

    assert target([f"${1000 + n:,}" for n in range(ROWS)]) == list(range(1000, 1000 + ROWS))
    assert set(target(np.resize(["01", "1", "2"], ROWS))) == {"01", "1", "2"}
    assert set(target(np.resize(["None", "Minor", "Major"], ROWS))) == {"None", "Minor", "Major"}
    assert set(target(np.resize([" yes", "no "], ROWS))) == {"yes", "no"}


TEXT = pd.DataFrame({"a": A, "kind": np.resize(["red", "gréen"], ROWS), "y": TARGET}).to_csv(index=False)


def _zipped(content):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("x.csv", content)
    return held.getvalue()


def _zstandard(content):
    return pa.compress(content, codec="zstd", asbytes=True)


FILES = {
    "x.csv": TEXT.encode(), "x.csv.gz": gzip.compress(TEXT.encode()), "x.csv.bz2": bz2.compress(TEXT.encode()),
    "x.csv.xz": lzma.compress(TEXT.encode()), "x.csv.zip": _zipped(TEXT.encode()), "mark.csv": TEXT.encode("utf-8-sig"),
    "wide.csv": TEXT.encode("utf-16"), "latin.csv": TEXT.encode("latin-1"), "x.tsv": TEXT.replace(",", "\t").encode(),
    "pipe.txt": TEXT.replace(",", "|").encode(), "semicolon.csv": TEXT.replace(",", ";").encode(),
    "spaces.dat": TEXT.replace(",", "   ").encode(), "old.csv": TEXT.replace("\n", "\r").encode(),
    "title.csv": ("a table of mine\n\n# made by hand\n" + TEXT).encode(), "spaced.csv": TEXT.replace(",", ", ").encode(),
    "x.jsonl": "\n".join(json.dumps(row) for row in pd.read_csv(io.StringIO(TEXT)).to_dict("records")).encode(),
    "x.json": json.dumps(pd.read_csv(io.StringIO(TEXT)).to_dict("records")).encode(),
    "columns.json": json.dumps(pd.read_csv(io.StringIO(TEXT)).to_dict("list")).encode(),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_files_of_tables(name, tmp_path):
    (tmp_path / name).write_bytes(FILES[name])
    assert is_table(tmp_path / name, "y")
    table = read_table_file(tmp_path / name, "y")
    assert table.X["a"].tolist() == A.tolist()
    assert table.X["kind"].unique().tolist() == ["red", "gréen"]
    assert table.y.tolist() == TARGET.tolist()
    assert any("Windows-1252" in notice for notice in table.notices) == (name == "latin.csv")
    assert any("above the header left out" in notice for notice in table.notices) == (name == "title.csv")


def test_files_of_libraries(tmp_path):
    frame = pd.read_csv(io.StringIO(TEXT))
    feather.write_feather(frame, tmp_path / "x.feather")
    frame.to_parquet(tmp_path / "x.parquet")
    with pd.ExcelWriter(tmp_path / "x.xlsx") as book:
        pd.DataFrame({"note": ["read me"]}).to_excel(book, sheet_name="first", index=False)
        frame.to_excel(book, sheet_name="data", index=False, startrow=2)
    held = _zstandard(TEXT.encode())
    (tmp_path / "x.csv.zst").write_bytes(held)
    for name in ("x.feather", "x.parquet", "x.xlsx", "x.csv.zst"):
        X, y = open_table(tmp_path / name, "y")
        assert X["a"].tolist() == pytest.approx(A.tolist()), name
        assert y.tolist() == TARGET.tolist()
    assert any("sheet 'data' is read, of 2" in notice for notice in read_table_file(tmp_path / "x.xlsx", "y").notices)
    frame.index = pd.Index(np.arange(100, 100 + ROWS), name="sample")
    frame.to_parquet(tmp_path / "named.parquet")
    assert "sample" in [each.name for each in read_table_file(tmp_path / "named.parquet", "y").columns]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", gzip.compress(TEXT.encode()), "holds gzip"),
        ("x.csv", b"<!DOCTYPE html><html><table></table></html>", "holds HTML"),
        ("x.csv.gz", b"\x1f\x8b", "cannot be read as a table"),
        ("x.json", b"[1, 2]", "JSON that holds other values than objects"),
        ("x.xlsx", b"PK", "cannot be read as a table"),
        ("x.sas7bdat", b"", "no table that memloc reads"),
        ("x.csv", b"a,y\n1,a\n2,b,c\n", "line 3 of x.csv has 3 fields and the header 2"),
    ],
)
def test_files_that_are_none(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_table(tmp_path / name, "y")


def test_a_packed_file_may_not_unfold_beyond_the_limit(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMLOC_MAX_BYTES", "100000")
    big = ("a,y\n" + "1,b\n" * 50_000).encode()
    for name, content in (
        ("x.csv.gz", gzip.compress(big)), ("x.csv.xz", lzma.compress(big)), ("x.csv.zip", _zipped(big)), ("x.csv.zst", _zstandard(big)),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="bytes unpacked"):
            open_table(tmp_path / name, "y")


def test_files_that_are_not_there_or_hold_several(tmp_path):
    (tmp_path / "patients.csv").write_text(TEXT)
    with pytest.raises(DataNotFoundError, match="Nearest: .*patients.csv"):
        open_table(tmp_path / "patient.csv", "y")
    with zipfile.ZipFile(tmp_path / "two.csv.zip", "w") as packed:
        packed.writestr("a.csv", TEXT)
        packed.writestr("b.csv", TEXT)
    with pytest.raises(DataError, match="holds 2 files .'a.csv', 'b.csv'."):
        open_table(tmp_path / "two.csv.zip", "y")


def test_what_the_flags_name_in_vain_is_said():
    frame = pd.DataFrame(
        {"a": [1.0, -200.0, 2.0, 3.0] * 10, "kind": ["u", " gone ", "v", "v"] * 10, "y": ["v", "w"] * 20}
    )
    with pytest.raises(SpecError, match="drop=y: that is the target"):
        read_table(frame, "y", TableSpec(drop="y"))
    notices = read_table(frame, "y", TableSpec(na=("-200", "gone,w", "-999,none")), name="x").notices
    assert [one for one in notices if "no cell holds" in one] == ["no cell holds '-999', 'none', given as --na."]
    assert not any("no cell holds" in one for one in read_table(frame, "y", TableSpec(na="-200.0")).notices)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["1000 g", "1.003 kg"], "holds several units .g and kg."),
        (["$1003", "€900"], "holds several units"),
        (["45%", "0.45"], "holds several units .with % and without."),
        ([f"{n}.5" for n in range(198)] + ["n.d.", "<10"], "All but 'n.d.', '<10' are numbers.*na='n.d.'"),
    ],
)
def test_targets_of_numbers_that_are_not_all_comparable(cells, message):
    y = np.resize(cells, 200)
    with pytest.raises(DataError, match=message):
        read_table(pd.DataFrame({"a": np.arange(200.0), "y": y}), "y")


def test_a_few_cells_of_a_target_that_are_no_numbers_can_be_left_out():
    frame = pd.DataFrame({"a": np.arange(200.0), "y": [f"{n}.5" for n in range(198)] + ["n.d.", "<10"]})
    table = read_table(frame, "y", TableSpec(na=("n.d.", "<10")))
    assert (len(table.y), table.left_out, table.y.iloc[3]) == (198, 2, 3.5)


QUESTIONS = {
    "questions": [["How old?", "How tall?", "Would you buy?"]],
    "questions and ids": [
        ["How old?", "How tall?", "Buy?"],
        ['{"ImportId":"Q1"}', '{"ImportId":"Q2"}', '{"ImportId":"Q3"}'],
    ],
    "categories and ids": [["Colour", "Town", "Buy?"], ['{"ImportId":"Q1"}', '{"ImportId":"Q2"}', '{"ImportId":"Q3"}']],
    "names again": [["age", "size", "y"]],
    "none": [],
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_second_headers_are_left_out_and_said(name, tmp_path):
    rows = [[str(20 + n % 40), str(150 + n), "yes" if n % 2 else "no"] for n in range(ROWS)]
    if name == "categories and ids":
        rows = [[("red", "blue")[n % 2], ("Bonn", "Rome")[n % 3 > 0], "yes" if n % 2 else "no"] for n in range(ROWS)]
    frame = pd.DataFrame([*QUESTIONS[name], *rows], columns=["age", "size", "y"])
    frame.to_csv(tmp_path / "x.csv", index=False)
    table = read_table_file(tmp_path / "x.csv", "y")
    heads = len(QUESTIONS[name])
    assert set(table.y) == {"yes", "no"}
    assert len(table.y) == ROWS
    assert table.rows.tolist() == list(range(heads, ROWS + heads))  # as in the file
    assert any("below the header" in one for one in table.notices) == bool(heads)


def test_lines_that_are_all_one_field_longer_are_said(tmp_path):
    (tmp_path / "x.csv").write_text(
        "a,b,y\n" + "".join(f"{n * n % 7},'red, {('blue', 'green')[n % 3 > 0]}',{'uv'[n % 2]}\n" for n in range(30))
    )
    assert any("one field more than the header" in one for one in read_table_file(tmp_path / "x.csv", "y").notices)


def test_the_nearest_name_looks_past_capitals():
    with pytest.raises(DataError, match="Nearest: 'y'"):
        read_table(pd.DataFrame({"a": [1.0, 2.0], "y": [0, 1]}), "Y")

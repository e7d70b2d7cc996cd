"""The audit statement: figures as in the tables, assumptions as they are, and no claim beyond them."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from tests.conftest import tiny_net

import memloc
from memloc.cli import main
from memloc.errors import DataNotFoundError
from memloc.report import statement, write_statement
from memloc.results import digest_of


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """An audit of a pair with 140 given points that nobody saw."""
    folder = tmp_path_factory.mktemp("statement") / "found"
    pixels = np.random.default_rng(0).integers(0, 256, (220, 8, 8, 1), dtype=np.uint8)
    splits = ["candidate"] * 40 + ["independent"] * 40 + ["external"] * 140
    memloc.audit(tiny_net(0), tiny_net(1), images=pixels, splits=splits, views=memloc.Views(n=4), out=folder)
    return folder


def test_figures_are_those_of_the_tables(audited):
    found = statement(audited)
    assert found["audited"]["points"] == {"candidate": 40, "independent": 40, "external": 140}
    layers = pd.read_parquet(audited / "layers.parquet").sort_values("order")
    rows = found["layers"]["rows"]
    assert [row["layer"] for row in rows] == layers["layer"].tolist()
    assert [row["layermem_calibrated"] for row in rows] == pytest.approx(
        layers["layermem_calibrated"].tolist(), rel=1e-3
    )
    points = pd.read_parquet(audited / "points.parquet")
    assert found["points"]["named"] == points.loc[points["named"].fillna(False).astype(bool), "name"].tolist()
    separation = pd.read_parquet(audited / "separation.parquet")
    one = found["inference"][0]
    mine = separation[separation["reading"] == one["reading"]].sort_values("fpr")
    assert [row["fpr"] for row in one["rows"]] == mine["fpr"].tolist()
    assert one["rows"][0]["tpr"] is None  # one in a thousand cannot be told from 112 points
    assert one["rows"][-1]["tpr"] == pytest.approx(mine["tpr"].iloc[-1], rel=1e-3)
    for name, entry in found["files"].items():
        assert entry["blake2b"] == digest_of(audited / name)


def test_assumptions_say_what_holds_and_what_cannot_be_told(audited, tmp_path, finished):
    met = {one["text"]: one["met"] for one in statement(audited)["assumptions"]}
    alike, enough, reference, views = met
    assert met[alike] in (True, None)  # random pixels, as the candidates
    assert (met[enough], met[reference], met[views]) == (True, True, None)
    of_run = {one["text"]: one for one in statement(finished / "audit")["assumptions"]}
    assert of_run[alike]["met"] is True
    assert "held out of every training" in of_run[alike]["because"]
    assert of_run[enough]["met"] is False
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 1), dtype=np.uint8)
    memloc.audit(tiny_net(0), images=pixels, views=memloc.Views(n=4), out=tmp_path / "alone")
    alone = statement(tmp_path / "alone")
    assert [one["met"] for one in alone["assumptions"]] == [False, False, False, None]
    assert alone["inference"] == []
    assert alone["points"]["named"] == []


def test_the_page_says_it_and_claims_nothing_more(audited, tmp_path, capsys):
    assert main(["statement", str(audited), "--out", str(tmp_path / "s.html"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["json"] == str(tmp_path / "s.json")
    page, found = (tmp_path / "s.html").read_text(), json.loads((tmp_path / "s.json").read_text())
    assert found == json.loads(json.dumps(statement(audited)))
    assert "not known: too few points that no encoder saw" in page
    for text in found["not_looked_at"]:
        assert text.split(":")[0] in page
    for claim in ("compliant", "complies", "GDPR", "guarantee", "is anonymous."):
        assert claim not in page
    again = tmp_path / "again"
    shutil.copytree(audited, again)
    assert main(["statement", str(again)]) == 0  # beside the folder, of which it is no part
    assert (tmp_path / "again-statement.html").is_file()
    assert not list(again.glob("*statement*"))
    with pytest.raises(DataNotFoundError):
        write_statement(tmp_path / "nowhere", tmp_path / "x.html")


def test_no_file_is_replaced_without_a_word(audited, tmp_path, capsys):
    (tmp_path / "mine.json").write_text("precious")
    before = (audited / "audit.json").read_bytes()
    for out, flags, message in (
        (tmp_path / "mine.html", [], "mine.json' is there"),
        (audited / "audit.html", ["--overwrite"], "audit.json' is of the results"),
    ):
        assert main(["statement", str(audited), "--out", str(out), *flags]) != 0
        assert message in capsys.readouterr().err
    assert (tmp_path / "mine.json").read_text() == "precious"
    assert (audited / "audit.json").read_bytes() == before
    assert main(["statement", str(audited), "--out", str(tmp_path / "mine.html"), "--overwrite"]) == 0


@pytest.mark.browser
def test_the_page_in_a_browser(audited, tmp_path, browser):
    write_statement(audited, tmp_path / "s.html")
    browser.get(f"file://{tmp_path / 's.html'}")
    assert browser.find_element("css selector", "h1").text.startswith("Audit statement: encoder")
    browser.set_window_size(400, 900)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]

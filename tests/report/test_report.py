"""The report: what it says, that it escapes, its size, and that it works in a browser."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from memloc import Views, audit, write_report
from memloc.errors import DataNotFoundError, MemlocWarning, SpecError
from memloc.report import render, summarize
from memloc.report._summary import _where
from memloc.results import Audit, lower_bounds, ranking_column

LOSS = "loss (NT-Xent, assumed)"  # the row of encoders whose objective is not known
OLD = Path(__file__).parents[1] / "written_by_0_1/audit"


def sixty():
    """Labelled images, the first with a hostile file name, and their splits."""
    from memloc.data import as_images

    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)
    images = as_images(pixels, labels=np.arange(60) % 3)
    names = ("<script>alert(1)</script>.png", *images.names[1:])
    splits = ["candidate"] * 20 + ["independent"] * 20 + ["external"] * 20
    return {"images": replace(images, names=names, class_names=("cat", "dog", "bird")), "splits": splits}


@pytest.fixture(scope="module")
def found():
    """An audit of a small pair without heads, three runs a side."""
    from tests.conftest import few_draws, tiny_net

    f, g = ([tiny_net(seed + side) for seed in (0, 2, 4)] for side in (0, 1))
    with few_draws():
        return audit(f, g, **sixty(), views=Views(n=8))


@pytest.fixture(scope="module")
def headed():
    """An audit of a pair with its heads."""
    from tests.conftest import few_draws, tiny_net

    heads = []
    for seed in (0, 1):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            heads.append(nn.Sequential(nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 6)))
    with few_draws():
        return audit(tiny_net(0), tiny_net(1), f_head=heads[0], g_head=heads[1], **sixty(), views=Views(n=8))


def led_by(audit, layer, auroc=0.9):
    """The same audit, led by another reading."""
    reading = {"layer": layer, "auroc": auroc, "auroc_low": auroc - 0.05, "auroc_high": auroc + 0.05, "default": True}
    return replace(audit, record={**audit.record, "reading": reading})


def test_it_opens_with_the_answer_in_three_sentences(found):
    answer = summarize(found)["answer"]
    assert len(answer) == 3
    assert "95 % interval" in answer[0]
    assert "layer" in answer[1] or "conv" in answer[1]
    assert answer[2].startswith("None of 20 candidates is named (q < .05).")


def strong(found):
    """The same tables as if candidates stood out and five points were named."""
    layers = found.layers.copy()
    assert layers["layer"].tolist() == ["conv1", "conv2", "head", "output", LOSS]
    layers["calibrated_low"] = [-0.01, 0.01, 0.01, 0.02, -0.01]
    layers["layermem_calibrated"] = [0.0, 0.02, 0.01, 0.03, 0.0]
    layers["calibrated_high"] = [0.01, 0.03, 0.02, 0.04, 0.01]
    layers["calibrated_se"] = [0.005, 0.003, 0.002, 0.005, 0.005]
    layers["delta_calibrated"] = [float("nan"), 0.02, -0.01, 0.02, float("nan")]
    layers[["auroc", "auroc_low", "auroc_high", "excess_low"]] = [0.9, 0.85, 0.95, 0.2]
    layers["simultaneous_low"] = [-0.02, 0.005, -0.001, 0.01, -0.02]
    layers["shows"] = layers["simultaneous_low"] > 0
    layers[["reliability_views", "reliability_runs"]] = [0.9, 0.8]
    return led_by(named(replace(found, layers=layers)), "output")


def named(audit, count=5, **changes):
    """The same audit with the candidates of most evidence named."""
    points = audit.points.copy()
    of = points[points["split"] == "candidate"].sort_values("evidence", ascending=False).index[:count]
    points["named"] = points.index.isin(of)
    naming = {**audit.record["naming"], "named": count, "expected_false": 0.05 * count, "decoys": 40, "decoys_named": 1}
    parts = {
        "point": 1.0,
        "point_low": 0.5,
        "run": 0.1,
        "run_low": -0.1,
        "run_high": 0.3,
        "share": 0.9,
        "share_low": 0.7,
        "share_high": 1.0,
    }
    record = {
        **audit.record,
        "naming": naming | changes.pop("naming", {}),
        "components": changes.pop("components", parts),
    }
    return replace(audit, points=points, record=record)


def test_sentences_follow_the_figures(found):
    good = summarize(strong(found))["answer"]
    assert "90 % of comparisons (95 % interval 85 % to 95 %" in good[0]
    assert "at least 20 % of them stand out" in good[0]
    assert good[1].startswith(
        "Memorization shows in conv2 and output, most in output (membership effect 0.030, 95 % interval 0.020 to 0.040); conv1, head and loss (NT-Xent, assumed) cannot"
    )
    assert good[2] == (
        "5 of 20 candidates are named as memorized (q < .05: at most 0.2 of them falsely, on average; of 40 held-out decoys"
        " 1 would be named, too). Another training would memorize mostly the same ones (90 % of what differs, 95 % 70 % to"
        f" 100 %). Whether{found.record['naming']['guard']['text'][7:]}."
    )
    of_run = {
        "point": 0.1,
        "point_low": -0.1,
        "run": 1.0,
        "run_low": 0.5,
        "run_high": 1.5,
        "share": 0.1,
        "share_low": 0.0,
        "share_high": 0.3,
    }
    for components, text in (
        (of_run, "Another training would memorize mostly other ones: 10 % of what differs between points belongs"),
        ({**of_run, "run_high": -0.1}, "Whether another training would memorize the same ones cannot be told here."),
        ({**of_run, "share_high": 0.8}, "Whether another training would memorize the same ones cannot be told here."),
        (None, "whether another would memorize the same is not known from it"),
    ):
        assert text in summarize(named(found, components=components))["answer"][2]
    for changes, text in (
        (
            {"named": 0, "separates": True, "needs": 300},
            "about 300 points that no encoder saw would name some (there are 20)",
        ),
        ({"named": 0, "separates": True, "needs": None}, "more encoders may (memloc train --ensemble 8)"),
        ({"named": 0, "separates": False, "needs": None}, "Nothing here tells trained points from others, one by one."),
        ({"named": 0, "reason": "they differ"}, "No single point is named: they differ."),
    ):
        assert text in summarize(named(found, 0, naming=changes))["answer"][2]
    assert "no better than chance" in summarize(led_by(strong(found), "output", auroc=0.54))["answer"][0]
    layers = strong(found).layers.assign(simultaneous_low=-0.1)
    assert (
        summarize(replace(found, layers=layers))["answer"][1]
        == "In no layer is the membership effect distinguishable from 0, once all 5 are looked at."
    )


def test_no_layer_is_named_where_there_is_no_memorization():
    """A null over eleven layers: some layer's own interval excludes 0 in a quarter of the audits; the answer names one in
    2.5 %, and says nothing that the next steps deny."""
    draws, layers = np.random.default_rng(0).normal(size=(1500, 11)), [f"conv{number}" for number in range(11)]
    claimed = []
    for values in draws:
        table = pd.DataFrame(
            {"layer": layers, "alignment_gap": values, "gap_low": values - 1.96, "gap_high": values + 1.96}
        )
        answer = _where(table)
        claimed.append(answer.startswith("Memorization shows"))
        assert claimed[-1] == (lower_bounds(table) > 0).any()
        assert (
            claimed[-1]
            or answer == "In no layer is the alignment gap distinguishable from 0, once all 11 are looked at."
        )
    assert (draws > 1.96).any(axis=1).mean() > 0.2
    assert 0.01 < np.mean(claimed) < 0.04


def test_names_are_escaped(found):
    page = render(summarize(found))
    assert "<script>alert(1)</script>" not in page
    assert "alert(1)" in page


def test_it_needs_no_network_and_is_small(found, tmp_path):
    page = write_report(found, tmp_path / "r.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    assert "@import" not in page
    assert len(page.encode()) < 1_500_000


def test_a_large_audit_stays_under_its_limit(tmp_path):
    from memloc.encoders import ResNet9

    pixels = np.random.default_rng(0).integers(0, 256, (1400, 32, 32, 3), dtype=np.uint8)
    splits = ["candidate"] * 1000 + ["external"] * 400
    result = audit(ResNet9(), ResNet9(), images=pixels, labels=np.arange(1400) % 10, splits=splits, views=Views(n=2))
    page = write_report(result, tmp_path / "r.html")
    assert page.stat().st_size < 1_500_000


def test_without_reference_or_labels_or_thumbnails(tmp_path):
    from tests.conftest import tiny_net

    pixels = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 1), dtype=np.uint8)
    alone = audit(
        tiny_net(0), images=pixels, splits=["candidate"] * 15 + ["external"] * 15, views=Views(n=4), thumbnails=False
    )
    page = write_report(alone, tmp_path / "r.html").read_text()
    assert "alignment gap" in page
    assert "The bar is the score at output" in page  # points that it never saw are enough for one
    assert summarize(alone)["points"][0]["score"] is not None
    nothing = write_report(audit(tiny_net(0), images=pixels, views=Views(n=4)), tmp_path / "r.html").read_text()
    assert "nothing can be said" in nothing
    assert (
        "there are no points that the encoder never saw to compare with (memloc train --held-out, or --external)"
        in nothing
    )
    assert "no single point has a score" in nothing
    no_external = audit(
        tiny_net(0), tiny_net(1), images=pixels, splits=["candidate"] * 15 + ["independent"] * 15, views=Views(n=4)
    )
    assert "Calibrated" in write_report(no_external, tmp_path / "r.html").read_text()
    no_twin = audit(
        tiny_net(0), tiny_net(1), images=pixels, splits=["candidate"] * 15 + ["external"] * 15, views=Views(n=4)
    )
    assert "Above external" in write_report(no_twin, tmp_path / "r.html").read_text()


def test_round_trip_and_messages(found, tmp_path):
    found.save(tmp_path / "a")
    assert summarize(Audit.load(tmp_path / "a")) == summarize(Audit.load(found.save(tmp_path / "b")))
    with pytest.raises(DataNotFoundError, match="holds no finished audit"):
        write_report(tmp_path / "none")
    with pytest.raises(SpecError, match=r"b' is a folder. Expected a file to write. Pass out=.*b/report.html"):
        write_report(found, tmp_path / "b")
    record = json.loads((tmp_path / "a/audit.json").read_text())
    (tmp_path / "a/audit.json").write_text(json.dumps({**record, "schema_version": 99}))
    from memloc.errors import ResultsError

    with pytest.raises(ResultsError, match="schema version 99. Expected version 1"):
        Audit.load(tmp_path / "a")


def charts(audit):
    """By label, the layers that each chart of the page draws."""
    page = render(summarize(audit))
    return {
        label: re.findall(r'<rect class="hit" data-layer="([^"]*)"', chart)
        for label, chart in re.findall(
            r'<svg class="chart"[^>]* aria-label="([^"]*), values in[^"]*">(.*?)</svg>', page
        )
    }


def test_the_head_and_the_loss_have_a_chart_apart_from_the_chain(headed):
    drawn, behind = charts(headed), ["projection head.0", "projection head", LOSS]
    assert headed.layers["layer"].tolist() == ["conv1", "conv2", "head", "output", *behind]
    for figure in ("membership effect", "candidates"):
        assert drawn[f"{figure} by depth"] == ["conv1", "conv2", "head", "output"]
        assert drawn[f"{figure} at the head and by the training loss"] == behind
    assert render(summarize(headed)).count("Behind the output: ") == 2  # one in each tab
    inside = headed.layers["kind"].isin(["head", "loss"])
    bare = replace(headed, layers=headed.layers[~inside])
    assert not any("training loss" in label for label in charts(bare))
    assert "Behind the output: " not in render(summarize(bare))


def test_rows_behind_the_output_are_not_joined_by_a_line(headed):
    """Neither is a depth of the other: the loss is no layer behind the head."""
    page = render(summarize(headed))
    joined = {
        label: re.findall(r'<path d="([^"]*)"', chart)[0].count("L")
        for label, chart in re.findall(
            r'<svg class="chart"[^>]* aria-label="([^"]*), values in[^"]*">(.*?)</svg>', page
        )
        if "membership effect" in label
    }
    assert joined == {"membership effect by depth": 3, "membership effect at the head and by the training loss": 0}


def test_the_answer_is_of_the_reading_that_leads_and_shows_the_output_beside_it(headed, found):
    output = headed.layers.set_index("layer")["auroc"]["output"]
    beside = f"; at the encoder's output {100 * output:.0f} %)"
    for layer, start in (
        ("projection head", "At the head that the encoder was trained with (projection head) a candidate scores"),
        (LOSS, "By the training loss (NT-Xent, assumed) a candidate scores"),
        ("conv2", "At conv2 a candidate scores"),
    ):
        told = summarize(led_by(headed, layer))
        assert told["leading"] == layer
        assert told["answer"][0].startswith(start)
        assert "90 % of comparisons (95 % interval 85 % to 95 %; chance is 50 %" in told["answer"][0]
        assert beside in told["answer"][0]
    own = summarize(led_by(headed, "output"))["answer"][0]
    assert own.startswith("At the encoder's output a candidate scores above")
    assert own.count("the encoder's output") == 1


def test_points_bars_and_bands_are_by_score(headed):
    told, points = summarize(headed), headed.points.set_index("point")
    leading = told["leading"]
    assert leading == "projection head"
    assert told["score_name"] == "score"
    ranked = points[points["split"] == "candidate"].sort_values("score", ascending=False)
    assert ranked.index.tolist() != ranked.sort_values("sslmem", ascending=False).index.tolist()
    assert [int(row["point"]) for row in told["points"]] == ranked.index.tolist()
    for row, (_, at) in zip(told["points"], ranked.iterrows(), strict=True):
        shown, expected = ([values[name] for name in names] for values, names in ((row, ("score", "low", "high")), (at, ("score", "score_low", "score_high"))))  # fmt: skip
        assert shown == pytest.approx(expected, rel=1e-3)
    rows = headed.point_layers.assign(split=headed.point_layers["point"].map(points["split"]))
    unseen = rows[rows["split"] == "external"].groupby("layer")["score"].quantile([0.05, 0.95]).unstack()
    assert set(told["band"]) == set(headed.layers["layer"])
    for layer, band in told["band"].items():
        assert [band["low"], band["high"]] == pytest.approx(unseen.loc[layer].tolist(), rel=1e-3)
    best = rows[rows["split"] == "candidate"].sort_values("score", ascending=False).groupby("layer").head(1)
    for layer, point, score in best[["layer", "point", "score"]].itertuples(index=False):
        first = told["layer_points"][layer][0]
        assert (first["point"], first["score"]) == (str(point), pytest.approx(score, rel=1e-3))
    page = render(told)
    assert "The bar is the score at projection head with its 95 % interval, in standard deviations of points" in page


@pytest.mark.browser
def test_bars_name_the_score_and_the_leading_row_is_chosen(headed, browser, tmp_path):
    from selenium.webdriver.common.by import By

    browser.get(write_report(headed, tmp_path / "r.html").as_uri())
    assert browser.find_element(By.ID, "detail-name").text == "projection head"
    told = summarize(headed)
    band, first = told["band"]["projection head"], told["points"][0]
    bar = browser.find_element(By.CSS_SELECTOR, "#gallery .card svg")
    assert bar.get_attribute("aria-label") == (
        f"score {first['score']:.3f} [{first['low']:.3f}, {first['high']:.3f}]; external 5–95 %: {band['low']:.3f} to"
        f" {band['high']:.3f}"
    )
    left, wide, score = (
        float(bar.find_element(By.CSS_SELECTOR, query).get_attribute(name))
        for query, name in ((".band", "x"), (".band", "width"), (".score", "x"))
    )
    assert (score + 0.6 > left + wide) == (first["score"] > band["high"])
    loss = browser.find_element(By.CSS_SELECTOR, f"[data-panel=calibrated] rect.hit[data-layer='{LOSS}']")
    browser.execute_script("arguments[0].dispatchEvent(new MouseEvent('click', {bubbles: true}))", loss)
    assert browser.find_element(By.ID, "detail-name").text == LOSS
    assert browser.find_element(By.CSS_SELECTOR, "#detail-units tbody").text == "No units are read here."
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []


def test_an_audit_of_memloc_0_1_reports_without_score_and_reading(tmp_path):
    with pytest.warns(MemlocWarning, match="was written by an older memloc"):
        old = Audit.load(OLD)
    assert "reading" not in old.record
    assert ranking_column(old.points) == ranking_column(old.point_layers) == "sslmem"
    told = summarize(old)
    assert (told["leading"], told["score_name"]) == ("output", "SSLMem′")
    assert told["answer"][0].startswith("At the encoder's output ")
    last = old.layers.set_index("layer")["auroc"]["output"]
    assert f"in {100 * last:.0f} % of comparisons" in told["answer"][0]
    ranked = old.points[old.points["split"] == "candidate"].sort_values("sslmem", ascending=False)
    assert [row["name"] for row in told["points"]] == ranked["name"].tolist()
    assert [row["score"] for row in told["points"]] == pytest.approx(ranked["sslmem"].tolist(), abs=1e-4)
    assert [row["low"] for row in told["points"]] == pytest.approx(ranked["sslmem_low"].tolist(), abs=1e-4)
    unseen = old.points.loc[old.points["split"] == "external", "sslmem"]
    assert told["band"]["output"]["high"] == pytest.approx(unseen.quantile(0.95), abs=1e-4)
    page = write_report(old, tmp_path / "r.html").read_text()
    assert "The bar is the SSLMem′ at output with its 95 % interval; the shaded band" in page
    assert "Behind the output: " not in page
    assert READ_THE_HEAD in page
    assert "written by an earlier memloc, which named no points" in told["answer"][2]
    assert told["rates"] == told["roc"] == []


def test_named_points_come_first_with_their_error_rates(headed):
    told = summarize(named(headed, 3))
    expected = headed.points.query("split == 'candidate'").sort_values("evidence", ascending=False)["point"].head(3)
    assert [int(row["point"]) for row in told["points"][:3]] == expected.tolist()
    assert [row["named"] for row in told["points"]] == [True] * 3 + [False] * 17
    page = render(told)
    assert "Points: 3 named as memorized" in page
    assert "1 of 40 decoys, held-out points scored as if they were candidates, would be named, too" in page
    assert "Points, exploratory: none of them is named" in render(summarize(headed))


def test_error_rates_are_those_of_the_table(headed):
    told = summarize(headed)
    assert [each["reading"] for each in told["rates"]] == ["evidence", "projection head", "output"]
    for each in told["rates"]:
        rows = headed.separation[headed.separation["reading"] == each["reading"]]
        assert [row["fpr"] for row in each["rows"]] == rows["fpr"].tolist() == [0.001, 0.01, 0.05, 0.1]
        assert each["rows"][0]["tpr"] is None, "20 points tell no rate of one in a thousand"
        assert each["rows"][3]["tpr"] == pytest.approx(rows["tpr"].iloc[3], abs=1e-3)
    points = headed.points
    unseen, trained = (
        points.loc[points["split"] == split, "evidence"].to_numpy() for split in ("external", "candidate")
    )
    assert len(told["roc"]) == 20
    for place, (alarm, found) in enumerate(told["roc"]):
        threshold = np.sort(unseen)[::-1][place]
        assert alarm == (place + 1) / 20
        assert found == pytest.approx((trained >= threshold).mean())
    page = render(told)
    assert "too few" in page
    assert "trained points found by false alarms" in page


def test_a_null_result_is_titled_so(found):
    layers = found.layers.assign(simultaneous_low=-0.1, shows=False)
    nothing = led_by(replace(found, layers=layers), "output", auroc=0.5)
    assert summarize(nothing)["title"] == "No memorization found in encoder TinyNet"
    for other in (led_by(nothing, "output", auroc=0.8), replace(nothing, layers=strong(found).layers), named(nothing)):
        assert summarize(other)["title"] == "What encoder TinyNet memorized"


@pytest.mark.browser
def test_clicking_through_it(found, browser, tmp_path):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser.get(write_report(strong(found), tmp_path / "r.html").as_uri())

    def one(query):
        return browser.find_element(By.CSS_SELECTOR, query)

    def many(query):
        return browser.find_elements(By.CSS_SELECTOR, query)

    def text(query):
        return one(query).text

    assert len(many("#answer > p")) == 3
    # a layer, then its points and units
    assert text("#detail-name") == "output"
    browser.execute_script("arguments[0].click()", one("#layer-table tr[data-layer=conv1]"))
    assert text("#detail-name") == "conv1"
    best = found.units.query("layer == 'conv1'").sort_values(["unitmem", "unit"], ascending=[False, True]).iloc[0]
    assert text("#detail-units tbody tr th") == str(best["unit"])
    rows = found.point_layers.query("layer == 'conv1'")
    top = rows[rows["point"] < 20].sort_values("score", ascending=False).iloc[0]
    names = found.points.set_index("point")["name"]
    assert text("#detail-points figcaption").startswith(names[top["point"]])
    assert many("#detail-points img[alt^='image ']")
    assert "middle 90 % of external points" in text("#detail-band")
    # from a point to its units, and to their layer
    card = next(card for card in many("#gallery .card") if card.find_elements(By.CSS_SELECTOR, "details"))
    browser.execute_script("arguments[0].open = true", card.find_element(By.TAG_NAME, "details"))
    chip = card.find_element(By.CSS_SELECTOR, ".chip-button")
    browser.execute_script("arguments[0].click()", chip)
    assert text("#detail-name") == chip.get_attribute("data-layer")
    # by keyboard
    one("#layer-table tr[data-layer=conv2]").send_keys(Keys.ENTER)
    assert text("#detail-name") == "conv2"
    # tabs
    one("[data-tab=published]").click()
    assert one("[data-panel=published]").is_displayed()
    assert not one("[data-panel=calibrated]").is_displayed()
    one("[data-tab=calibrated]").click()
    # hover values
    ActionChains(browser).move_to_element(one("[data-panel=calibrated] circle[data-tip]")).perform()
    assert "membership effect" in text("#tip")
    # sorting
    heads = many("#layer-table thead th")
    column = next(number for number, head in enumerate(heads) if "Mem" in head.text and "Layer" in head.text)
    one(f"#layer-table thead th:nth-child({column + 1}) button").click()
    shown = [row.get_attribute("data-layer") for row in many("#layer-table tbody tr")]
    assert shown == found.layers.sort_values("layermem", ascending=False)["layer"].tolist()
    # filtering and ordering points
    assert len(many("#gallery .card")) == 20
    one("#filter").send_keys("cat")
    assert text("#shown") == "7 points"
    one("#filter").clear()
    one("#filter").send_keys(Keys.BACKSPACE)
    ranked = found.points.query("split == 'candidate'").sort_values("score")
    browser.execute_script(
        "const s=document.getElementById('order');s.value='least';s.dispatchEvent(new Event('input'))"
    )
    assert one("#gallery .card").get_attribute("data-point") == str(ranked.iloc[0]["point"])
    assert many("#gallery .card svg .band")
    # light and dark
    before = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    one("#theme").click()
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") != before
    # every picture has an alternative text, and nothing went wrong
    assert all(image.get_attribute("alt") for image in many("img"))
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []


@pytest.mark.browser
def test_narrow_screens_do_not_overflow(found, browser, tmp_path):
    browser.get(write_report(found, tmp_path / "r.html").as_uri())
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    )
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide <= 390


def test_an_encoder_against_itself_has_a_report_of_zeros(tmp_path):
    from tests.conftest import tiny_net

    pixels = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 1), dtype=np.uint8)
    splits = ["candidate"] * 10 + ["independent"] * 10 + ["external"] * 10
    found = audit(tiny_net(0), tiny_net(0), images=pixels, splits=splits, views=Views(n=4))
    assert any("same weights" in text for text in found.warnings)
    assert write_report(found, tmp_path / "r.html").stat().st_size > 10_000


READ_THE_HEAD = "Read the head that the encoder was trained with"


def titles(audit, folder=None):
    return {step["title"]: step for step in summarize(audit, folder)["steps"]}


def test_next_steps_follow_the_figures(found):
    good = strong(found)
    steps = titles(good, "my audits/found")
    review = steps["Review the 5 named points"]
    assert "--table points" in review["command"]
    assert "'my audits/found'" in review["command"]
    assert "at most 0.2 of them are named falsely" in review["why"]
    assert not any("memloc remove" in step["command"] for step in steps.values()), "there is no run to train again"
    of_run = titles(replace(good, record={**good.record, "run": "a"}))["See what the encoder is worth without them"]
    assert "--count 5 --order most" in of_run["command"]
    tuned = next(title for title in steps if title.startswith("For another task, try to fine-tune"))
    best = good.layers["layer"].iloc[1]  # the one with weights of its own and a clear figure whose Δ is above 0
    assert tuned.endswith(f"fine-tune {best}")
    assert f"--layers {best}" in steps[tuned]["command"]


def test_next_steps_do_not_act_on_points_that_are_not_named(found):
    steps = titles(replace(found, layers=strong(found).layers))
    assert "Do not remove or review points by their score" in steps
    assert not any("memloc remove" in step["command"] or "--table points" in step["command"] for step in steps.values())


def test_next_steps_say_how_many_points_would_name_some(found):
    naming = {**found.record["naming"], "needs": 300, "separates": True}
    step = titles(replace(found, record={**found.record, "naming": naming}))["Hold out more points to name some"]
    assert "About 300 points" in step["why"]
    assert "--external MORE-UNSEEN" in step["command"]


def test_next_steps_where_nothing_is_memorized(found):
    layers = found.layers.assign(
        simultaneous_low=-1.0, shows=False, reliability_runs=float("nan"), reliability_views=0.95
    )
    layers["member_share_low"] = 0.2
    quiet = replace(found, layers=layers, record={**found.record, "mode": "ensemble"})
    assert list(titles(quiet)) == [READ_THE_HEAD, "There is nothing to act on yet"]


def test_the_step_to_read_the_head_is_there_until_one_is_read(found, headed):
    assert READ_THE_HEAD not in titles(headed)
    step = titles(found)[READ_THE_HEAD]  # a row of the loss alone is not enough
    assert "--f-head HEAD --g G --g-head HEAD2" in step["command"]
    run = replace(found, record={**found.record, "run": "my runs/a", "training": {"objective": "simclr"}})
    assert titles(run)[READ_THE_HEAD]["command"] == "memloc audit 'my runs/a' --out AUDIT2"
    mae = replace(found, record={**found.record, "training": {"objective": "mae"}})  # which has none to read
    assert READ_THE_HEAD not in titles(mae)


def test_next_steps_quote_the_measured_evidence(found):
    from memloc.report._steps import evidence

    for step in summarize(strong(found))["steps"]:
        assert step["evidence"] in evidence().values()
        assert step["evidence"].startswith(("docs/", "published: "))
        assert "docs/" in step["evidence"]
    assert "Recommended next steps" in render(summarize(strong(found)))


@pytest.mark.browser
def test_the_page_runs_its_own_script_alone(found, tmp_path, browser):
    page = write_report(found, tmp_path / "r.html").read_text()
    assert "default-src 'none'" in page
    (tmp_path / "r.html").write_text(page.replace("</body>", "<script>document.title = 'run'</script><img src=x onerror=\"document.title = 'run'\"></body>"))  # fmt: skip
    browser.get((tmp_path / "r.html").as_uri())
    assert browser.title != "run"
    assert any("Content Security Policy" in line["message"] for line in browser.get_log("browser"))
    (tmp_path / "own.html").write_text(page)
    browser.get((tmp_path / "own.html").as_uri())
    assert not browser.get_log("browser")

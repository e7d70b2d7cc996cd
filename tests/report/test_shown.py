"""An audit as it shows itself: in a terminal, in a notebook, as a plot, as a report."""

import base64
import sys

import pandas as pd
import pytest

import memloc
from memloc.errors import MissingExtraError
from memloc.report import render, summarize
from memloc.report._words import figure_text, scale_of


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """An audit of a pair with thumbnails, saved, and its folder."""
    import numpy as np

    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    splits = ["candidate"] * 12 + ["independent"] * 12 + ["external"] * 16

    def net():
        import torch

        return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 5, 3))

    folder = tmp_path_factory.mktemp("shown") / "audit"
    return memloc.audit(net(), net(), images=images, splits=splits, views=4, out=folder), folder


@pytest.fixture(scope="module")
def alone(found):
    import numpy as np
    import torch

    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 1), dtype=np.uint8)
    return memloc.audit(torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU()), images=images, views=4)


def test_it_is_shown_in_words_and_loads_as_it_was(found):
    audit, folder = found
    text = str(audit)
    assert text == audit.summary()
    assert text.startswith(("What encoder", "No memorization"))
    for layer in audit.layers["layer"]:
        assert f"\n{layer} " in text
    assert "Highest scores, which are no finding: " in text
    assert "next: " in text
    again = memloc.Audit.load(folder)
    assert isinstance(again, memloc.Audit)
    assert again.summary() == text


def test_the_layers_in_a_few_columns(found, alone):
    audit, _ = found
    table = audit.by_layer()
    assert table.index.tolist() == audit.layers.sort_values("order")["layer"].tolist()
    assert table.columns.tolist() == ["kind", "membership effect", "low", "high", "shows", "UnitMem"]
    pd.testing.assert_series_equal(
        table["membership effect"].reset_index(drop=True),
        audit.layers.sort_values("order")["layermem_calibrated"].reset_index(drop=True),
        check_names=False,
    )
    assert alone.by_layer().columns.tolist() == ["kind", "UnitMem"]
    assert "Named" not in alone.summary()
    assert "Highest" not in alone.summary()


def test_small_figures_are_in_a_unit_that_can_be_read(found):
    assert scale_of([0.35, 0.0001]) == ("", 1.0)
    assert scale_of([0.0004, -0.0001]) == (", 10⁻³", 1e3)
    assert scale_of([3e-7]) == (", 10⁻⁶", 1e6)
    assert scale_of([float("nan"), None]) == scale_of([]) == ("", 1.0)
    assert [figure_text(value, 2) for value in (-0.0001, -0.51, float("nan"), None)] == ["0.00", "-0.51", "–", "–"]
    audit, _ = found
    small = {"layermem_calibrated": 0.0004, "calibrated_low": -0.00001, "calibrated_high": 0.0007}
    page = render(summarize(memloc.Audit(**{**vars(audit), "layers": audit.layers.assign(**small)})))
    assert "calibrated, 10⁻³</button>" in page
    assert ">0.40<small>-0.01 to 0.70</small>" in page


def test_a_notebook_sees_answer_chart_and_pictures(found, alone):
    audit, _ = found
    html = audit._repr_html_()
    assert html.count("<svg") == 1
    assert html.count("<img") == 8
    picture = html.partition("base64,")[2].partition('"')[0]
    assert base64.b64decode(picture).startswith(b"\x89PNG")
    assert "nan" not in html.lower()
    assert "script" not in html
    assert "<img" not in alone._repr_html_()


def test_names_of_points_are_text_not_markup(found):
    audit, _ = found
    points = audit.points.assign(name="<b>x</b>")
    html = memloc.Audit(**{**vars(audit), "points": points})._repr_html_()
    assert "<b>x</b>" not in html
    assert "&lt;b&gt;x" in html


def test_a_plot_has_every_layer_and_marks_what_shows(found, alone):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    audit, _ = found
    layers = audit.layers.assign(simultaneous_low=[0.1] + [-1.0] * (len(audit.layers) - 1))
    axes = memloc.Audit(**{**vars(audit), "layers": layers}).plot()
    assert [label.get_text() for label in axes.get_xticklabels()] == audit.by_layer().index.tolist()
    assert axes.get_ylabel() == "membership effect"
    assert [list(line.get_xdata()) for line in axes.lines if line.get_label() == "shows"] == [[0]]
    other = audit.plot(ax=axes.figure.add_subplot())
    assert other.figure is axes.figure
    assert alone.plot().get_ylabel() == "UnitMem"
    matplotlib.pyplot.close("all")


def test_a_plot_without_matplotlib_says_what_to_install(found, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'memloc\[plot\]'"):
        found[0].plot()


def test_a_report_is_written_where_it_is_asked_for(found, tmp_path):
    path = found[0].report(tmp_path / "x.html")
    assert path == tmp_path / "x.html"
    assert "<svg" in path.read_text()

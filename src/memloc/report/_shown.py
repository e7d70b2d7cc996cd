"""An Audit that shows itself: in a terminal, in a notebook, as a plot, as a report."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from memloc.errors import MissingExtraError
from memloc.report._charts import layer_chart
from memloc.report._summary import summarize
from memloc.report._words import figure_text, scale_of
from memloc.report._write import write_report
from memloc.results import HEADLINES, headline, of_encoder, ranking_column, shown_in
from memloc.results import Audit as Tables

_POINTS = 8  # shown in a gallery
_STYLE = (
    ".memloc{font:14px system-ui,sans-serif;max-width:900px}.memloc .chart{width:100%;height:auto;max-width:760px}"
    ".memloc .grid{stroke:#8884}.memloc .zero{stroke:#888}.memloc .tick{font-size:11px;fill:currentColor}"
    ".memloc .hit{fill:transparent}.memloc .series path,.memloc .whisker{stroke:#0b6fa4;stroke-width:2}"
    ".memloc .series circle{fill:#0b6fa4}.memloc figure{display:inline-block;margin:0 10px 10px 0;width:96px;"
    "vertical-align:top;font-size:12px;overflow-wrap:anywhere}.memloc img{width:96px;image-rendering:pixelated}"
)


@dataclass(frozen=True, repr=False)
class Audit(Tables):
    """What an audit found, and how it is looked at; columns are described in `memloc.results.TABLES`.

    `print(audit)` says what was found in words and by layer; a notebook shows the answer, the chart of layers and the
    most memorized points.

    >>> import numpy as np
    >>> from memloc import Views, audit
    >>> from memloc.encoders import ResNet9
    >>> images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    >>> found = audit(ResNet9(), ResNet9(), images=images, splits=["candidate"] * 6 + ["independent"] * 6, views=4)
    >>> found.by_layer().columns.tolist()
    ['kind', 'membership effect', 'low', 'high', 'shows', 'UnitMem']
    """

    def __repr__(self) -> str:
        return self.summary()

    def by_layer(self) -> pd.DataFrame:
        """The layers in a few columns: the figure that decides with its 95 % interval, whether memorization shows once
        all layers are looked at, and the mean UnitMem; one row per layer, in the order of the forward pass."""
        layers = self.layers.sort_values("order").set_index("layer")
        found = headline(layers)
        columns: dict[str, Any] = {"kind": layers["kind"]}
        if found is not None:
            columns |= {
                found.name: pd.to_numeric(layers[found.figure], errors="coerce"),
                "low": pd.to_numeric(layers[found.low], errors="coerce"),
                "high": pd.to_numeric(layers[found.high], errors="coerce"),
                "shows": shown_in(layers),
            }
        return pd.DataFrame({**columns, "UnitMem": layers["unitmem_mean"]})

    def summary(self) -> str:
        """What was found, in words: the answer, the layers in a scale that can be read, the named points, and the next
        step."""
        found = summarize(self)
        table = self.by_layer()
        numbers = [name for name in table.columns[1:-1] if name != "shows"]
        unit, factor = scale_of(table[numbers].to_numpy().ravel())
        digits = 4 if factor == 1 else 2
        shown = table.assign(
            **{name: [figure_text(value, digits) for value in table[name] * factor] for name in numbers}
        )
        shown["UnitMem"] = table["UnitMem"].map(lambda value: figure_text(value, 3))
        if numbers:
            shown = shown.rename(columns={numbers[0]: f"{numbers[0]}{unit}"})
        if "shows" in shown:
            shown["shows"] = shown["shows"].map({True: "yes", False: ""})
        parts = [found["title"], *filter(None, found["answer"]), shown.to_string(index_names=False)]
        top = self._most_memorized()
        if len(top):
            column = ranking_column(self.points)
            names = ", ".join(f"{name} ({value:.2f})" for name, value in zip(top["name"], top[column], strict=True))
            what = "Named points" if self._are_named(top) else "Highest scores, which are no finding"
            parts.append(f"{what}: {names}")
        parts += [f"warning: {text}" for text in self.warnings]
        if found["steps"]:
            parts.append(f"next: {found['steps'][0]['title']}: {found['steps'][0]['command']}")
        return "\n\n".join(parts)

    def plot(self, ax: Any = None) -> Any:
        """The figure that decides by layer with its 95 % intervals, layers in which memorization shows filled.

        Args:
            ax: matplotlib's axes to draw on; new ones by default.
        Returns:
            The axes.
        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        try:
            from matplotlib import pyplot
        except ImportError as problem:
            raise MissingExtraError(
                "matplotlib is not installed. Expected it for plots. Install it with: pip install 'memloc[plot]'"
            ) from problem
        table = self.by_layer()
        if ax is None:
            _, ax = pyplot.subplots(figsize=(max(6.0, 0.5 * len(table)), 3.6), layout="constrained")
        found = headline(self.layers)
        if found is None:
            ax.bar(table.index, table["UnitMem"])
            ax.set_ylabel("UnitMem")
        else:
            value, low, high = (table[name].to_numpy(dtype=float) for name in (found.name, "low", "high"))
            places = range(len(table))
            errors = [value - low, high - value]
            ax.errorbar(places, value, yerr=errors, fmt="o", mfc="white", color="C0", capsize=3, linestyle="-", lw=1)
            shows = table["shows"].to_numpy(dtype=bool)
            ax.plot([place for place in places if shows[place]], value[shows], "o", color="C0", zorder=3, label="shows")
            ax.axhline(0, color="grey", lw=0.8)
            ax.set_ylabel(found.name)
        ax.set_xticks(range(len(table)), table.index, rotation=35, ha="right")
        return ax

    def report(self, path: str | Path = "report.html") -> Path:
        """Write the report; returns its path. As `memloc.write_report`."""
        return write_report(self, path)

    def _most_memorized(self) -> pd.DataFrame:
        """The named points, or else those of highest score; none without scores."""
        column = ranking_column(self.points)
        known = self.points[self.points[column].notna() & (self.points["split"] == "candidate")]
        named = known[known["named"].fillna(False).astype(bool)] if "named" in known else known.iloc[:0]
        return (named if len(named) else known).sort_values([column, "point"], ascending=[False, True]).head(_POINTS)

    @staticmethod
    def _are_named(points: pd.DataFrame) -> bool:
        return "named" in points and bool(points["named"].fillna(False).astype(bool).any())

    def _repr_html_(self) -> str:
        """The answer, the chart of layers and the most memorized points, for notebooks."""
        found = summarize(self)
        layers = of_encoder(self.layers.sort_values("order")).to_dict("records")
        rows = [{key: None if _is_nan(value) else value for key, value in row.items()} for row in layers]
        decides = headline(self.layers) or HEADLINES[0]
        line = ("calibrated", decides.name, decides.figure, decides.low, decides.high)
        chart = layer_chart(rows, [line], f"{decides.name} by depth")
        pictures = dict(zip(self.thumbnails["point"], self.thumbnails["png"], strict=True))
        top, column = self._most_memorized(), ranking_column(self.points)
        cards = [
            f'<figure><img alt="{escape(str(row["name"]))}" src="data:image/png;base64,'
            f'{base64.b64encode(pictures[row["point"]]).decode()}"><figcaption>{escape(str(row["name"]))}<br>'
            f"{row[column]:.2f}</figcaption></figure>"
            for row in top.to_dict("records")
            if row["point"] in pictures
        ]
        what = "Named points" if self._are_named(top) else "Highest scores, which are no finding"
        gallery = f"<p><b>{what}</b></p><div>{''.join(cards)}</div>" if cards else ""
        answer = "".join(f"<p>{escape(text)}</p>" for text in found["answer"] if text)
        return (
            f'<div class="memloc"><style>{_STYLE}</style><h3>{escape(found["title"])}</h3>{answer}'
            f"<p><b>{escape(decides.name)} by depth</b>, 95 % intervals</p>{chart}{gallery}</div>"
        )


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)

"""Charts as inline SVG, readable without scripts; scripts add hover and selection through their data attributes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 14, 74
_FOOT = 44  # below a chart with short labels


def layer_chart(
    layers: Sequence[dict[str, Any]],
    series: Sequence[tuple[str, str, str, str | None, str | None]],
    label: str,
    *,
    joined: bool = True,
) -> str:
    """Figures by depth, each a line with its intervals.

    Args:
        layers: rows of the layers table.
        series: (CSS class, legend, column, low column, high column) of each line.
        label: what a screen reader says.
        joined: whether a line joins the layers; without it there is more room for their names.
    """
    width, height = max(560, (70 if joined else 150) * len(layers)), 340
    values = [row.get(name) for row in layers for _, _, *names in series for name in names if name]
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, high, ticks = _scale(min([*known, 0.0]), max([*known, 0.0]))
    step = (width - _LEFT - _RIGHT) / max(len(layers), 1)
    x = [_LEFT + step * (place + 0.5) for place in range(len(layers))]

    def y(value: float) -> float:
        return _TOP + (height - _TOP - _BOTTOM) * (high - value) / (high - low)

    parts = [f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">']
    parts += _axis(ticks, y, width)
    turned, anchor = (" rotate(35)", "start") if joined else ("", "middle")
    for place, row in enumerate(layers):
        name = escape(str(row["layer"]))
        parts.append(
            f'<rect class="hit" data-layer="{name}" tabindex="0" role="button" aria-label="show layer {name}"'
            f' x="{x[place] - step / 2:.1f}" y="{_TOP}" width="{step:.1f}" height="{height - _TOP - 8}"/>'
        )
        parts.append(
            f'<text class="tick" transform="translate({x[place]:.1f},{height - _BOTTOM + 14}){turned}"'
            f' text-anchor="{anchor}">{name}</text>'
        )
    for shift, (css, legend, column, low_name, high_name) in enumerate(series):
        dodge = 5 * (shift - (len(series) - 1) / 2)
        drawn = [
            (x[place] + dodge, row, row[column]) for place, row in enumerate(layers) if row.get(column) is not None
        ]
        path = " ".join(
            f"{'L' if number and joined else 'M'}{across:.1f},{y(value):.1f}"
            for number, (across, _, value) in enumerate(drawn)
        )
        parts.append(f'<g class="series {css}"><path d="{path}" fill="none"/>')
        for across, row, value in drawn:
            tip = f"{row['layer']} · {legend} {value:.4f}"
            if low_name and high_name and row.get(low_name) is not None:
                bottom, top = y(row[low_name]), y(row[high_name])
                parts.append(
                    f'<line class="whisker" x1="{across:.1f}" x2="{across:.1f}" y1="{bottom:.1f}" y2="{top:.1f}"/>'
                )
                tip += f" [{row[low_name]:.4f}, {row[high_name]:.4f}]"
            parts.append(
                f'<circle cx="{across:.1f}" cy="{y(value):.1f}" r="4" data-tip="{escape(tip)}"'
                f' data-layer="{escape(str(row["layer"]))}"/>'
            )
        parts.append("</g>")
    return "".join([*parts, "</svg>"])


def roc_chart(curve: Sequence[Sequence[float]], label: str) -> str:
    """Share of trained points found by share of false alarms, both on logarithmic axes; chance is the broken line."""
    if not curve:
        return ""
    width, height, least = 560, 340, min(curve[0][0], 0.01)
    decades = [10.0**-power for power in range(math.ceil(-math.log10(least)) + 1)]
    bottom = decades[-1]

    def x(value: float) -> float:
        return _LEFT + (width - _LEFT - _RIGHT) * (1 - math.log10(max(value, bottom)) / math.log10(bottom))

    def y(value: float) -> float:
        return _TOP + (height - _TOP - _FOOT) * math.log10(max(value, bottom)) / math.log10(bottom)

    parts = [f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">']
    for value in decades:
        text = f"{100 * value:g} %"
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
            f'<text class="tick" x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{text}</text>'
            f'<text class="tick" x="{x(value):.1f}" y="{height - _FOOT + 18}" text-anchor="middle">{text}</text>'
        )
    middle, chance = (_LEFT + width - _RIGHT) / 2, f"M{x(bottom):.1f},{y(bottom):.1f} L{x(1):.1f},{y(1):.1f}"
    parts.append(
        f'<text class="tick" x="{middle:.0f}" y="{height - 6}" text-anchor="middle">share of points never seen that are'
        f' taken for trained ones</text><path class="zero" stroke-dasharray="4 4" d="{chance}"/>'
    )
    path = " ".join(f"{'L' if number else 'M'}{x(across):.1f},{y(up):.1f}" for number, (across, up) in enumerate(curve))
    parts.append(f'<g class="series calibrated"><path d="{path}" fill="none"/></g>')
    return "".join([*parts, "</svg>"])


def unit_chart(units: dict[str, dict[str, Any]], label: str) -> str:
    """UnitMem per layer: 10 to 90 % as a thin bar, the middle half as a thick one, median, maximum, and the control."""
    width, height = max(560, 70 * len(units)), 320
    parts = [f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">']

    def y(value: float) -> float:
        return _TOP + (height - _TOP - _BOTTOM) * (1 - value)

    parts += _axis([0, 0.2, 0.4, 0.6, 0.8, 1.0], y, width)
    step = (width - _LEFT - _RIGHT) / max(len(units), 1)
    for place, (layer, found) in enumerate(units.items()):
        middle, name = _LEFT + step * (place + 0.5), escape(layer)
        parts.append(
            f'<rect class="hit" data-layer="{name}" tabindex="0" role="button" aria-label="show units of {name}"'
            f' x="{middle - step / 2:.1f}" y="{_TOP}" width="{step:.1f}" height="{height - _TOP - 8}"/>'
        )
        parts.append(
            f'<text class="tick" transform="translate({middle:.1f},{height - _BOTTOM + 14}) rotate(35)">{name}</text>'
        )
        if not found["quantiles"]:
            continue
        least, p10, p25, median, p75, p90, most = found["quantiles"]
        tip = (
            f"{layer} · {found['count']} units: median {median:.3f}, 10-90 % {p10:.3f} to {p90:.3f}, range {least:.3f}"
            f" to {most:.3f}"
        )
        if found["external"] is not None:
            tip += f"; median over external points {found['external']:.3f}"
        parts.append(
            f'<g class="units" data-tip="{escape(tip)}" data-layer="{name}"><line class="thin" x1="{middle:.1f}"'
            f' x2="{middle:.1f}" y1="{y(p10):.1f}" y2="{y(p90):.1f}"/>'
        )
        parts.append(
            f'<rect class="box" x="{middle - 9:.1f}" width="18" y="{y(p75):.1f}"'
            f' height="{max(y(p25) - y(p75), 1):.1f}"/>'
        )
        parts.append(
            f'<line class="median" x1="{middle - 9:.1f}" x2="{middle + 9:.1f}" y1="{y(median):.1f}"'
            f' y2="{y(median):.1f}"/><circle class="most" cx="{middle:.1f}" cy="{y(most):.1f}" r="2.5"/>'
        )
        if found["external"] is not None:
            parts.append(f'<path class="control" d="M{middle + 13:.1f},{y(found["external"]):.1f} l7,-4 v8 z"/>')
        parts.append("</g>")
    return "".join([*parts, "</svg>"])


def box_chart(columns: Sequence[dict[str, Any]], label: str) -> str:
    """Values per column: 5 to 95 % as a thin bar, the middle half as a thick one, and the median."""
    known = [value for row in columns for value in row["quantiles"] if value is not None]
    if not known:
        return ""
    width, height = max(560, 34 * len(columns)), 320
    low, high, ticks = _scale(min(known), max(known))
    parts = [f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">']

    def y(value: float) -> float:
        return _TOP + (height - _TOP - _BOTTOM) * (high - value) / (high - low)

    parts += _axis(ticks, y, width)
    step = (width - _LEFT - _RIGHT) / len(columns)
    for place, row in enumerate(columns):
        middle, name = _LEFT + step * (place + 0.5), escape(str(row["column"]))
        parts.append(
            f'<text class="tick" transform="translate({middle:.1f},{height - _BOTTOM + 14})'
            f' rotate(35)">{name[:14]}</text>'
        )
        if None in row["quantiles"]:
            continue
        p5, p25, median, p75, p95 = row["quantiles"]
        tip = f"{row['column']} · median {median:.3f}, 5-95 % {p5:.3f} to {p95:.3f}"
        parts.append(
            f'<g class="units"><title>{escape(tip)}</title><line class="thin" x1="{middle:.1f}" x2="{middle:.1f}"'
            f' y1="{y(p5):.1f}" y2="{y(p95):.1f}"/><rect class="box" x="{middle - 7:.1f}" width="14" y="{y(p75):.1f}"'
            f' height="{max(y(p25) - y(p75), 1):.1f}"/><line class="median" x1="{middle - 7:.1f}" x2="{middle + 7:.1f}"'
            f' y1="{y(median):.1f}" y2="{y(median):.1f}"/></g>'
        )
    return "".join([*parts, "</svg>"])


def scatter(layer: str, points: Sequence[Sequence[float | None]]) -> str:
    """ClassMem against UnitMem of one layer's units; below the diagonal a unit is more about one point than one
    class."""
    size, edge = 190, 26

    def at(value: float) -> float:
        return edge + (size - 2 * edge) * value

    known = [
        (float(unit), float(of_class), int(number or 0))
        for unit, of_class, number in points
        if unit is not None and of_class is not None
    ]
    below = sum(unit > of_class for unit, of_class, _ in known)
    label = f"{layer}: {below} of {len(known)} units shown are more about one point than about one class"
    parts = [f'<figure><svg class="scatter" viewBox="0 0 {size} {size}" role="img" aria-label="{escape(label)}">']
    parts.append(
        f'<rect class="frame" x="{edge}" y="{edge}" width="{size - 2 * edge}" height="{size - 2 * edge}"/><line'
        f' class="diagonal" x1="{edge}" y1="{size - edge}" x2="{size - edge}" y2="{edge}"/>'
    )
    for unit, of_class, number in known:
        parts.append(
            f'<circle cx="{at(unit):.1f}" cy="{size - at(of_class):.1f}" r="2" data-tip="{escape(layer)} unit {number}'
            f' · UnitMem {unit:.3f}, ClassMem {of_class:.3f}"/>'
        )
    parts.append(
        f'<text class="tick" x="{size / 2}" y="{size - 8}" text-anchor="middle">UnitMem</text><text class="tick"'
        f' transform="translate(12,{size / 2}) rotate(-90)" text-anchor="middle">ClassMem</text>'
    )
    return "".join([*parts, f"</svg><figcaption>{escape(layer)}</figcaption></figure>"])


def series_chart(lines: dict[str, Sequence[Sequence[float | None]]], label: str) -> str:
    """A figure by epoch, one line per layer from light (first) to dark (last).

    Args:
        lines: epoch and value of each layer's points.
    """
    points = [
        (float(epoch or 0), float(value)) for line in lines.values() for epoch, value in line if value is not None
    ]
    if not points:
        return ""
    width, height, legend = 640, 320, 150
    low, high, ticks = _scale(min([*(value for _, value in points), 0.0]), max([*(value for _, value in points), 0.0]))
    first, last = min(epoch for epoch, _ in points), max(epoch for epoch, _ in points)

    def x(epoch: float) -> float:
        return _LEFT + 12 + (width - legend - _LEFT - 24) * (epoch - first) / max(last - first, 1e-9)

    def y(value: float) -> float:
        return _TOP + (height - _TOP - 40) * (high - value) / (high - low)

    parts = [f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">']
    parts += _axis(ticks, y, width - legend)
    epochs = sorted({epoch for epoch, _ in points})
    for epoch in epochs[:: max(len(epochs) // 8, 1)]:
        parts.append(f'<text class="tick" x="{x(epoch):.1f}" y="{height - 18}" text-anchor="middle">{epoch:g}</text>')
    parts.append(f'<text class="tick" x="{(width - legend) / 2}" y="{height - 3}" text-anchor="middle">epoch</text>')
    for number, (layer, line) in enumerate(lines.items()):
        share = number / max(len(lines) - 1, 1)
        colour = f"hsl(205 75% {75 - 45 * share:.0f}%)"
        known = [(float(epoch or 0), float(value)) for epoch, value in line if value is not None]
        if not known:
            continue
        path = " ".join(
            f"{'L' if place else 'M'}{x(epoch):.1f},{y(value):.1f}" for place, (epoch, value) in enumerate(known)
        )
        parts.append(f'<g><path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for epoch, value in known:
            tip = f"{layer} · epoch {epoch:g}: {value:.4f}"
            parts.append(
                f'<circle cx="{x(epoch):.1f}" cy="{y(value):.1f}" r="3" fill="{colour}" data-tip="{escape(tip)}"/>'
            )
        parts.append("</g>")
        if len(lines) <= 20 or number % (len(lines) // 20 + 1) == 0:
            at = _TOP + 10 + (height - 60) * share
            parts.append(
                f'<text class="tick" x="{width - legend + 10}" y="{at:.1f}"><tspan fill="{colour}">■</tspan>'
                f" {escape(layer[-20:])}</text>"
            )
    return "".join([*parts, "</svg>"])


def _axis(ticks: Sequence[float], y: Any, width: float) -> list[str]:
    parts = []
    for tick in ticks:
        css = "zero" if abs(tick) < 1e-12 else "grid"
        parts.append(f'<line class="{css}" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    return parts


def _scale(low: float, high: float) -> tuple[float, float, list[float]]:
    """Round limits and about five ticks.

    >>> _scale(0.0, 0.093)
    (0.0, 0.1, [0.0, 0.02, 0.04, 0.06, 0.08, 0.1])
    >>> low, high, _ = _scale(0.0, 0.0)
    >>> low < high
    True
    """
    import math

    span = max(high - low, 1e-6)
    power = 10 ** math.floor(math.log10(span / 5))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= 6)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [round(number * step, 12) for number in range(first, last + 1)]
    if len(ticks) == 1:  # every figure is the same round number
        ticks.append(round(ticks[0] + step, 12))
    return ticks[0], ticks[-1], ticks

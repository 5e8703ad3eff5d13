"""Divergences of layers alone, as box plots by layer type and format.

Import this module only to draw: matplotlib takes longer to load than most reports to write.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from evolve.profiles import LAYER_TYPES, FloatArray
from evolve.reports.drawing import GREY, INK, PALE, STYLE, WIDTH, new_figure, shortened, svg
from evolve.reports.layer_picture import KIND_COLOURS
from evolve.reports.network_facts import NetworkLayers, decades

#: Smaller divergences are drawn at this one.
_LEAST = 1e-7
#: A box of fewer layers would hide how few they are: they are drawn as dots alone.
_FEWEST_IN_BOX = 5
_MOST_DOTS = 40
_GOLDEN = 0.618034


def draw_boxes(networks: Sequence[NetworkLayers]) -> bytes | None:
    """Return `boxes_picture` as SVG, the same bytes for the same networks; None where there is nothing."""
    with matplotlib.rc_context(STYLE):
        figure = boxes_picture(networks)
        return None if figure is None else svg(figure)


def boxes_picture(networks: Sequence[NetworkLayers]) -> Figure | None:
    """Draw the divergences of layers alone in each format, a panel a layer type.

    A box spans the quartiles, its line is the median, its whiskers the 5 and 95 % quantiles. What is 0, as in
    formats that hold every weight exactly, is left out and counted at the foot.

    Args:
        networks: Networks with divergences; their formats may differ.

    Returns:
        The picture; None where no network has divergences.
    """
    formats = list(dict.fromkeys(name for each in networks for name in each.formats))
    pooled = {kind: _pooled(networks, kind, formats) for kind in LAYER_TYPES}
    shown = {kind: found for kind, found in pooled.items() if any(len(each) for each in found)}
    if not shown:
        return None
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    names = [shortened(name, 18) for name in formats]
    foot = 0.12 + 0.075 * max(map(len, names))
    panel_height, gap, left = 2.0, 0.42, 0.86
    height = 0.1 + rows * (panel_height + gap) + foot
    figure = new_figure(height)
    width = (WIDTH - left - 0.1 - 0.16 * (columns - 1)) / columns
    values = np.concatenate([each[each > 0] for found in shown.values() for each in found])
    limits = decades(values, _LEAST)
    for place, (kind, found) in enumerate(shown.items()):
        row, column = divmod(place, columns)
        bottom = height - 0.1 - (row + 1) * (panel_height + gap) + 0.1
        box = (left + column * (width + 0.16), bottom, width, panel_height)
        axes = figure.add_axes((box[0] / WIDTH, box[1] / height, box[2] / WIDTH, box[3] / height))
        _draw_type(axes, kind, found, limits)
        last = place + columns >= len(shown)
        axes.set_xticks(
            range(len(formats)), names if last else [""] * len(formats), rotation=90, fontsize=7.5
        )
        axes.tick_params(axis="x", length=0)
        if column:
            axes.set_yticklabels([])
    figure.text(
        0.1 / WIDTH,
        0.5 + 0.5 * foot / height - 0.1 / height,
        "divergence, layer alone",
        rotation=90,
        ha="center",
        va="center",
        size=9,
    )
    return figure


def _pooled(networks: Sequence[NetworkLayers], kind: str, formats: Sequence[str]) -> list[FloatArray]:
    """Return the divergences of all layers of a type, by format."""
    found: list[list[FloatArray]] = [[] for _ in formats]
    for each in networks:
        if each.divergence is None:
            continue
        chosen = np.array(each.kinds) == kind
        for index, name in enumerate(each.formats):
            found[formats.index(name)].append(each.divergence[chosen, index])
    return [np.concatenate(each) if each else np.empty(0) for each in found]


def _draw_type(axes: Axes, kind: str, found: Sequence[FloatArray], limits: tuple[float, float]) -> None:
    axes.set_yscale("log")
    axes.set_ylim(limits[0] / 2, limits[1] * 1.5)
    axes.set_xlim(-0.6, len(found) - 0.4)
    colour = KIND_COLOURS[kind]
    for place, values in enumerate(found):
        there = np.clip(np.sort(values[values > 0]), *limits)
        if len(there) >= _FEWEST_IN_BOX:
            low, lower, middle, upper, high = np.quantile(there, (0.05, 0.25, 0.5, 0.75, 0.95)).tolist()
            stats = {"whislo": low, "q1": lower, "med": middle, "q3": upper, "whishi": high, "fliers": []}
            line = {"color": colour, "linewidth": 1}
            axes.bxp(
                [stats],
                positions=[place],
                widths=0.62,
                patch_artist=True,
                manage_ticks=False,
                showcaps=False,
                boxprops={"facecolor": colour, "alpha": 0.3, "edgecolor": colour, "linewidth": 1},
                medianprops={"color": INK, "linewidth": 1.4},
                whiskerprops=line,
            )
        if len(there) <= _MOST_DOTS:
            # Spread so that equal values are seen, the same way each time.
            spread = (len(there) > 1) * 0.4 * ((np.arange(len(there)) + 1) * _GOLDEN % 1 - 0.5)
            axes.plot(place + spread, there, linestyle="", marker="o", markersize=2, color=colour, alpha=0.8)
        none = len(values) - len(there)
        if none:
            axes.annotate(
                "all 0" if none == len(values) else f"{none}×0",
                (place, 0.02),
                xycoords=("data", "axes fraction"),
                ha="center",
                va="bottom",
                fontsize=6.5,
                color=GREY,
                rotation=90,
            )
    _mark_heights(axes, limits)
    layers = max(len(each) for each in found)
    axes.set_title(f"{kind}, {layers} layer{'' if layers == 1 else 's'}", fontsize=9)


def _mark_heights(axes: Axes, limits: tuple[float, float]) -> None:
    first, last = (round(float(np.log10(each))) for each in limits)
    axes.yaxis.set_major_locator(FixedLocator([10.0**power for power in range(first, last + 1)]))
    axes.yaxis.set_minor_locator(NullLocator())
    least = limits[0] if limits[0] <= _LEAST else 0.0
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{'≤ ' if value <= least * 1.01 else ''}{value:g}")
    )
    axes.grid(axis="y", color=PALE)
    axes.tick_params(axis="y", labelsize=8)

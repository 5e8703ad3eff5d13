"""What whole allocations measured beside the sums of their layers' divergences.

Import this module only to draw: matplotlib takes longer to load than most reports to write.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from evolve.profiles import FloatArray
from evolve.reports.drawing import BLUE, GREEN, GREY, INK, ORANGE, STYLE, WIDTH, new_figure, shortened, svg
from evolve.reports.network_facts import SumPanel, decades

_COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", INK)
_MARKERS = "osD^vPX"
#: Smaller divergences are drawn at this one.
_LEAST = 1e-5
#: More dots than this are drawn as pixels: as shapes they would make a file of many megabytes.
_MOST_SHAPES = 4000
#: Groups of more allocations than these have smaller and paler dots.
_FEW, _MANY = 8, 200
#: Inches beside the first panel, for its numbers and its label.
_SIDE = 0.82


def draw_sums(panels: Sequence[SumPanel], marked_label: str = "") -> bytes:
    """Return `sums_picture` as SVG, the same bytes for the same panels."""
    with matplotlib.rc_context(STYLE):
        return svg(sums_picture(panels, marked_label))


def sums_picture(panels: Sequence[SumPanel], marked_label: str = "") -> Figure:
    """Draw measured over predicted divergence, both logarithmic, a panel beside the other.

    Args:
        panels: One to three.
        marked_label: What the marks on the lower edge are.
    """
    lines = max(len(each.groups) for each in panels) if len(panels) > 1 else 0
    legend = 0.18 * lines + 0.1 if lines else 0.0
    square = 3.8 if len(panels) == 1 else (WIDTH - _SIDE - 0.24 * len(panels)) / len(panels)
    height = 0.62 + square + 0.5 + legend
    figure = new_figure(height)
    values = _both(panels)
    low, high = decades(values, _LEAST)
    total = sum(len(group.predicted) for each in panels for group in each.groups)
    for place, panel in enumerate(panels):
        left = _SIDE + place * (square + 0.24)
        box = (left / WIDTH, (0.5 + legend) / height, square / WIDTH, square / height)
        axes = figure.add_axes(box)
        _draw_panel(axes, panel, (low, high), total > _MOST_SHAPES, place == 0)
        handles = [_dot(at, each.label, len(panels) == 1) for at, each in enumerate(panel.groups)]
        axes.set_xlabel("predicted: sum over layers")
        if place:
            axes.set_yticklabels([])
        else:
            axes.set_ylabel("measured divergence")
        if len(panels) > 1:
            place_of_legend = {"bbox_to_anchor": (-0.03, -0.5 / square), "handletextpad": 0.2}
        else:
            place_of_legend = {"bbox_to_anchor": (1.04, 1.0), "handletextpad": 0.4}
        axes.legend(handles=handles, loc="upper left", borderaxespad=0, **place_of_legend)
    handles = [
        Line2D([], [], color=INK, linewidth=1, label="equal"),
        Line2D([], [], color=GREY, linewidth=0.8, linestyle="--", label="twice and half"),
        Line2D([], [], color=INK, linestyle=":", label="adding up holds to the left"),
    ]
    if any(each.marked for each in panels):
        mark = {"marker": 6, "linestyle": "", "color": INK, "markersize": 5}
        handles.append(Line2D([], [], label=marked_label, **mark))  # type: ignore[arg-type]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=((_SIDE - 0.06) / WIDTH, 1 - 0.02 / height),
        ncols=len(handles),
        borderaxespad=0,
    )
    return figure


def _dot(place: int, label: str, wide: bool) -> Line2D:
    """Return what stands for a group in a legend, as opaque as many dots of it are."""
    return Line2D(
        [],
        [],
        linestyle="",
        marker=_MARKERS[place % len(_MARKERS)],
        color=_COLOURS[place % len(_COLOURS)],
        markersize=5.5,
        markeredgewidth=0,
        label=shortened(label, 60 if wide else 34),
    )


def _both(panels: Sequence[SumPanel]) -> FloatArray:
    groups = [group for each in panels for group in each.groups]
    marked = [np.array(each.marked) for each in panels]
    found = [each for group in groups for each in (group.predicted, group.measured)]
    joined: FloatArray = np.concatenate([*found, *marked])
    return joined[joined > 0]


def _draw_panel(
    axes: Axes, panel: SumPanel, limits: tuple[float, float], rasterized: bool, first_panel: bool
) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    ends = np.array(limits)
    axes.plot(ends, ends, color=INK, linewidth=1, zorder=1)
    for factor in (0.5, 2.0):
        axes.plot(ends, factor * ends, color=GREY, linewidth=0.8, linestyle="--", zorder=1)
    for end in panel.range_ends:
        axes.axvline(end, color=INK, linestyle=":", linewidth=1, zorder=1)
    for place, group in enumerate(panel.groups):
        J = len(group.predicted)
        axes.scatter(
            np.clip(group.predicted, *limits),
            np.clip(group.measured, *limits),
            s=9 if J > _MANY else 16 if J > _FEW else 30,
            marker=_MARKERS[place % len(_MARKERS)],
            color=_COLOURS[place % len(_COLOURS)],
            alpha=0.55 if J > _FEW else 0.9,
            linewidths=0,
            rasterized=rasterized,
            zorder=2,
            clip_on=False,
        )
    if panel.marked:
        x = np.clip(np.array(panel.marked), *limits)
        axes.plot(
            x,
            np.full(len(x), limits[0]),
            linestyle="",
            marker=6,
            color=INK,
            markersize=5,
            clip_on=False,
            zorder=4,
        )
    axes.set_xlim(*limits)
    axes.set_ylim(*limits)
    _mark_decades(axes, limits, first_panel)
    axes.grid()
    axes.set_title(shortened(panel.title, 44))


def _mark_decades(axes: Axes, limits: tuple[float, float], first_panel: bool) -> None:
    first, last = (round(float(np.log10(each))) for each in limits)
    step = 1 if last - first <= 7 else 2
    places = [10.0**power for power in range(first, last + 1, step)]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator(places))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if not first_panel:
        # There the last number of the panel before would be in its way.
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{value:g}" if value > 1.01 * limits[0] else "")
        )
    axes.tick_params(labelsize=8)

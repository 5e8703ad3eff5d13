"""The pictures of a report, as SVG: the same contents give the same bytes.

Import this module only to draw: matplotlib takes longer to load than a small search to run. Only its
objects are used, never pyplot, which would bring a backend and global state.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from evolve.datasets import Dataset
from evolve.profiles import FloatArray
from evolve.reports.allocations import mean_frontier
from evolve.reports.contents import Contents
from evolve.reports.drawing import BLUE, GREEN, GREY, INK, ORANGE, STYLE, new_figure, shortened, svg
from evolve.reports.precision_map import precision_maps
from evolve.reports.report import COMPRESSION_FIGURE, FITNESS_FIGURE, MAP_FIGURE
from evolve.reports.search_figure import search_figure
from evolve.reports.tables import CHAMPION, RuleScore, SplitTable
from evolve.scoring import THRESHOLD

_PUBLISHED_MARKERS = "sD^vPXph"
_RETENTIONS = (0.0, 0.5, 0.95, 0.99, 0.999, 1.0)
#: Retentions above 1 − 10^−_NINES are drawn at the right edge.
_NINES = 4.0


def draw(contents: Contents, dataset: Dataset) -> dict[str, bytes]:
    """Draw every picture of a report.

    Args:
        contents: What the report shows.
        dataset: The models, for their optimal frontiers.

    Returns:
        SVG by file name; without a champion there are only the dots of the search.
    """
    with matplotlib.rc_context(STYLE):
        pictures = {FITNESS_FIGURE: svg(search_figure(contents))}
        if contents.champion is not None:
            pictures[MAP_FIGURE] = svg(precision_maps(contents.maps))
            frontiers = [mean_frontier(dataset, table.split) for table in contents.tables]
            pictures[COMPRESSION_FIGURE] = svg(_compression(contents.tables, frontiers))
    return pictures


def _nines(retention: FloatArray) -> FloatArray:
    """Stretch the retentions near 1, where rules differ: 0.9 is at 1, 0.99 at 2, 0.999 at 3."""
    return np.asarray(-np.log10(np.clip(1 - retention, 10**-_NINES, 1.0)) + 0.0)


def _compression(tables: Sequence[SplitTable], frontiers: Sequence[tuple[FloatArray, FloatArray]]) -> Figure:
    figure = new_figure(4.1)
    width = 0.915 / len(tables)
    markers = _markers(tables)
    highest = max(float(ratios.max()) for _, ratios in frontiers)
    for place, (table, frontier) in enumerate(zip(tables, frontiers, strict=True)):
        axes = figure.add_axes((0.07 + place * width, 0.24, width - 0.025, 0.66))
        _draw_compression(axes, table, frontier, markers)
        axes.set_ylim(0.9, 1.15 * highest)
        if place:
            axes.set_yticklabels([])
        else:
            axes.set_ylabel("compression ratio")
    figure.text(0.5, 0.135, "accuracy retention", ha="center")
    handles = [
        Line2D([], [], color=GREEN, label="optimal frontier"),
        Line2D([], [], color=INK, linestyle=":", label=f"cliff at {THRESHOLD:g}"),
        _point("*", ORANGE, "champion", 12),
        *(_point(marker, BLUE, name) for name, marker in markers.items()),
        _point("o", GREY, "baseline"),
    ]
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.055, -0.01), ncols=4, numpoints=1)
    return figure


def _markers(tables: Sequence[SplitTable]) -> dict[str, str]:
    names = sorted({row.name for table in tables for row in table.rows if row.role == "published"})
    return {name: _PUBLISHED_MARKERS[place % len(_PUBLISHED_MARKERS)] for place, name in enumerate(names)}


def _point(marker: str, colour: str, label: str, size: float = 7) -> Line2D:
    return Line2D(
        [], [], color=colour, marker=marker, linestyle="", markersize=size, label=shortened(label, 30)
    )


def _draw_compression(
    axes: Axes, table: SplitTable, frontier: tuple[FloatArray, FloatArray], markers: dict[str, str]
) -> None:
    retention, ratios = frontier
    axes.plot(_nines(retention), ratios, color=GREEN, linewidth=1.6)
    axes.axvline(float(_nines(np.array(THRESHOLD))), color=INK, linestyle=":", linewidth=1)
    _draw_rules(axes, table.rows, markers)
    axes.set_xlim(-0.15, _NINES + 0.25)
    axes.set_xticks(
        _nines(np.array(_RETENTIONS)).tolist(), [f"{each:g}" for each in _RETENTIONS], fontsize=7.5
    )
    axes.set_yscale("log", base=2)
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    axes.grid(axis="y")
    models = (
        shortened(table.models[0], 34) if len(table.models) == 1 else f"{len(table.models)} models, means"
    )
    axes.set_title(f"{table.split} · {models}", fontsize=9)


def _draw_rules(axes: Axes, rows: Sequence[RuleScore], markers: dict[str, str]) -> None:
    """Draw the baselines at once, over them the champion, and published rules within its star."""
    looks = {CHAMPION: ("*", ORANGE, 17.0), **{name: (each, BLUE, 6.0) for name, each in markers.items()}}
    places: dict[str, list[tuple[float, float]]] = {"": [], CHAMPION: [], **{name: [] for name in markers}}
    for row in rows:
        if row.accuracy_retention is not None and row.compression_ratio is not None:
            kind = row.name if row.role in (CHAMPION, "published") else ""
            nines = float(_nines(np.array(row.accuracy_retention)))
            places[kind].append((nines, row.compression_ratio))
    for kind, points in places.items():
        marker, colour, size = looks.get(kind, ("o", GREY, 6.0))
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            linestyle="",
            marker=marker,
            color=colour,
            markersize=size,
            markeredgecolor="white",
            markeredgewidth=0.7,
            clip_on=False,
            zorder=3,
        )

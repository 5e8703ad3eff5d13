"""The picture of a search: how its candidates did, generation by generation.

A short search shows every candidate. Of a long one the candidates are summed up, and shares of the optimum
are spread out towards 100 %, where the last hundred generations make their gains.
"""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from evolve.profiles import FloatArray, IntArray
from evolve.reports.contents import Contents
from evolve.reports.drawing import BLUE, GREEN, GREY, INK, ORANGE, new_figure
from evolve.reports.generations import LONG_SEARCH
from evolve.reports.markdown import percent

#: More dots than this are drawn as pixels: as shapes they would make a file of many megabytes.
_MOST_SHAPES = 4000
#: Generations are summed up together until no more than this are left.
_MOST_POINTS = 100
#: Shares above 1 − 10^−_MOST_NINES count as the optimum.
_MOST_NINES = 5.0
#: Labels of the shares, the more welcome first.
_SHARES = (0.0, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.5, 0.95, 0.995, 0.9995, 0.8, 0.98, 0.998, 0.9998)


def search_figure(contents: Contents) -> Figure:
    """Draw the search on the models of train; best, median and every candidate, or their quartiles."""
    long = len(contents.generations) > LONG_SEARCH and bool(contents.dots)
    figure = new_figure(3.9 if long else 3.6)
    left = 0.095 if long else 0.075
    axes = figure.add_axes((left, 0.15, 0.98 - left, 0.74))
    if long:
        _draw_long(axes, contents)
    else:
        _draw_short(axes, contents)
    axes.set_xlim(-0.5, max(0, len(contents.generations) - 1) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("generation")
    axes.grid(axis="y")
    figure.legend(loc="upper left", bbox_to_anchor=(left - 0.01, 1.0), ncols=4)
    return figure


def _draw_short(axes: Axes, contents: Contents) -> None:
    """Draw every candidate; with several models by shares of the optimum, which selection compares."""
    train = contents.tables[0] if contents.tables else None
    shares = train is not None and len(train.models) > 1
    generations = np.array([each.generation for each in contents.dots], dtype=np.int64)
    heights = np.array([each.optimum_ratio if shares else each.fitness for each in contents.dots])
    axes.scatter(
        generations + _spread(generations),
        heights,
        s=max(4.0, min(14.0, 4000 / max(1, len(heights)))),
        color=GREY,
        alpha=0.7,
        linewidths=0,
        label="candidate",
        rasterized=len(heights) > _MOST_SHAPES,
    )
    there = np.unique(generations)
    medians = [float(np.median(heights[generations == each])) for each in there]
    best = [float(heights[generations <= each].max()) for each in there]
    axes.plot(there, medians, color=BLUE, marker="s", markersize=4.5, label="median of the generation")
    axes.plot(there, best, color=ORANGE, marker="o", markersize=4.5, label="best so far")
    if train is not None and train.rows:
        optimum = 1.0 if shares else train.rows[0].optimum
        label = "proven optimum" if shares else f"proven optimum {optimum:.4f}"
        axes.axhline(optimum, color=GREEN, linestyle="--", linewidth=1.4, label=label)
        axes.set_ylim(-0.03 * optimum, 1.06 * optimum)
    axes.set_ylabel("share of the optimum on train, mean" if shares else "fitness on train")


def _spread(generations: IntArray) -> FloatArray:
    """Spread the dots of a generation over its width, in the order they were made."""
    offsets = np.zeros(len(generations))
    for generation in np.unique(generations):
        members = np.flatnonzero(generations == generation)
        offsets[members] = ((np.arange(len(members)) + 0.5) / len(members) - 0.5) * 0.7
    return offsets


def _draw_long(axes: Axes, contents: Contents) -> None:
    """Draw quartiles, median and best of the generations, and the best so far."""
    generations = np.array([each.generation for each in contents.dots], dtype=np.int64)
    shares = np.array([each.optimum_ratio for each in contents.dots])
    # The optimum itself would be infinitely far: it stands half a step above the best of the others.
    reached = bool(shares.max() > 1 - 10**-_MOST_NINES)
    others = shares[shares <= 1 - 10**-_MOST_NINES]
    best_of_others = float(_nines(others.max(initial=0.0), _MOST_NINES))
    highest = max(1.0, math.ceil(2 * best_of_others + 0.2) / 2) + 0.5 * reached
    heights = _nines(shares, highest)
    # Neighbouring generations make one point where a picture could not hold them apart.
    together = math.ceil(len(contents.generations) / _MOST_POINTS)
    points = generations // together
    there = np.unique(points)
    middles = there * together + (together - 1) / 2
    low, median, high, best = np.transpose(
        [np.percentile(heights[points == each], (25, 50, 75, 100)) for each in there]
    )
    of = "a generation" if together == 1 else f"{together} generations"
    axes.fill_between(middles, low, high, color=BLUE, alpha=0.18, linewidth=0, label=f"middle half of {of}")
    axes.plot(middles, median, color=BLUE, linewidth=1.4, label="median")
    axes.plot(
        middles, best, color=GREY, linestyle="", marker="o", markersize=3.2, label=f"best of {of}", zorder=3
    )
    known = np.unique(generations)
    records = np.maximum.accumulate([heights[generations == each].max() for each in known])
    ends = np.append(known, len(contents.generations) - 1)
    axes.step(
        ends,
        [*records, records[-1]],
        where="post",
        color=ORANGE,
        linewidth=2,
        label="best so far",
        zorder=2.5,
    )
    axes.set_ylim(-0.04 * highest, 1.06 * highest)
    _label_shares(axes, highest, reached)
    _label_last(axes, len(contents.generations) - 1, float(records[-1]), float(shares.max()))
    several = bool(contents.tables) and len(contents.tables[0].models) > 1
    axes.set_ylabel(f"share of the optimum on train{', mean' if several else ''}")


def _nines(shares: FloatArray | float, highest: float) -> FloatArray:
    """Stretch the shares near 1, where good rules differ: 0.9 is at 1, 0.99 at 2, 0.999 at 3."""
    return np.asarray(-np.log10(np.clip(1 - np.asarray(shares), 10**-highest, 1.0)) + 0.0)


def _label_shares(axes: Axes, highest: float, reached: bool) -> None:
    """Label the axis of shares, round ones first, with as many as there is room for."""
    shown = {"optimum": highest} if reached else {}
    for each in _SHARES:
        place = float(_nines(each, _MOST_NINES))
        if place <= highest + 1e-9 and all(abs(place - other) >= highest / 11 for other in shown.values()):
            shown[f"{100 * each:.6g} %"] = place
    axes.set_yticks(list(shown.values()), list(shown))


def _label_last(axes: Axes, last: int, height: float, share: float) -> None:
    """Write the last record's share above the end of its line."""
    axes.annotate(
        percent(share, 3),
        (last, height),
        (0, 6),
        textcoords="offset points",
        ha="right",
        va="bottom",
        color=INK,
        fontsize=8.5,
    )

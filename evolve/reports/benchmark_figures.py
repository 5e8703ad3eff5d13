"""The pictures of a benchmark, as SVG: the same results give the same bytes.

Import this module only to draw: matplotlib takes longer to load than the rest of the report.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from evolve.benchmarking import BenchOutcome
from evolve.comparison import LevelPrice, best_so_far
from evolve.profiles import FloatArray
from evolve.reports.benchmark_tables import CURVES_FIGURE, PRICE_FIGURE
from evolve.reports.drawing import BLUE, GREEN, GREY, INK, ORANGE, STYLE, new_figure, shortened, svg

# The rest of the palette of Okabe and Ito (2008); then the same again, dashed and dotted.
_COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", INK)
_LINES = ("-", "--", ":")
#: Gaps to the optimum that are marked, where they are in the picture.
_GAPS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 1e-4, 1e-5)
#: Smaller gaps are drawn at this one.
_LEAST_GAP = 1e-6
_POINTS = 400


def draw_bench(outcome: BenchOutcome, prices: Sequence[LevelPrice]) -> dict[str, bytes]:
    """Draw the pictures of a benchmark.

    Args:
        outcome: What it found.
        prices: The price of information; without any there is no picture of it.

    Returns:
        SVG by file name.
    """
    with matplotlib.rc_context(STYLE):
        pictures = {CURVES_FIGURE: svg(_curves(outcome))}
        if prices:
            pictures[PRICE_FIGURE] = svg(_price(outcome, prices))
    return pictures


def _curves(outcome: BenchOutcome) -> Figure:
    """Draw median and quartiles over seeds of the best share on train, the gap to the optimum logarithmic."""
    figure = new_figure(4.0)
    axes = figure.add_axes((0.085, 0.125, 0.895, 0.76))
    numbers = np.unique(np.linspace(1, outcome.plan.evaluations, _POINTS).round().astype(np.int64))
    lowest, highest = 1.0, 0.0
    for place, setting in enumerate(outcome.plan.settings):
        colour = _COLOURS[place % len(_COLOURS)]
        line = _LINES[place // len(_COLOURS) % len(_LINES)]
        curves = best_so_far(outcome.of(setting), numbers.tolist())
        there = ~np.isnan(curves).any(axis=0)
        low, middle, high = (_gap(each) for each in np.quantile(curves[:, there], (0.25, 0.5, 0.75), axis=0))
        axes.fill_between(numbers[there], low, high, step="post", color=colour, alpha=0.15, linewidth=0)
        label = shortened(setting.name, 30)
        axes.step(numbers[there], middle, where="post", label=label, color=colour, linestyle=line)
        if there.any():
            lowest, highest = min(lowest, float(high.min())), max(highest, float(low.max()))
    axes.set_xlim(0, outcome.plan.evaluations)
    _mark_gaps(axes, lowest, max(highest, lowest))
    axes.set_xlabel("evaluations")
    axes.set_ylabel("best share of the optimum on train")
    axes.grid(axis="y")
    figure.legend(loc="upper left", bbox_to_anchor=(0.075, 1.0), ncols=5)
    return figure


def _gap(shares: FloatArray) -> FloatArray:
    return np.maximum(1 - np.asarray(shares), _LEAST_GAP)


def _mark_gaps(axes: Axes, lowest: float, highest: float) -> None:
    """Make the vertical axis logarithmic in the gap, the optimum above, labelled by the shares."""
    axes.set_yscale("log")
    axes.set_ylim(min(1.0, highest * 1.3), lowest / 1.3)
    axes.yaxis.set_major_locator(FixedLocator(_GAPS))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda gap, _: f"{100 * (1 - gap):.6g} %"))


def _price(outcome: BenchOutcome, prices: Sequence[LevelPrice]) -> Figure:
    """Draw what each level's best rule reaches, with what measuring the signals that it reads costs."""
    figure = new_figure(3.7)
    axes = figure.add_axes((0.085, 0.2, 0.895, 0.69))
    places = np.arange(len(prices), dtype=np.float64)
    split = list(outcome.results[0].shares)[-1]
    for place, each in zip(places, prices, strict=True):
        spread = np.linspace(-0.12, 0.12, len(each.others)) if len(each.others) > 1 else np.zeros(1)
        label = "champions of all runs, mean" if place == 0 else None
        axes.plot(
            place + spread,
            _gap(np.array(each.others)),
            linestyle="",
            marker="o",
            markersize=3.5,
            color=GREY,
            alpha=0.7,
            label=label,
        )
    means, worsts = (
        _gap(np.array(values)) for values in zip(*((p.mean, p.worst) for p in prices), strict=True)
    )
    axes.plot(places, means, color=BLUE, marker="o", markersize=7, label="best rule, mean")
    axes.plot(places, worsts, color=ORANGE, marker="v", markersize=7, label="best rule, worst model")
    gaps = np.concatenate([means, worsts, *(_gap(np.array(each.others)) for each in prices)])
    _mark_gaps(axes, float(gaps.min()), float(gaps.max()))
    axes.set_xlim(-0.4, len(prices) - 0.6)
    axes.set_xticks(places.tolist(), [_place_label(each) for each in prices])
    axes.set_ylabel(f"share of the optimum on {split}")
    axes.grid(axis="y")
    figure.legend(loc="upper left", bbox_to_anchor=(0.075, 1.0), ncols=3)
    return figure


def _place_label(price: LevelPrice) -> str:
    lower = f"\nreads only {price.reads}" if price.reads != price.level else ""
    return f"{price.level}\n{_evaluations(price.cost)}{lower}"


def _evaluations(cost: float) -> str:
    return f"{cost:,.0f} model evaluation{'' if cost == 1 else 's'}"

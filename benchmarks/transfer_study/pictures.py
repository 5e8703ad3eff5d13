"""The picture of the study: how every network's rule compares with its rivals."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from evolve.reports.drawing import BLUE, GREY, INK, ORANGE, STYLE, new_figure, svg
from transfer_study.allocating import RIVALS
from transfer_study.comparing import Row
from transfer_study.searching import BUDGETS
from transfer_study.study import CHEAP_RULE, CURVES_RULE
from transfer_study.tables import ratios

#: Ratios beyond are drawn at the edge.
_EDGES = (0.05, 5.0)
_COLOURS = {CHEAP_RULE: BLUE, CURVES_RULE: ORANGE}


def draw(rows: Sequence[Row]) -> bytes:
    """Return the ratios of each network as dots, their medians as bars, a panel a budget, as SVG."""
    with matplotlib.rc_context(STYLE):
        figure = new_figure(3.7)
        width = 0.78 / len(BUDGETS)
        for place, budget in enumerate(BUDGETS):
            axes = figure.add_axes((0.21 + place * width, 0.17, width - 0.02, 0.66))
            _draw_panel(axes, rows, budget)
            axes.set_title(f"{budget:g} bits")
            axes.set_yticks(range(len(RIVALS)), RIVALS if place == 0 else [""] * len(RIVALS))
        figure.text(0.59, 0.02, "measured divergence, rule over rival: the rule wins left of 1", ha="center")
        handles = [
            axes.plot([], [], "o", color=colour, markersize=4, label=way)[0]
            for way, colour in _COLOURS.items()
        ]
        figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.2, 1.01), ncols=2)
        return svg(figure)


def _draw_panel(axes: Axes, rows: Sequence[Row], budget: float) -> None:
    for way, shift in ((CHEAP_RULE, -0.17), (CURVES_RULE, 0.17)):
        for place, rival in enumerate(RIVALS):
            values = np.clip(list(ratios(rows, way, rival, budget).values()), *_EDGES)
            if not len(values):
                continue
            # Spread in a fixed order, so that dots of equal ratios can be told apart.
            spread = (np.arange(len(values)) * 0.618 % 1 - 0.5) * 0.26
            colour = _COLOURS[way]
            axes.plot(values, place + shift + spread, ".", color=colour, alpha=0.35, markersize=4)
            axes.plot(
                [np.median(values)] * 2, place + shift + np.array([-0.16, 0.16]), color=INK, linewidth=1.6
            )
    axes.axvline(1, color=GREY, linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(_EDGES[0] * 0.9, _EDGES[1] * 1.1)
    axes.set_xticks([0.1, 1], ["0.1", "1"])
    axes.invert_yaxis()

"""The precision map: which format each layer of a model gets, by the champion and in the optimum."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path

from evolve.profiles import LAYER_TYPES
from evolve.reports.allocations import ModelMap
from evolve.reports.drawing import PALE, WIDTH, new_figure, shortened

# All lengths are inches.
_LEFT, _RIGHT = 0.9, WIDTH - 0.12
_LEGEND = 0.36
_TITLE = 0.2
_ROW = 0.2
_BELOW = 0.38
#: Between the allocations and the lines of the layer types.
_SPACE = 0.07
#: A map of more layers joins neighbours of one format instead of leaving gaps between them.
_MOST_SEPARATE = 260
#: Left, right, top and bottom.
_Box = tuple[float, float, float, float]


def precision_maps(maps: Sequence[ModelMap]) -> Figure:
    """Draw a panel a model: champion, optimum, and below them each type of layer on a line of its own."""
    colours = _format_colours(maps)
    heights = [_TITLE + _ROW * (2 + len(_types(each))) + _SPACE + _BELOW for each in maps]
    total = _LEGEND + sum(heights)
    # Axes would cost more than everything drawn in them: a panel is a few shapes and labels.
    figure = new_figure(total)
    top = total - _LEGEND
    for model, height in zip(maps, heights, strict=True):
        _draw_map(figure, model, colours, top)
        top -= height
    handles = [Patch(facecolor=colour, label=name) for name, colour in colours.items()]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(_LEFT / WIDTH - 0.012, 1),
        ncols=8,
        handlelength=1.2,
    )
    return figure


def _types(model: ModelMap) -> list[str]:
    return [name for name in LAYER_TYPES if name in model.layer_types]


def _format_colours(maps: Sequence[ModelMap]) -> dict[str, str]:
    """Give the formats in use, and only those, colours that darken with their bits."""
    bits = {name: width for each in maps for name, width in zip(each.formats, each.bits, strict=True)}
    used = {share.format for each in maps for share in each.shares}
    ordered = sorted(used, key=lambda name: (bits[name], name))
    ramp = matplotlib.colormaps["plasma"](np.linspace(0.88, 0.05, len(ordered)))
    colours = ("#" + "".join(f"{round(255 * part):02x}" for part in colour[:3]) for colour in ramp)
    return dict(zip(ordered, colours, strict=True))


def _draw_map(figure: Figure, model: ModelMap, colours: dict[str, str], top: float) -> None:
    inches = figure.dpi_scale_trans
    L, types = len(model.layer_types), _types(model)
    middle = top - _TITLE - _ROW / 2
    rows = {"champion": middle, "optimum": middle - _ROW}
    rows |= {name: middle - _SPACE - _ROW * (2 + place) for place, name in enumerate(types)}
    lines = [((_LEFT, rows[name]), (_RIGHT, rows[name])) for name in types]
    figure.add_artist(LineCollection(lines, colors=PALE, linewidths=0.8, zorder=0, transform=inches))
    for name, boxes in _boxes(model, rows).items():
        figure.add_artist(PathPatch(_outline(boxes), facecolor=colours[name], linewidth=0, transform=inches))
    agreement = "" if model.agreement is None else f", {model.agreement} of them as in the optimum"
    title = f"{model.split} · {shortened(model.label)} · {L} layers{agreement}"
    figure.text(_LEFT, top - 0.05, title, size=10, va="center", transform=inches)
    if model.champion is None:
        figure.text(
            (_LEFT + _RIGHT) / 2, middle, "the rule fails on this model", va="center", transform=inches
        )
    for name, height in rows.items():
        figure.text(_LEFT - 0.07, height, name, ha="right", va="center", transform=inches)
    foot = min(rows.values()) - _ROW / 2 - 0.02
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**6) if 12 * step >= L)
    for layer in range(0, L, step):
        place = _LEFT + (_RIGHT - _LEFT) * (layer + 0.5) / L
        figure.text(place, foot, str(layer), size=8, ha="center", va="top", transform=inches)
    figure.text(_LEFT - 0.12, foot, "layer", size=8, ha="right", va="top", transform=inches)


def _boxes(model: ModelMap, rows: dict[str, float]) -> dict[str, list[_Box]]:
    """Return by format the boxes of its layers."""
    optimum = np.array(model.optimum)
    champion = np.full(len(optimum), -1) if model.champion is None else np.array(model.champion)
    # Where the champion fails, the types are still shown, in the optimum's formats.
    shown = optimum if model.champion is None else champion
    types = np.array(model.layer_types)
    boxes: dict[str, list[_Box]] = {}
    for index, name in enumerate(model.formats):
        found = [
            *_row_of_boxes(champion == index, rows["champion"], 0.185),
            *_row_of_boxes(optimum == index, rows["optimum"], 0.185),
        ]
        for kind in _types(model):
            found += _row_of_boxes((shown == index) & (types == kind), rows[kind], 0.125)
        if found:
            boxes[name] = found
    return boxes


def _row_of_boxes(chosen: npt.NDArray[np.bool_], middle: float, height: float) -> list[_Box]:
    layers, width = np.flatnonzero(chosen), (_RIGHT - _LEFT) / len(chosen)
    if not len(layers):
        return []
    separate = len(chosen) <= _MOST_SEPARATE
    gap = 0.06 * width if separate else 0.0
    # Without gaps, neighbours are one box: between two, some viewers would show a hairline.
    runs = np.split(layers, np.flatnonzero((np.diff(layers) > 1) | separate) + 1)
    return [
        (
            _LEFT + width * float(run[0]) + gap,
            _LEFT + width * float(run[-1] + 1) - gap,
            middle + height / 2,
            middle - height / 2,
        )
        for run in runs
    ]


def _outline(boxes: Sequence[_Box]) -> Path:
    """Return one path around all boxes: a single shape in the file, however many layers there are."""
    corners = [((x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)) for x0, x1, y0, y1 in boxes]
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(boxes)
    return Path(list(chain.from_iterable(corners)), codes)

"""The precision map: which format each layer of a model gets, by the champion and in the optimum."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path

from evolve.profiles import LAYER_TYPES, FloatArray
from evolve.reports.allocations import ModelMap
from evolve.reports.drawing import PALE, new_figure, shortened

#: A map of more layers joins neighbours of one format instead of leaving gaps between them.
_MOST_SEPARATE = 260
#: Left, right, top and bottom.
_Box = tuple[float, float, float, float]


def precision_maps(maps: Sequence[ModelMap]) -> Figure:
    """Draw a panel a model: champion, optimum, and below them each type of layer on a line of its own."""
    colours = _format_colours(maps)
    inches = [0.62 + 0.2 * (2 + len(_types(each))) for each in maps]
    height = 0.55 + sum(inches) + 0.25
    figure = new_figure(height)
    top = height - 0.55
    for model, size in zip(maps, inches, strict=True):
        axes = figure.add_axes((0.095, (top - size + 0.3) / height, 0.89, (size - 0.58) / height))
        _draw_map(axes, model, colours)
        top -= size
    handles = [Patch(facecolor=colour, label=name) for name, colour in colours.items()]
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.085, 1), ncols=8, handlelength=1.2)
    figure.text(0.985, 0.06 / height, "layers in the order of the network", ha="right", va="bottom")
    return figure


def _types(model: ModelMap) -> list[str]:
    return [name for name in LAYER_TYPES if name in model.layer_types]


def _format_colours(maps: Sequence[ModelMap]) -> dict[str, str]:
    """Give the formats in use colours that darken with their bits."""
    bits = {name: width for each in maps for name, width in zip(each.formats, each.bits, strict=True)}
    ordered = sorted(bits, key=lambda name: (bits[name], name))
    used = {share.format for each in maps for share in each.shares}
    ramp = matplotlib.colormaps["plasma"](np.linspace(0.9, 0.0, len(ordered)))
    colours = ("#" + "".join(f"{round(255 * part):02x}" for part in colour[:3]) for colour in ramp)
    return {name: colour for name, colour in zip(ordered, colours, strict=True) if name in used}


def _draw_map(axes: Axes, model: ModelMap, colours: dict[str, str]) -> None:
    L, types = len(model.layer_types), _types(model)
    lines = [("champion", 0.0), ("optimum", 1.0), *((name, 2.35 + row) for row, name in enumerate(types))]
    places = dict(lines)
    optimum = np.array(model.optimum)
    champion = np.full(L, -1) if model.champion is None else np.array(model.champion)
    # Where the champion fails, the types are still shown, in the optimum's formats.
    shown = optimum if model.champion is None else champion
    rows = np.array([places[kind] for kind in model.layer_types])
    gap = 0.12 if L <= _MOST_SEPARATE else 0.0
    axes.hlines([places[name] for name in types], 0, L, colors=PALE, linewidths=0.8)
    for index, name in enumerate(model.formats):
        boxes = [
            *_boxes(np.flatnonzero(champion == index), np.zeros(L), 0.92, gap),
            *_boxes(np.flatnonzero(optimum == index), np.ones(L), 0.92, gap),
            *_boxes(np.flatnonzero(shown == index), rows, 0.62, gap),
        ]
        if boxes:
            axes.add_patch(PathPatch(_outline(boxes), facecolor=colours[name], linewidth=0))
    if model.champion is None:
        axes.text(L / 2, 0, "the rule fails on this model", ha="center", va="center")
    axes.set_xlim(-0.2, L + 0.2)
    axes.set_ylim(2.35 + len(types) - 0.5, -0.6)
    axes.set_yticks([place for _, place in lines], [name for name, _ in lines])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    ticks = [tick for tick in axes.get_xticks() if 0 <= tick < L and tick == int(tick)]
    axes.set_xticks([tick + 0.5 for tick in ticks], [f"{tick:.0f}" for tick in ticks])
    axes.tick_params(axis="x", pad=1, labelsize=8)
    agreement = "" if model.agreement is None else f" · {model.agreement} as in the optimum"
    axes.set_title(f"{shortened(model.model)} · {model.split} · {L} layers{agreement}", pad=4)


def _boxes(layers: npt.NDArray[np.intp], rows: FloatArray, height: float, gap: float) -> list[_Box]:
    """Return (left, right, top, bottom) of the boxes of some layers; neighbours join if there is no gap."""
    if not len(layers):
        return []
    same = (np.diff(layers) == 1) & (np.diff(rows[layers]) == 0) & (gap == 0)
    runs = np.split(layers, np.flatnonzero(~same) + 1)
    return [
        (run[0] + gap / 2, run[-1] + 1 - gap / 2, rows[run[0]] - height / 2, rows[run[0]] + height / 2)
        for run in runs
    ]


def _outline(boxes: Sequence[_Box]) -> Path:
    """Return one path around all boxes: a single shape in the file, however many layers there are."""
    corners = [((x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)) for x0, x1, y0, y1 in boxes]
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(boxes)
    return Path(list(chain.from_iterable(corners)), codes)

"""The layers of one network, a row each: statistics, divergences by format, and the format they get.

Import this module only to draw: matplotlib takes longer to load than most reports to write.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PatchCollection
from matplotlib.colors import LinearSegmentedColormap, LogNorm, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from evolve.profiles import LAYER_TYPES, FloatArray
from evolve.reports.drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE,
    STYLE,
    WIDTH,
    new_figure,
    shortened,
    svg,
)
from evolve.reports.network_facts import FormatMap, NetworkLayers, common_prefix, counted_weights

#: The colour of each layer type, of the palette of Okabe and Ito (2008).
KIND_COLOURS = dict(zip(LAYER_TYPES, ("#CC79A7", GREEN, BLUE, ORANGE, "#E69F00", "#56B4E9"), strict=True))
#: Divergences are shaded from the first of these to the second; what is 0 stays white.
_SHADED = (1e-6, 1.0)
_LEVELS = 25
_SHADES = LinearSegmentedColormap.from_list("divergence", ["#FFF8EF", "#FDD0A2", "#F16913", "#A63603"])

#: Left, right, and both ends of a box.
_Box = tuple[float, float, float, float]

# All lengths are inches.
_TOP = 0.85
#: Below the rows: numbers and a label, or the names of formats, at so much a character.
_BOTTOM, _CHARACTER = 0.46, 0.075
_LEFT, _RIGHT = 2.42, 0.1
_GAP = 0.22
#: Rows are as high as their labels need, and lower in networks too deep for that.
_ROW, _LEAST_ROW, _MOST_HEIGHT = 0.165, 0.03, 30.0
_LEAST_LABELLED = 0.11
_NAME_WIDTH = 30
_FORMAT_WIDTH = 18
#: A map of more layers has its formats named above too.
_MOST_NAMED_ONCE = 40


def draw_layers(layers: NetworkLayers, maps: Sequence[FormatMap] = ()) -> bytes:
    """Return `layer_picture` as SVG, the same bytes for the same layers."""
    with matplotlib.rc_context(STYLE):
        return svg(layer_picture(layers, maps))


def layer_picture(layers: NetworkLayers, maps: Sequence[FormatMap] = ()) -> Figure:
    """Draw a row a layer: weights, activations, and a map of formats for each allocation.

    A map is shaded by the divergence with the layer alone in the format, where that was measured, and the
    format that the layer gets has a bar as wide as the layer's share of weights, the largest layer's a whole
    cell. Without an allocation there is one map, of divergences alone.

    Args:
        layers: The network.
        maps: Its allocations.
    """
    L = len(layers.names)
    row = max(_LEAST_ROW, min(_ROW, _MOST_HEIGHT / L))
    body = row * L
    longest = max((len(name) for each in maps for name in each.formats.values()), default=0)
    longest = min(_FORMAT_WIDTH, max(longest, *map(len, layers.formats or ("",)), 0))
    bottom = max(_BOTTOM, 0.1 + _CHARACTER * longest)
    named_twice = _CHARACTER * longest if L > _MOST_NAMED_ONCE else 0.0
    height = _TOP + named_twice + body + bottom
    figure = new_figure(height)
    panels = [(name, 1.0) for name in ("weight", "activation") if f"{name}_range" in layers.statistics]
    shown = list(maps)
    if not shown and layers.divergence is not None:
        shown = [FormatMap("divergence", {})]
    room = WIDTH - _LEFT - _RIGHT - _GAP * (len(panels) + len(shown) - 1)
    shares = [share for _, share in panels] + [1.55 if len(shown) == 1 else 1.2] * len(shown)
    widths = [room * share / sum(shares) for share in shares]
    left = _LEFT
    for place, width in enumerate(widths):
        box = (left / WIDTH, bottom / height, width / WIDTH, body / height)
        axes = figure.add_axes(box)
        axes.set_ylim(L - 0.5, -0.5)
        axes.yaxis.set_major_locator(NullLocator())
        axes.tick_params(labelsize=7.5, length=2.5)
        if place < len(panels):
            _draw_statistics(axes, layers, panels[place][0])
        else:
            _draw_map(axes, layers, shown[place - len(panels)], row, named_twice)
        left += width + _GAP
    _write_names(figure, layers, row, bottom + body)
    _draw_legend(figure, layers, height, bool(maps))
    if layers.divergence is not None:
        _draw_scale(figure, height)
    return figure


def _write_names(figure: Figure, layers: NetworkLayers, row: float, top: float) -> None:
    inches = figure.dpi_scale_trans
    L = len(layers.names)
    step = 1 if row >= _LEAST_LABELLED else int(np.ceil(_LEAST_LABELLED / row))
    prefix = common_prefix(layers.names)
    for at in range(0, L, step):
        middle = top - row * (at + 0.5)
        name = _shortened_path(layers.names[at].removeprefix(prefix))
        size = min(7.5, max(5.5, 62 * row))
        figure.text(_LEFT - 0.66, middle, name, size=size, ha="right", va="center_baseline", transform=inches)
        figure.text(
            _LEFT - 0.2,
            middle,
            counted_weights(int(layers.num_params[at])),
            size=size,
            color=GREY,
            ha="right",
            va="center_baseline",
            transform=inches,
        )
    marks = [Rectangle((_LEFT - 0.14, top - row * (at + 0.88)), 0.08, row * 0.76) for at in range(L)]
    colours = [KIND_COLOURS[kind] for kind in layers.kinds]
    figure.add_artist(PatchCollection(marks, facecolors=colours, linewidths=0, transform=inches))
    heading = f"{_shortened_path(prefix)}…" if prefix else "layer"
    figure.text(_LEFT - 0.66, top + 0.09, heading, size=8, ha="right", transform=inches)
    figure.text(_LEFT - 0.2, top + 0.09, "weights", size=8, color=GREY, ha="right", transform=inches)


def _shortened_path(name: str) -> str:
    """Keep the end of a layer's name, which tells layers apart."""
    return name if len(name) <= _NAME_WIDTH else "…" + name[1 - _NAME_WIDTH :]


def _draw_statistics(axes: Axes, layers: NetworkLayers, what: str) -> None:
    """Draw deviation and range of each layer on a line, both where they are above 0."""
    places = np.arange(len(layers.names))
    wide = layers.statistics[f"{what}_range"]
    deviation = layers.statistics.get(f"{what}_std", np.zeros(len(places)))
    colours = np.array([KIND_COLOURS[kind] for kind in layers.kinds])
    both = (wide > 0) & (deviation > 0)
    lines = [((low, at), (high, at)) for low, high, at in zip(deviation, wide, places, strict=True)]
    kept = [line for line, drawn in zip(lines, both, strict=True) if drawn]
    axes.set_xscale("log")
    axes.add_collection(LineCollection(kept, colors=colours[both].tolist(), linewidths=1.1, alpha=0.55))
    size = float(np.clip(900 / len(places), 4, 16))
    for values, filled in ((deviation, False), (wide, True)):
        there = values > 0
        axes.scatter(
            values[there],
            places[there],
            s=size,
            facecolors=colours[there].tolist() if filled else "white",
            edgecolors=colours[there].tolist(),
            linewidths=0.9,
            zorder=3,
        )
    values = np.concatenate([wide[wide > 0], deviation[deviation > 0]])
    if len(values):
        axes.set_xlim(values.min() / 1.6, values.max() * 1.6)
    axes.xaxis.set_major_locator(LogLocator(numticks=6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="minor", length=0)
    axes.grid(axis="x")
    axes.set_title({"weight": "weights", "activation": "activations"}[what], fontsize=9, pad=5)
    axes.set_xlabel("value, logarithmic", fontsize=8, labelpad=2)


def _draw_map(axes: Axes, layers: NetworkLayers, shown: FormatMap, row: float, above: float) -> None:
    formats = [*layers.formats]
    formats += [name for name in dict.fromkeys(shown.formats.values()) if name not in formats]
    L, K = len(layers.names), len(formats)
    if layers.divergence is not None:
        # A shape a shade: a cell by itself would take three times the space in the file.
        for colour, cells in _shaded(layers.divergence).items():
            axes.add_patch(PathPatch(_outline(cells), facecolor=colour, linewidth=0))
    axes.set_xlim(-0.5, K - 0.5)
    lines = [((at - 0.5, -0.5), (at - 0.5, L - 0.5)) for at in range(1, K)]
    if row >= _LEAST_LABELLED / 2:
        lines += [((-0.5, at - 0.5), (K - 0.5, at - 0.5)) for at in range(1, L)]
    axes.add_collection(LineCollection(lines, colors="white" if layers.divergence is not None else PALE))
    if shown.formats:
        largest = float(layers.num_params.max())
        cells, bars = [], []
        for at, name in enumerate(layers.names):
            left = formats.index(shown.formats[name]) - 0.46
            width = max(0.06, 0.92 * float(layers.num_params[at]) / largest)
            cells.append((left, left + 0.92, at - 0.4, at + 0.4))
            bars.append((left, left + width, at - 0.4, at + 0.4))
        frame = min(0.9, 7 * row)
        axes.add_patch(
            PathPatch(_outline(cells), facecolor="white", edgecolor=INK, linewidth=frame, zorder=3)
        )
        axes.add_patch(PathPatch(_outline(bars), facecolor=INK, linewidth=0, zorder=4))
    names = [shortened(name, _FORMAT_WIDTH) for name in formats]
    axes.set_xticks(range(K), names, rotation=90, fontsize=7)
    axes.tick_params(length=0, axis="x", pad=2, labeltop=above > 0)
    title = shown.label if shown.formats else "divergence by format"
    axes.set_title(title, fontsize=9, pad=5 + 72 * above)


def _shaded(divergence: FloatArray) -> dict[str, list[_Box]]:
    """Return the cells of a map by their shade, those without divergence left out.

    Args:
        divergence: Of each layer in each format, (L, K).
    """
    low, high = np.log10(_SHADED)
    with np.errstate(divide="ignore"):
        place = np.clip((np.log10(divergence) - low) / (high - low), 0, 1)
    levels = np.rint(place * (_LEVELS - 1)).astype(np.int64)
    found: dict[str, list[_Box]] = {}
    for level in range(_LEVELS):
        cells = np.argwhere((levels == level) & (divergence > 0)).tolist()
        if cells:
            colour = to_hex(_SHADES(level / (_LEVELS - 1)))
            found[colour] = [(at - 0.5, at + 0.5, layer - 0.5, layer + 0.5) for layer, at in cells]
    return found


def _outline(boxes: Sequence[_Box]) -> Path:
    """Return one path around boxes: left, right, and their ends from above."""
    corners = [((x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)) for x0, x1, y0, y1 in boxes]
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(boxes)
    return Path(list(chain.from_iterable(corners)), codes)


def _draw_legend(figure: Figure, layers: NetworkLayers, height: float, mapped: bool) -> None:
    kinds = [Patch(facecolor=KIND_COLOURS[each], label=each) for each in LAYER_TYPES if each in layers.kinds]
    marks = [_mark("white", "standard deviation"), _mark(GREY, "range, largest − smallest")]
    handles = [*kinds, *marks]
    if mapped:
        handles.append(Patch(facecolor=INK, label="format, width by weights"))
    left = 0.08 / WIDTH
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(left, 1 - 0.02 / height),
        ncols=len(handles) if len(handles) <= 5 else -(-len(handles) // 2),
        handlelength=1.1,
        columnspacing=1.4,
        borderaxespad=0,
        fontsize=8,
    )


def _draw_scale(figure: Figure, height: float) -> None:
    """Draw what the shades of a map stand for."""
    width, top = 1.5, height - 0.14
    axes = figure.add_axes(
        ((WIDTH - _RIGHT - width - 0.1) / WIDTH, (top - 0.1) / height, width / WIDTH, 0.1 / height)
    )
    edges = np.geomspace(*_SHADED, 25)
    axes.pcolormesh(edges, (0, 1), edges[None, :-1], cmap=_SHADES, norm=LogNorm(*_SHADED), edgecolor="face")
    axes.set_xscale("log")
    axes.set_xlim(*_SHADED)
    axes.set_xticks([1e-6, 1e-4, 1e-2, 1], ["1e-6", "1e-4", "0.01", "1"], fontsize=7)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(NullLocator())
    axes.tick_params(length=0, pad=2)
    axes.spines[:].set_visible(False)
    figure.text(
        axes.get_position().x0 - 0.08 / WIDTH,
        axes.get_position().y0,
        "divergence",
        size=8,
        ha="right",
        va="bottom",
    )


def _mark(face: str, label: str) -> Line2D:
    return Line2D(
        [],
        [],
        linestyle="",
        marker="o",
        markersize=4,
        markerfacecolor=face,
        markeredgecolor=GREY,
        label=label,
    )

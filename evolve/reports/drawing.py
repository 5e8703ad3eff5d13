"""What the pictures share: their look, and how they become SVG."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Of the palette of Okabe and Ito (2008), which all kinds of colour vision tell apart.
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
GREY, PALE, INK = "#8A929C", "#E4E7EB", "#1F2933"
#: Inches; text of nine points is then of the size of a code host's own text.
WIDTH = 9.2
#: matplotlib's settings while a picture is drawn.
STYLE: Any = {
    "svg.hashsalt": "evolve",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    # A model's name may hold dollar signs.
    "text.parse_math": False,
    "text.color": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": PALE,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
}


def new_figure(height: float) -> Figure:
    """Return an empty figure of so many inches."""
    figure = Figure(figsize=(WIDTH, height))
    FigureCanvasSVG(figure)
    return figure


def svg(figure: Figure) -> bytes:
    """Return a figure as SVG, the same bytes for the same figure."""
    file = io.BytesIO()
    # Without date and creator, whose version would change the bytes.
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def shortened(text: str, width: int = 60) -> str:
    """Keep a name to the width of the picture."""
    return text if len(text) <= width else text[: width - 1] + "…"

"""Markdown that renders on a code host: escaping, numbers for people, and the templates' environment."""

from __future__ import annotations

import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

_TEMPLATES = Path(__file__).resolve().parent / "templates"
MISSING = "–"


def code(text: str) -> str:
    """Return an inline code span, outside of tables; its fence is longer than any run of backticks inside."""
    flat = " ".join(text.split())
    if not flat:
        return MISSING
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", flat)), default=0))
    # One space at each end is none of the text, and keeps its backticks apart from the fence.
    gap = " " if flat.startswith("`") or flat.endswith("`") else ""
    return f"{fence}{gap}{flat}{gap}{fence}"


def code_cell(text: str) -> str:
    """Return an inline code span within a table, where a pipe ends the cell even in code."""
    return code(text).replace("|", "\\|")


def prose(text: str) -> str:
    """Return text that cannot be taken for markup, also within a table."""
    flat = " ".join(text.split())
    return re.sub(r"([\\`*\[\]<>|~#$]|(?<!\w)_|_(?!\w))", r"\\\1", flat) or MISSING


def fenced(text: str, language: str = "") -> str:
    """Return a fenced code block; the fence is longer than any run of backticks in the text."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def number(value: float | None, digits: int = 4) -> str:
    """Return a number with a fixed count of decimals."""
    return MISSING if value is None else f"{value:.{digits}f}".replace("-", "−")


def figure(value: float | None) -> str:
    """Return a number of any size in three digits."""
    return MISSING if value is None else f"{value:.3g}".replace("-", "−")


def percent(share: float | None, digits: int = 2) -> str:
    """Return a share in percent, rounded down: only what is the optimum reads 100.00 %."""
    if share is None:
        return MISSING
    scale = 10**digits
    return f"{math.floor(share * 100 * scale + 1e-6) / scale:.{digits}f} %"


def signed(value: float | None, digits: int = 4) -> str:
    """Return a difference with its sign; what rounds to nothing is 0."""
    if value is None:
        return MISSING
    text = f"{value:+.{digits}f}"
    return "0" if float(text) == 0 else text.replace("-", "−")


def counted(count: int, noun: str) -> str:
    """Return a count with its noun in the right number."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def joined(parts: list[str]) -> str:
    """Join words as in a sentence: ``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - the output is markdown; `prose`, `code` and `code_cell` escape it
    )
    filters = (code, code_cell, prose, fenced, number, figure, percent, signed, joined)
    environment.filters |= {each.__name__: each for each in filters}
    environment.filters["counted"] = counted
    return environment


def render(template: str, context: dict[str, Any]) -> str:
    """Render one of the templates beside this module."""
    return _environment().get_template(template).render(context)

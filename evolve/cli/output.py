"""What the verbs print: JSON for machines, tables for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; columns of numbers are aligned to the right."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    listed = [list(row) for row in rows]
    table = Table(title=title or None, box=SIMPLE, title_justify="left")
    for index, name in enumerate(columns):
        numeric = all(isinstance(row[index], int | float | None) for row in listed)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in listed:
        table.add_row(*(_cell(value) for value in row))
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4f}"
    return str(value)


#: What a table shows of a result after whose it is: the heading by the name in JSON.
_RESULT_COLUMNS = {
    "split": "split",
    "compression_ratio": "compression",
    "accuracy_retention": "retention",
    "avg_bits": "bits",
    "fitness": "fitness",
    "optimum": "optimum",
    "optimum_ratio": "share",
}


def print_results(title: str, whose: Mapping[str, str], results: Iterable[Mapping[str, Any]]) -> None:
    """Print results, as JSON objects, in a table; ``whose`` has the headings that come first."""
    columns = {**whose, **_RESULT_COLUMNS}
    print_table(title, list(columns.values()), ([each[name] for name in columns] for each in results))

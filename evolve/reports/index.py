"""The index of all runs: ``reports/README.md``, made from the folders that are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from evolve.reports.markdown import MISSING, number, percent, prose

INDEX = "README.md"
_HEAD = """# Reports

Each folder is the report of one run. Scores are fitness, with the share of the proven optimum.

| run | data set | train | valid | test | what was found |
| --- | --- | ---: | ---: | ---: | --- |
"""
_BENCH_HEAD = """## Benchmarks

Each folder compares settings of the search over seeds, at equal numbers of evaluations.

| benchmark | data set | settings | seeds | evaluations |
| --- | --- | --- | ---: | ---: |
"""
_EMPTY = """# Reports

There are none yet: `python -m evolve run` writes the first one.
"""


def render_index(reports: Path) -> str:
    """Render the index of the reports in a folder, by name; folders that hold no report are left out."""
    folders = sorted(path.parent for path in reports.glob("[!.]*/champion.json"))
    rows = [row for folder in folders if (row := index_row(folder))]
    benches = sorted(path.parent for path in reports.glob("[!.]*/bench.json"))
    bench_rows = [row for folder in benches if (row := bench_row(folder))]
    if bench_rows:
        head = _HEAD + "".join(rows) + "\n" if rows else "# Reports\n\n"
        return head + _BENCH_HEAD + "".join(bench_rows)
    return _HEAD + "".join(rows) if rows else _EMPTY


def index_row(folder: Path) -> str:
    """Return a report's line of the index, an empty text if the folder holds no report."""
    try:
        record = json.loads((folder / "champion.json").read_text(encoding="utf-8"))
        if not (folder / "report.md").is_file():
            return ""
        scores = record.get("scores", {})
        cells = [prose(record["dataset"]), *(_score(scores.get(name)) for name in ("train", "valid", "test"))]
        # The sentence is markdown already; only a pipe would end its cell.
        found = " ".join(record["found"].split()).replace("|", "\\|")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
    link = f"[{prose(folder.name)}]({quote(folder.name)}/report.md)"
    return f"| {' | '.join([link, *cells, found])} |\n"


def bench_row(folder: Path) -> str:
    """Return a benchmark's line of the index, an empty text if the folder holds none."""
    try:
        record = json.loads((folder / "bench.json").read_text(encoding="utf-8"))
        if not (folder / "bench.md").is_file():
            return ""
        settings = ", ".join(prose(each["name"]) for each in record["settings"])
        cells = [prose(record["dataset"]), settings, f"{record['seeds']:d}", f"{record['evaluations']:d}"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
    link = f"[{prose(folder.name)}]({quote(folder.name)}/bench.md)"
    return f"| {' | '.join([link, *cells])} |\n"


def _score(score: dict[str, Any] | None) -> str:
    if score is None:
        return MISSING
    if score["fitness"] is None:
        return "fails"
    return f"{number(score['fitness'])} ({percent(score['optimum_ratio'])})"

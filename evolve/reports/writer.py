"""Writes a report: the folder appears whole or not at all, then the index of all reports."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from evolve.engine import Outcome
from evolve.errors import RunError
from evolve.reports.contents import collect
from evolve.reports.index import INDEX, render_index
from evolve.reports.networks import draw_networks
from evolve.reports.report import report_texts
from evolve.setup import Setup
from evolve.store import RunStore

REPORTS = Path("reports")


def write_report(
    store: RunStore, setup: Setup, outcome: Outcome, reports: Path = REPORTS, figures: bool = True
) -> Path:
    """Write the report of a run, in place of an older one, and the index of all reports.

    Args:
        store: The run.
        setup: What was searched.
        outcome: What the search found.
        reports: The folder of all reports.
        figures: Whether to draw pictures.

    Returns:
        The report's folder.

    Raises:
        RunError: The folder cannot be written, or holds the report of a benchmark.
    """
    if (reports / store.name / "bench.json").is_file():
        # Runs of that name could be started once.
        raise RunError(
            "the report of a benchmark is here",
            file=reports / store.name,
            cure=f"Move it elsewhere, then write this one with 'evolve report {store.name}'.",
        )
    check_is_report(reports / store.name, "report.json")
    contents = collect(store, setup, outcome)
    files = {name: text.encode() for name, text in report_texts(contents, figures).items()}
    if figures:
        # Only here, for matplotlib takes longer to load than a small search to run.
        from evolve.reports.figures import draw

        files |= draw(contents, setup.dataset) | draw_networks(contents.networks)
    folder = reports / store.name
    try:
        write_folder(folder, files)
        write_index(reports)
    except OSError as error:
        raise RunError(
            f"the report cannot be written: {error.strerror or error}",
            file=folder,
            cure=f"Then write it with 'evolve report {store.name}'.",
        ) from error
    return folder


def check_is_report(folder: Path, mark: str) -> None:
    """Refuse to replace what is no report.

    Args:
        folder: Where a report is to stand.
        mark: A file that all such reports have.

    Raises:
        RunError: Something else is there.
    """
    is_free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not is_free and not (folder / mark).is_file():
        raise RunError(
            "something that is no report is here, and would be lost",
            file=folder,
            cure="Move it elsewhere, then write the report.",
        )


def write_folder(folder: Path, files: dict[str, bytes]) -> None:
    """Replace a folder by one with these files; a kill leaves the old one, the new one, or one aside."""
    aside, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("new", "old"))
    if old.exists() and not folder.exists():
        old.rename(folder)  # killed between the two renames below
    for leftover in (aside, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        for name, content in files.items():
            path = aside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        if folder.exists():
            folder.rename(old)
        aside.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def write_index(reports: Path) -> None:
    """Write the index of the reports in a folder anew."""
    # Named by the process, for two runs may end at the same moment.
    aside = reports / f".{INDEX}.{os.getpid()}"
    try:
        aside.write_text(render_index(reports), encoding="utf-8", newline="\n")
        aside.replace(reports / INDEX)
    finally:
        aside.unlink(missing_ok=True)
